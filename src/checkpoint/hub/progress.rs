//! How a download goes: a bar on a terminal, else a line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::options::{HubOptions, Watch};

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Smaller files are not worth a word.
const SMALL: u64 = 1 << 20;

/// The progress of one file.
pub(super) struct Progress {
    bar: ProgressBar,
    name: String,
    total: u64,
    lines: bool,
    last: Instant,
    watch: Option<Watch>,
}

impl Progress {
    pub(super) fn new(name: &str, total: u64, options: &HubOptions) -> Self {
        let shown = options.progress && total >= SMALL;
        let terminal = std::io::stderr().is_terminal();
        let target = match shown && terminal {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(name.to_string());
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        let progress = Self {
            bar,
            name: name.to_string(),
            total,
            lines: shown && !terminal,
            last: Instant::now(),
            watch: options.watch.clone().filter(|_| total >= SMALL),
        };
        if progress.lines {
            eprintln!("downloading {name} ({})", HumanBytes(total));
        }
        progress
    }

    pub(super) fn at(&mut self, position: u64) {
        self.bar.set_position(position);
        if let Some(watch) = &self.watch {
            watch(position, self.total);
        }
        if self.lines && self.last.elapsed() >= PAUSE {
            self.last = Instant::now();
            eprintln!("downloading {}: {} of {}", self.name, HumanBytes(position), HumanBytes(self.total));
        }
    }

    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
        if self.lines {
            eprintln!("downloaded {}", self.name);
        }
    }
}
