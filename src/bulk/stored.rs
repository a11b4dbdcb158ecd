//! Files that are read in any order, piece by piece.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes that are read at once by whoever goes through a file from its beginning.
const BLOCK: usize = 1 << 18;

/// Something of a known length that can be read anywhere.
pub(super) trait Stored: Send + Sync {
    /// Bytes.
    fn length(&self) -> u64;

    /// The bytes from `start` on; fewer than `length` only at the end.
    fn read_at(&self, start: u64, length: usize) -> Result<Bytes>;
}

/// A file on this machine.
struct Local {
    file: Mutex<File>,
    length: u64,
}

/// Opens a file on this machine.
pub(super) fn open(path: &Path) -> Result<Arc<dyn Stored>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(Arc::new(Local { file: Mutex::new(file), length }))
}

impl Stored for Local {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, start: u64, length: usize) -> Result<Bytes> {
        let there = self.length.saturating_sub(start).min(length as u64);
        let mut bytes = Vec::with_capacity(usize::try_from(there).map_err(Error::other)?);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        (&mut *file).take(there).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Exactly these bytes.
///
/// # Errors
/// If the file ends before.
pub(super) fn exactly(stored: &dyn Stored, start: u64, length: usize) -> Result<Bytes> {
    // What is asked for may come from the file itself.
    if stored.length().saturating_sub(start) < length as u64 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let bytes = stored.read_at(start, length)?;
    if bytes.len() < length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

/// A file from a place on, one byte after the other.
pub(super) struct Sequential {
    stored: Arc<dyn Stored>,
    at: u64,
    block: Bytes,
}

impl Sequential {
    pub(super) fn new(stored: Arc<dyn Stored>, at: u64) -> Self {
        Self { stored, at, block: Bytes::new() }
    }
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.block.is_empty() {
            self.block = self.stored.read_at(self.at, BLOCK)?;
            self.at += self.block.len() as u64;
        }
        let length = buffer.len().min(self.block.len());
        buffer[..length].copy_from_slice(&self.block.split_to(length));
        Ok(length)
    }
}
