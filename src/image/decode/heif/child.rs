//! The process that decodes: `siglip decode-heif`. The file is its standard input, which is mapped; the answer goes to standard output:
//! a byte (0: a picture, 1: what is wrong with the file, 2: what is wrong here), then width and height (u32, little endian) and the
//! RGB bytes, or a text.

use std::io::Write;
use std::os::fd::AsFd;

use memmap2::Mmap;

use super::{confine, library};

pub(super) const PICTURE: u8 = 0;
pub(super) const BAD_FILE: u8 = 1;
/// Bytes before the pixels.
pub(super) const HEAD: usize = 9;

const FAULT: u8 = 2;

/// Decodes the file that is standard input to standard output, in at most `memory` bytes beside what the process has at first and
/// `seconds` of the processor's time. The process is confined from then on, and should end.
///
/// # Errors
/// If the answer cannot be written. What is wrong with the file, or with the confinement, is an answer.
pub fn answer(memory: u64, seconds: u64) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match decode(memory, seconds) {
        Ok(picture) => {
            out.write_all(&[PICTURE])?;
            out.write_all(&picture.width.to_le_bytes())?;
            out.write_all(&picture.height.to_le_bytes())?;
            out.write_all(&picture.pixels)?;
        }
        Err((kind, reason)) => {
            out.write_all(&[kind])?;
            out.write_all(reason.as_bytes())?;
        }
    }
    out.flush()
}

fn decode(memory: u64, seconds: u64) -> Result<super::Rgb, (u8, String)> {
    let fault = |reason: String| (FAULT, reason);
    let input = std::io::stdin();
    // SAFETY: whoever started this process has made the file for it, and changes it no more.
    let file = unsafe { Mmap::map(&input.as_fd()) };
    let file = file.map_err(|error| fault(format!("no file on standard input: {error}")))?;
    library::load_plugins();
    confine::process(memory, seconds).map_err(fault)?;
    // The parent has checked every limit against the header, and compares the size with it.
    library::decode(&file, u32::MAX >> 1).map_err(|reason| (BAD_FILE, reason))
}
