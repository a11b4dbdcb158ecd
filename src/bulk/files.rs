//! Files as they are read, and as they are put into their place.

use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::image::ImageError;
use crate::{Error, Result};

/// The bytes of a file, if it has no more than `limit`, and what the system says of it.
///
/// # Errors
/// If it cannot be read, or is larger.
pub fn read(path: &Path, limit: usize) -> Result<(Vec<u8>, Metadata)> {
    let io_error = |source| Error::Io { path: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(io_error)?;
    let metadata = file.metadata().map_err(io_error)?;
    let mut bytes = Vec::new();
    // One byte more than the limit tells a file that is too large from one that just fits.
    (&mut file).take(limit as u64 + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() > limit {
        return Err(Error::from(ImageError::FileTooLarge { bytes: bytes.len(), limit }));
    }
    Ok((bytes, metadata))
}

/// SHA-256 in hex.
pub(super) fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The size of a file and the SHA-256 of its bytes in hex.
pub(super) fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size, hex(hash.finalize())));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

/// Makes sure that the names in a folder are on the disk.
pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        // Not every system opens folders.
        Err(_) if cfg!(not(unix)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates a file with all of its content, or says that there is one: `false`.
pub(super) fn create_whole(path: &Path, temporary: &Path, content: &[u8]) -> std::io::Result<bool> {
    let write = |mut file: File| file.write_all(content).and_then(|()| file.sync_all());
    let linked =
        File::create(temporary).and_then(write).and_then(|()| match fs::hard_link(temporary, path) {
            Ok(()) => Ok(true),
            Err(_) if path.exists() => Ok(false),
            // Not every file system has links.
            Err(_) => match File::create_new(path) {
                Ok(file) => match write(file) {
                    Ok(()) => Ok(true),
                    // A part of it must not be taken for the whole.
                    Err(error) => fs::remove_file(path).and(Err(error)),
                },
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            },
        });
    let _ = fs::remove_file(temporary);
    linked
}
