//! The files of a checkpoint: a folder on disk, or bytes inside the program.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::Mmap;

use super::CheckpointError;

/// Where the files of one checkpoint are.
#[derive(Debug, Clone)]
pub enum Files {
    /// A folder.
    Dir(PathBuf),
    /// Files inside the program: name and bytes.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

/// The bytes of one file, mapped into memory rather than read where that is possible.
#[derive(Debug)]
pub enum Blob {
    /// A file on disk.
    Mapped {
        /// Its bytes as memory.
        map: Mmap,
        /// To read pieces of it once the model serves.
        file: File,
        /// When it was changed last.
        modified: Option<SystemTime>,
    },
    /// Bytes inside the program, or an empty file.
    Static(&'static [u8]),
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map,
            Self::Static(bytes) => bytes,
        }
    }
}

impl Blob {
    /// Maps a file.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = File::open(path).map_err(|source| read_error(path, source))?;
        let metadata = file.metadata().map_err(|source| read_error(path, source))?;
        if metadata.len() == 0 {
            return Ok(Self::Static(&[]));
        }
        // SAFETY: the mapping is read-only and private. Another process that truncates the file while
        // it is loaded would end this one with SIGBUS, as it would any program that maps its weights;
        // downloads are written to another name and renamed, so this program never does that itself. What
        // is read after that is read by `read_at`.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| read_error(path, source))?;
        let modified = metadata.modified().ok();
        Ok(Self::Mapped { map, file, modified })
    }

    /// When the file was changed last; `None` for bytes inside the program.
    pub fn modified(&self) -> Option<SystemTime> {
        match self {
            Self::Mapped { modified, .. } => *modified,
            Self::Static(_) => None,
        }
    }

    /// Reads bytes at an offset by a system call, so that a file that has been cut short meanwhile is an error and
    /// not the end of the process.
    ///
    /// # Errors
    /// If the file ends before them or cannot be read.
    pub fn read_at(&self, bytes: &mut [u8], offset: usize) -> std::io::Result<()> {
        #[cfg(unix)]
        if let Self::Mapped { file, .. } = self {
            use std::os::unix::fs::FileExt;
            return file.read_exact_at(bytes, offset as u64);
        }
        let found = offset.checked_add(bytes.len()).and_then(|end| self.get(offset..end));
        bytes.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Files {
    /// How a file is called in messages.
    pub fn label(&self, name: &str) -> String {
        match self {
            Self::Dir(folder) => folder.join(name).display().to_string(),
            Self::Embedded(_) => format!("demo/{name}"),
        }
    }

    /// How the whole checkpoint is called in messages.
    pub fn place(&self) -> String {
        match self {
            Self::Dir(folder) => folder.display().to_string(),
            Self::Embedded(_) => "demo".to_string(),
        }
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Dir(folder) => folder.join(name).is_file(),
            Self::Embedded(files) => files.iter().any(|(known, _)| *known == name),
        }
    }

    /// The names of all files (not of folders), sorted.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let mut names = Vec::new();
        match self {
            Self::Dir(folder) => {
                for entry in std::fs::read_dir(folder).map_err(|source| read_error(folder, source))? {
                    let entry = entry.map_err(|source| read_error(folder, source))?;
                    if entry.path().is_file() {
                        names.push(entry.file_name().to_string_lossy().into_owned());
                    }
                }
            }
            Self::Embedded(files) => names.extend(files.iter().map(|(name, _)| (*name).to_string())),
        }
        names.sort();
        Ok(names)
    }

    /// Reads a small file of at most `limit` bytes; `None` where there is none.
    ///
    /// # Errors
    /// If it is larger, or there but not readable.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Cow<'static, [u8]>>, CheckpointError> {
        match self {
            Self::Dir(folder) => {
                let path = folder.join(name);
                let file = match File::open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(read_error(&path, error)),
                };
                let mut bytes = Vec::new();
                file.take(limit + 1).read_to_end(&mut bytes).map_err(|source| read_error(&path, source))?;
                if bytes.len() as u64 > limit {
                    let found = path.metadata().map_or(limit + 1, |data| data.len());
                    return Err(CheckpointError::TooLarge { file: self.label(name), found, limit });
                }
                Ok(Some(Cow::Owned(bytes)))
            }
            Self::Embedded(files) => {
                Ok(files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| Cow::Borrowed(*bytes)))
            }
        }
    }

    /// Maps a weights file.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    pub fn map(&self, name: &str) -> Result<Blob, CheckpointError> {
        match self {
            Self::Dir(folder) => Blob::open(&folder.join(name)),
            Self::Embedded(files) => files
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, bytes)| Blob::Static(bytes))
                .ok_or_else(|| CheckpointError::NotFound(PathBuf::from(self.label(name)))),
        }
    }
}

fn read_error(path: &Path, source: std::io::Error) -> CheckpointError {
    if source.kind() == std::io::ErrorKind::NotFound {
        CheckpointError::NotFound(path.to_path_buf())
    } else {
        CheckpointError::Read { file: path.display().to_string(), source }
    }
}
