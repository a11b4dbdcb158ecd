//! What is to be embedded: pictures in folders and lists, and files that hold many inputs.

mod glob;
mod lists;
mod summary;
mod walk;

use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

pub use lists::{read_texts, split_list};
pub use summary::LeftOut;
#[cfg(feature = "object-store")]
pub(super) use walk::taken_from_store;

pub(super) use self::glob::Globs;
use super::fault::{Fault, Kind};
use super::objects::{self, Object, is_url};
use super::stored::{self, Stored};

/// A file that is to be embedded, or whose rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// What it is called in the output, with `/` between its parts.
    pub name: String,
    /// Where it is: a path, or the URL of an object.
    pub path: PathBuf,
    /// The object, where it is one.
    pub object: Option<Object>,
    /// Bytes.
    pub size: u64,
    /// When it was changed, in microseconds since 1970.
    pub mtime: i64,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A picture.
    Picture,
    /// A video, of which frames are taken.
    Video,
    /// Many pictures, in a tar (webdataset).
    Tar,
    /// Rows with a picture or a text: Parquet.
    Parquet,
    /// Rows with a picture or a text: Arrow's file or stream format.
    Arrow,
    /// A text on each line.
    Texts,
}

impl Content {
    /// By the end of a file's name; a file that was named is a picture if it is nothing else.
    pub(super) fn of(path: &Path) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "tar" => Self::Tar,
            "parquet" => Self::Parquet,
            "arrow" | "arrows" | "feather" => Self::Arrow,
            "mp4" | "m4v" | "mov" | "mkv" | "webm" | "avi" | "mpg" | "mpeg" | "m2ts" | "wmv" | "flv"
            | "3gp" | "ogv" => Self::Video,
            _ => Self::Picture,
        }
    }

    /// Whether a file is one input, or frames of one, and not rows of its own.
    pub fn is_loose(self) -> bool {
        matches!(self, Self::Picture | Self::Video)
    }
}

/// What becomes of videos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Videos {
    /// No frames are asked for.
    #[default]
    LeftOut,
    /// Frames are asked for, and there is no `ffmpeg`.
    NoProgram,
    /// Their frames are taken.
    Taken,
}

impl Videos {
    /// Why they are left out.
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::LeftOut => Some("videos (--frames)"),
            Self::NoProgram => Some("videos, for which ffmpeg must be on PATH"),
            Self::Taken => None,
        }
    }
}

/// How files are looked for.
#[derive(Debug, Clone, Default)]
pub struct FindOptions {
    /// Whether links to folders are followed.
    pub follow: bool,
    /// Patterns of names that are left out.
    pub exclude: Vec<String>,
    /// Whether names in lists end with NUL instead of a line break.
    pub null: bool,
    /// What becomes of videos.
    pub videos: Videos,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order in which it was named, folders in the order of names.
    pub files: Vec<FileEntry>,
    /// What was not taken, and why.
    pub left_out: LeftOut,
}

/// Looks for files: a folder to any depth, `-` a list on standard input, `@file` a list in a file, else the file itself.
/// Names are relative to the folder, where it is the only thing named; else they are as they were given. A file that cannot
/// be found is left out, and so is what cannot be read in a folder.
///
/// # Errors
/// If a list cannot be read, a pattern is not one, or the only thing named is not there.
pub fn find(inputs: &[PathBuf], options: &FindOptions) -> Result<Found, Fault> {
    let globs = Globs::new(&options.exclude)?;
    let mut found = Found::default();
    let alone = inputs.len() == 1;
    for input in inputs {
        let list = input.to_str().and_then(|text| text.strip_prefix('@')).filter(|_| !input.exists());
        if input.as_os_str() == "-" || list.is_some() {
            for path in lists::read_list(list.map(Path::new), options.null)? {
                match path.to_str().filter(|_| is_url(&path)) {
                    Some(url) => objects::find(url, false, &globs, options, &mut found)?,
                    None => add(&path, false, &globs, options, &mut found),
                }
            }
        } else if let Some(url) = input.to_str().filter(|_| is_url(input)) {
            objects::find(url, alone, &globs, options, &mut found)?;
        } else if alone && !input.exists() {
            return Err(Fault::usage(format!("{}: there is no such file or folder", input.display())));
        } else {
            add(input, alone, &globs, options, &mut found);
        }
    }
    Ok(found)
}

fn add(path: &Path, alone: bool, globs: &Globs, options: &FindOptions, found: &mut Found) {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let base = if alone { path } else { Path::new("") };
            walk::walk(path, base, globs, options, found);
        }
        Ok(metadata) => {
            let name = if alone { path.file_name().map_or(path, Path::new) } else { path };
            let content = Content::of(path);
            match options.videos.reason().filter(|_| content == Content::Video) {
                Some(reason) => found.left_out.add(reason, &name_of(name)),
                None => found.files.push(FileEntry::new(path, name, &metadata, content)),
            }
        }
        Err(error) => found.left_out.fail(&error, &name_of(path)),
    }
}

impl FileEntry {
    /// A file by what the system says of it.
    pub fn new(path: &Path, name: &Path, metadata: &Metadata, content: Content) -> Self {
        Self {
            name: name_of(name),
            path: path.to_owned(),
            object: None,
            size: metadata.len(),
            mtime: mtime_of(metadata),
            content,
        }
    }

    /// Opens it, to be read anywhere.
    pub(super) fn open(&self) -> std::io::Result<Arc<dyn Stored>> {
        match &self.object {
            Some(object) => object.open(),
            None => stored::open(&self.path),
        }
    }

    /// All of its bytes, if there are no more than `limit`; its size and time as they are now.
    ///
    /// # Errors
    /// Why it cannot be an input, or why the run must end: its store cannot be reached.
    pub(super) fn read(&self, limit: usize) -> Result<(Bytes, u64, i64), ReadError> {
        let Some(object) = &self.object else {
            let (bytes, metadata) =
                super::files::read(&self.path, limit).map_err(|error| ReadError::Input(error.to_string()))?;
            return Ok((bytes.into(), metadata.len(), mtime_of(&metadata)));
        };
        if self.size > limit as u64 {
            let text = format!("the file has {} bytes; the limit is {limit}", self.size);
            return Err(ReadError::Input(text));
        }
        let read = object.open().and_then(|stored| stored::exactly(&*stored, 0, self.size as usize));
        let bytes = read.map_err(|error| match object.lost() {
            Some(text) => ReadError::Fault(Fault::new(Kind::Temporary, text)),
            None => ReadError::Input(error.to_string()),
        })?;
        Ok((bytes, self.size, self.mtime))
    }

    /// A file with a text on each line.
    ///
    /// # Errors
    /// If it is not there.
    pub fn texts(path: &Path) -> Result<Self, Fault> {
        let metadata = std::fs::metadata(path)
            .map_err(|error| Fault::usage(format!("--texts {}: {error}", path.display())))?;
        Ok(Self::new(path, path, &metadata, Content::Texts))
    }
}

/// Why a file cannot be read.
pub(super) enum ReadError {
    /// It cannot be an input.
    Input(String),
    /// It may be one later.
    Fault(Fault),
}

/// When a file was changed, in microseconds since 1970; 0 where the system does not know.
fn mtime_of(metadata: &Metadata) -> i64 {
    let Ok(time) = metadata.modified() else { return 0 };
    let micros = |time: std::time::Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    }
}

/// A path as a name: without `./` at its beginning, with `/` between its parts.
fn name_of(path: &Path) -> String {
    let parts: PathBuf = path.components().filter(|part| !matches!(part, Component::CurDir)).collect();
    let name = parts.to_string_lossy().into_owned();
    if std::path::MAIN_SEPARATOR == '/' { name } else { name.replace(std::path::MAIN_SEPARATOR, "/") }
}
