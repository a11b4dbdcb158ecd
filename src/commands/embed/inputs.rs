//! Which files to embed.

use std::fs;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use crate::image::ImageError;
use crate::{Error, Result};

/// Ends of the names of files that a folder is searched for; a file that is named is taken whatever it is called.
const EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"];

/// Files in the order given, folders searched to any depth in the order of names, `-` a list on standard input.
///
/// # Errors
/// If a file or folder does not exist, or cannot be read.
pub fn find(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
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
    let failed = |source| Error::Io { path: folder.to_path_buf(), source };
    let mut entries = fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(failed)?;
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
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let failed = |source| Error::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    // One byte more than the limit tells a file that is too large from one that just fits.
    fs::File::open(path).map_err(failed)?.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(ImageError::FileTooLarge { bytes: bytes.len(), limit }.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(read(&path, 9), Err(Error::Image(_))));
    }
}
