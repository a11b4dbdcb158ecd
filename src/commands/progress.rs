//! How far a long command is: a bar on a terminal, a line per minute elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts inputs on standard error.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    started: Instant,
    told: Instant,
}

impl Progress {
    /// Begins to count towards `total` inputs; 0 where nobody knows.
    pub(super) fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                0 => (ProgressBar::new_spinner(), "{spinner} {pos} {per_sec}"),
                total => (ProgressBar::new(total as u64), "{bar:30} {pos}/{len} {per_sec} {eta} left"),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        Self { bar, total, done: 0, started: now, told: now }
    }

    /// Inputs done so far.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// One more input is done.
    pub(super) fn advance(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            return bar.inc(1);
        }
        let now = Instant::now();
        if now.duration_since(self.told) >= INTERVAL {
            self.told = now;
            eprintln!("{}", line(self.done, self.total, now.duration_since(self.started)));
        }
    }

    /// Prints a line without tearing the bar.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `1200 of 5000 inputs, 40.0 per second, about 1 min 35 s left`
fn line(done: usize, total: usize, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    if total == 0 {
        return format!("{done} inputs, {rate:.1} per second");
    }
    let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
    format!("{done} of {total} inputs, {rate:.1} per second, about {} left", rough(left))
}

/// A time in at most two units.
fn rough(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        assert_eq!(
            line(1200, 5000, Duration::from_secs(30)),
            "1200 of 5000 inputs, 40.0 per second, about 1 min 35 s left"
        );
        assert_eq!(
            line(1, 10_001, Duration::from_secs(2)),
            "1 of 10001 inputs, 0.5 per second, about 5 h 33 min left"
        );
        assert_eq!(line(7, 0, Duration::from_secs(2)), "7 inputs, 3.5 per second");
        assert_eq!(line(5, 5, Duration::from_secs(1)), "5 of 5 inputs, 5.0 per second, about 0 s left");
    }

    #[test]
    fn inputs_are_counted() {
        let mut progress = Progress::new(3);
        (0..3).for_each(|_| progress.advance());
        assert_eq!(progress.done(), 3);
    }
}
