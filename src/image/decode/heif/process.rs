//! The side that has pictures decoded: starts a process for each, gives it the file, takes the picture.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Rgb, child};
use crate::image::decode::broken;
use crate::image::{Format, ImageError};

/// The program that runs, even where its file was replaced.
const PROGRAM: &str = "/proc/self/exe";
/// Of the processor. libde265 decodes some 20 megapixels per second; all parts of a picture may have 260 together by default.
const SECONDS: u64 = 30;
/// Until the answer is whole, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of a text that says what is wrong.
const REASON_BYTES: u64 = 512;

/// The picture of `size` (width and height) that `bytes` hold, decoded within `memory` bytes.
pub(super) fn decode(bytes: &[u8], format: Format, size: (u32, u32), memory: u64) -> Result<Rgb, ImageError> {
    let fault = |what: &str, error: std::io::Error| ImageError::NoDecoder {
        format,
        reason: format!("{what}: {error}"),
    };
    let file = in_memory(bytes).map_err(|error| fault("the file cannot be handed on", error))?;
    let mut running =
        Running(start(file, memory).map_err(|error| fault("no process can be started", error))?);
    let answer = running.answer(size);
    let status = running.end();
    match answer {
        Ok(Answer::Picture(picture)) => Ok(picture),
        Ok(Answer::BadFile(reason)) => Err(broken(format, reason)),
        Ok(Answer::Fault(reason)) => Err(ImageError::NoDecoder { format, reason }),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(ended(format, status)),
        Err(error) if error.kind() == ErrorKind::TimedOut => {
            let reason = format!("the machine is too busy: {} s were not enough", PATIENCE.as_secs());
            Err(ImageError::NoDecoder { format, reason })
        }
        Err(error) => Err(fault("its answer cannot be read", error)),
    }
}

/// Whether a process can be started and confined.
///
/// # Errors
/// [`ImageError::NoDecoder`] if not.
pub fn check() -> Result<(), ImageError> {
    match decode(b"no picture", Format::Heic, (1, 1), super::FIXED_BYTES) {
        // What is wrong with the file was said by the process.
        Ok(_) | Err(ImageError::Broken { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file without a name: written once, then only read.
fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("picture", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

fn start(file: File, memory: u64) -> std::io::Result<Child> {
    let kept = ["LD_LIBRARY_PATH", "LIBHEIF_PLUGIN_PATH"];
    let kept = kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    Command::new(PROGRAM)
        .arg0("siglip")
        .args(["decode-heif", "--memory", &memory.to_string(), "--seconds", &SECONDS.to_string()])
        .env_clear()
        .envs(kept)
        // Each thread's own arena would be 64 MiB of address space.
        .env("MALLOC_ARENA_MAX", "1")
        // What Rust allocates shall count, too, and not come out of a gigabyte that was reserved before.
        .env("MIMALLOC_ARENA_RESERVE", "0")
        .current_dir("/")
        .stdin(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Ctrl-C in a terminal is the parent's: it may finish what it has begun.
        .process_group(0)
        .spawn()
}

enum Answer {
    Picture(Rgb),
    BadFile(String),
    Fault(String),
}

/// Killed, if it still runs, and waited for.
struct Running(Child);

impl Running {
    fn answer(&mut self, (width, height): (u32, u32)) -> std::io::Result<Answer> {
        let out = self.0.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
        let mut out = Patient { out, until: Instant::now() + PATIENCE };
        let mut head = [0; child::HEAD];
        out.read_exact(&mut head[..1])?;
        if head[0] != child::PICTURE {
            let mut reason = Vec::new();
            out.take(REASON_BYTES).read_to_end(&mut reason)?;
            let reason = String::from_utf8_lossy(&reason).into_owned();
            return Ok(if head[0] == child::BAD_FILE {
                Answer::BadFile(reason)
            } else {
                Answer::Fault(reason)
            });
        }
        out.read_exact(&mut head[1..])?;
        let side = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if (side(1), side(5)) != (width, height) {
            return Ok(Answer::BadFile("it has another size than it says".to_owned()));
        }
        let count = width as usize * height as usize * 3;
        let mut pixels = Vec::new();
        pixels.try_reserve_exact(count).map_err(|_| ErrorKind::OutOfMemory)?;
        pixels.resize(count, 0);
        out.read_exact(&mut pixels)?;
        Ok(Answer::Picture(Rgb { width, height, pixels }))
    }

    fn end(&mut self) -> Option<ExitStatus> {
        // Whether it had anything left to say or not.
        let _ = self.0.kill();
        self.0.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads while there is time.
struct Patient {
    out: ChildStdout,
    until: Instant,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
        let mut ready = [PollFd::from_borrowed_fd(self.out.as_fd(), PollFlags::IN)];
        match poll(&mut ready, Some(&left)) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) => self.out.read(buffer),
            Err(error) => Err(error.into()),
        }
    }
}

/// It ended without an answer.
fn ended(format: Format, status: Option<ExitStatus>) -> ImageError {
    let signal = status.and_then(|status| status.signal());
    tracing::debug!(%format, ?status, "the process that decodes ended without an answer");
    match signal {
        Some(libc::SIGXCPU) => {
            broken(format, format_args!("decoding it takes longer than {SECONDS} seconds"))
        }
        // Where C++ gets no memory, it aborts. The limit is what the picture's size needs.
        Some(libc::SIGABRT) => broken(format, "decoding it takes more memory than its size says"),
        Some(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE) => {
            ImageError::DecoderFailed { format }
        }
        // Killed from outside, where the machine has no memory left; or it could not even begin.
        _ => {
            let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
            ImageError::NoDecoder {
                format,
                reason: format!("its process ended without an answer ({status})"),
            }
        }
    }
}
