//! Frames of videos through the program `ffmpeg`, a process for each: it finds the moment by itself, whatever the container.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one frame may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of what it says that are kept.
const TOLD: u64 = 1 << 16;

/// Whether there is an `ffmpeg`.
pub fn is_there() -> bool {
    let mut command = Command::new("ffmpeg");
    command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Gives up to `count` frames to `each`, as bitmaps, with the middles of as many equal parts of the video's time, in seconds.
/// Those that are the same as the one before are left out.
///
/// # Errors
/// What was wrong, in one line; frames before it were given.
pub(super) fn frames(
    path: &Path,
    count: usize,
    max_bytes: usize,
    each: &mut dyn FnMut(f64, Vec<u8>) -> ControlFlow<()>,
) -> Result<(), String> {
    let told = run(command(path, None), 0)?.told;
    let duration = duration(&told).ok_or_else(|| match told.lines().last() {
        Some(line) if !told.contains("Duration:") => format!("ffmpeg: {}", line.trim()),
        _ => "ffmpeg cannot tell how long the video is".to_owned(),
    })?;
    let mut before: Vec<u8> = Vec::new();
    for part in 0..count {
        let time = (duration * (part as f64 + 0.5) / count as f64 * 1000.0).floor() / 1000.0;
        let Ran { output, told, success } = run(command(path, Some(time)), max_bytes)?;
        if !success {
            return Err(format!("ffmpeg: {}", told.lines().last().unwrap_or("it failed").trim()));
        }
        if output.len() > max_bytes {
            return Err(format!("a frame has more than {max_bytes} bytes"));
        }
        // Behind the last frame there is nothing.
        if output.is_empty() || output == before {
            continue;
        }
        before.clone_from(&output);
        if each(time, output).is_break() {
            return Ok(());
        }
    }
    match before.is_empty() {
        true => Err("ffmpeg finds no frame in it".to_owned()),
        false => Ok(()),
    }
}

/// Asks for the frame at a time, or for what the file is.
fn command(path: &Path, time: Option<f64>) -> Command {
    let mut command = Command::new("ffmpeg");
    // A playlist must not name other hosts.
    command.args(["-hide_banner", "-nostdin", "-threads", "1", "-protocol_whitelist", "file"]);
    if let Some(time) = time {
        command.args(["-v", "error", "-ss", &format!("{time:.3}")]);
    }
    let mut input = std::ffi::OsString::from("file:");
    input.push(path);
    command.arg("-i").arg(input);
    if time.is_some() {
        command.args(["-map", "0:v:0", "-frames:v", "1", "-c:v", "bmp", "-pix_fmt", "bgr24"]);
        command.args(["-f", "image2pipe", "pipe:1"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Ran {
    output: Vec<u8>,
    told: String,
    success: bool,
}

/// A process that is ended when nobody needs it any more.
struct Running(Arc<Mutex<Child>>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Runs it to its end, or until it has written more than `most` bytes or its time is over.
fn run(mut command: Command, most: usize) -> Result<Ran, String> {
    let mut child = command.spawn().map_err(|error| format!("ffmpeg: {error}"))?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let running = Running(Arc::new(Mutex::new(child)));
    let (done, ended): (Sender<()>, Receiver<()>) = channel();
    let watched = Arc::clone(&running.0);
    let watch = std::thread::spawn(move || {
        let late = ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if late {
            let _ = watched.lock().unwrap_or_else(PoisonError::into_inner).kill();
        }
        late
    });
    let told = std::thread::spawn(move || {
        let mut told = Vec::new();
        if let Some(mut errors) = errors {
            let _ = (&mut errors).take(TOLD).read_to_end(&mut told);
            // What comes after that is not kept, but must not hold it up.
            let _ = std::io::copy(&mut errors, &mut std::io::sink());
        }
        String::from_utf8_lossy(&told).into_owned()
    });
    let mut bytes = Vec::new();
    let read = output.map_or(Ok(0), |output| output.take(most as u64 + 1).read_to_end(&mut bytes));
    let success = match bytes.len() > most {
        true => true,
        false => {
            // Its output has ended, so that it ends now. It is not waited for with the lock held, which the watch may need.
            loop {
                let status = running.0.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
                match status {
                    Ok(Some(status)) => break status.success(),
                    Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                    Err(error) => return Err(format!("ffmpeg: {error}")),
                }
            }
        }
    };
    drop(running);
    drop(done);
    let late = watch.join().unwrap_or(false);
    let told = told.join().unwrap_or_default();
    match read {
        _ if late => Err(format!("ffmpeg took more than {} s", PATIENCE.as_secs())),
        Err(error) => Err(format!("ffmpeg: {error}")),
        Ok(_) => Ok(Ran { output: bytes, told, success }),
    }
}

/// Seconds out of `Duration: 00:01:02.50, start: …`.
fn duration(told: &str) -> Option<f64> {
    let text = told.split("Duration: ").nth(1)?.split(',').next()?;
    let mut parts = text.trim().rsplit(':');
    let seconds: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let hours: f64 = parts.next()?.parse().ok()?;
    let all = hours * 3600.0 + minutes * 60.0 + seconds;
    (all.is_finite() && all > 0.0).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_read_out_of_what_ffmpeg_says() {
        let told =
            "Input #0, mov, from 'a.mp4':\n  Duration: 01:02:03.50, start: 0.000000, bitrate: 7 kb/s\n";
        assert_eq!(duration(told), Some(3723.5));
        for odd in ["Duration: N/A, start: 0", "Duration: 00:00:00.00, x", "nothing", "Duration: 1e999:0:0,"]
        {
            assert_eq!(duration(odd), None, "{odd}");
        }
    }
}
