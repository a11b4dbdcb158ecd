//! What to embed: texts, token ids and files, in this order.

use std::fs;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::commands::error::{Result, failed};
use crate::commands::session::Source;
use crate::config::EmbedArgs;
use crate::image::ImageError;
use crate::pipeline::ModelInfo;

/// What a row of the output is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Text,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }
}

/// One input and what it is called in the output.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) source: Source,
}

/// Every input that the arguments name.
///
/// # Errors
/// If there is none, token ids cannot be read, or a file or folder does not exist.
pub(super) fn list(args: &EmbedArgs) -> Result<Vec<Row>> {
    if args.texts.is_empty() && args.token_ids.is_empty() && args.inputs.is_empty() {
        return Err(failed("nothing to embed: give --text, files, folders, or - for a list"));
    }
    let mut rows = Vec::new();
    for text in &args.texts {
        rows.push(Row { kind: Kind::Text, name: text.clone(), source: Source::Text(text.clone()) });
    }
    for list in &args.token_ids {
        rows.push(Row { kind: Kind::Text, name: list.clone(), source: Source::TokenIds(parse_ids(list)?) });
    }
    for file in find(&args.inputs)? {
        let name = file.display().to_string();
        rows.push(Row { kind: Kind::Image, name, source: Source::File(file) });
    }
    if rows.is_empty() {
        return Err(failed("no images were found in the folders given"));
    }
    Ok(rows)
}

/// Checks that the model has the towers that the inputs need.
///
/// # Errors
/// If it has not.
pub(super) fn check(rows: &[Row], info: &ModelInfo) -> Result<()> {
    for (kind, has_tower) in [(Kind::Image, info.image.is_some()), (Kind::Text, info.text.is_some())] {
        if !has_tower && rows.iter().any(|row| row.kind == kind) {
            return Err(failed(format!("this model has no {} tower", kind.name())));
        }
    }
    Ok(())
}

/// Ids separated by commas.
fn parse_ids(list: &str) -> Result<Vec<u32>> {
    let id = |part: &str| {
        let part = part.trim();
        part.parse().map_err(|_| failed(format!("--token-ids {list:?}: {part:?} is no token id")))
    };
    list.split(',').map(id).collect()
}

/// Ends of the names of files that a folder is searched for; a file that is named is taken whatever it is called.
const EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"];

/// Files in the order given, folders searched to any depth in the order of names, `-` a list on standard input.
///
/// # Errors
/// If a file or folder does not exist, or cannot be read.
pub(in crate::commands) fn find(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for input in inputs {
        if input.as_os_str() == "-" {
            for line in std::io::stdin().lock().lines() {
                let line = line.map_err(|source| Error::Io { path: "standard input".into(), source })?;
                let line = line.trim_end_matches('\r');
                if !line.is_empty() {
                    files.push(PathBuf::from(line));
                }
            }
        } else if input.is_dir() {
            walk(input, &mut files)?;
        } else {
            files.push(input.clone());
        }
    }
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let io_error = |source| Error::Io { path: folder.to_path_buf(), source };
    let mut entries = fs::read_dir(folder)
        .map_err(io_error)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(io_error)?;
    entries.sort();
    for path in entries {
        // Links to folders are not followed, so that a loop of links ends.
        if path.is_dir() && !path.is_symlink() {
            walk(&path, files)?;
        } else if path.is_file() && has_image_extension(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// The bytes of a file, if it has no more than `limit`.
///
/// # Errors
/// If it cannot be read, or is larger.
pub(in crate::commands) fn read(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let io_error = |source| Error::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    // One byte more than the limit tells a file that is too large from one that just fits.
    fs::File::open(path)
        .map_err(io_error)?
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    if bytes.len() > limit {
        return Err(Error::from(ImageError::FileTooLarge { bytes: bytes.len(), limit }).into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::error::CommandError;

    #[test]
    fn folders_are_searched_in_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["c.JPG", "a.png", "b/x.webp", "notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = find(&[folder.path().to_path_buf()]).unwrap();
        let names: Vec<_> =
            found.iter().map(|p| p.strip_prefix(folder.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.png", "b/x.webp", "c.JPG"]);
    }

    #[test]
    fn a_file_above_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, [0; 10]).unwrap();
        assert_eq!(read(&path, 10).unwrap().len(), 10);
        assert!(matches!(read(&path, 9), Err(CommandError::Crate(Error::Image(_)))));
    }
}
