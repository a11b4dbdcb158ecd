//! Lists of files, and files of texts.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::bulk::fault::Fault;

/// Bytes of a line at most: more than the longest path of any system.
const LINE_BYTES: usize = 1 << 20;

/// The paths of a list, on standard input where no file is named.
pub(super) fn read_list(file: Option<&Path>, null: bool) -> Result<Vec<PathBuf>, Fault> {
    let name = file.map_or("standard input".to_owned(), |file| file.display().to_string());
    let wrong = |error: std::io::Error| Fault::usage(format!("{name}: {error}"));
    let reader: Box<dyn Read> = match file {
        Some(file) => Box::new(std::fs::File::open(file).map_err(wrong)?),
        None => Box::new(std::io::stdin()),
    };
    let end = if null { 0 } else { b'\n' };
    let mut paths = Vec::new();
    split_list(BufReader::new(reader), end, |line| {
        let line = if null { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
        if !line.is_empty() {
            paths.push(path_of(line));
        }
    })
    .map_err(wrong)?;
    Ok(paths)
}

/// The parts of a stream between bytes `end`.
///
/// # Errors
/// If it cannot be read, or a part is longer than a megabyte.
pub fn split_list(mut reader: impl BufRead, end: u8, mut each: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(LINE_BYTES as u64 + 1).read_until(end, &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if line.last() == Some(&end) {
            line.pop();
        } else if line.len() > LINE_BYTES {
            let text = format!("a line has more than {LINE_BYTES} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        }
        each(&line);
    }
}

/// The lines of a file of texts that are not empty.
///
/// # Errors
/// If it cannot be read, or a line is no UTF-8.
pub fn read_texts(path: &Path, mut each: impl FnMut(&str)) -> Result<(), Fault> {
    let wrong = |error: String| Fault::input(format!("{}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let (mut number, mut odd) = (0, None);
    split_list(BufReader::new(file), b'\n', |line| {
        number += 1;
        match std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) {
            Ok("") => {}
            Ok(text) => each(text),
            Err(_) => odd = odd.or(Some(number)),
        }
    })
    .map_err(|error| wrong(error.to_string()))?;
    odd.map_or(Ok(()), |line: usize| Err(wrong(format!("line {line} is not UTF-8"))))
}

#[cfg(unix)]
fn path_of(line: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(line.to_vec()).into()
}

#[cfg(not(unix))]
fn path_of(line: &[u8]) -> PathBuf {
    OsString::from(String::from_utf8_lossy(line).into_owned()).into()
}
