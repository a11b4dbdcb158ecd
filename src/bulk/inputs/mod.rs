//! What is to be embedded: pictures in folders and lists, and files that hold many inputs.

mod glob;
mod lists;
mod summary;
mod walk;

use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

pub use lists::{read_texts, split_list};
pub use summary::LeftOut;

use self::glob::Globs;
use super::fault::Fault;

/// A file that is to be embedded, or whose rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// What it is called in the output, with `/` between its parts.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
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
    fn of(path: &Path) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "tar" => Self::Tar,
            "parquet" => Self::Parquet,
            "arrow" | "arrows" | "feather" => Self::Arrow,
            _ => Self::Picture,
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
                add(&path, false, &globs, options, &mut found);
            }
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
            walk::walk(path, base, globs, options.follow, found);
        }
        Ok(metadata) => {
            let name = if alone { path.file_name().map_or(path, Path::new) } else { path };
            found.files.push(FileEntry::new(path, name, &metadata, Content::of(path)));
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
            size: metadata.len(),
            mtime: mtime_of(metadata),
            content,
        }
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

/// When a file was changed, in microseconds since 1970; 0 where the system does not know.
pub(super) fn mtime_of(metadata: &Metadata) -> i64 {
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
