//! Folders, to any depth.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::glob::Globs;
use super::{Content, FileEntry, FindOptions, Found, Videos, name_of};

/// Ends of the names of pictures; a file that is named is taken whatever it is called.
const EXTENSIONS: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"];
/// Those of pictures that libheif reads.
const HEIF: [&str; 3] = ["heic", "heif", "avif"];
/// Folders that systems and cameras leave: thumbnails of a NAS, of macOS archives, what was thrown away.
const LITTER: [&str; 8] = [
    "@eaDir",
    "__MACOSX",
    "#recycle",
    "$RECYCLE.BIN",
    ".Trashes",
    ".thumbnails",
    "lost+found",
    "System Volume Information",
];

/// Adds the pictures of a folder, in the order of names; what is not taken is counted.
pub(super) fn walk(folder: &Path, base: &Path, globs: &Globs, options: &FindOptions, found: &mut Found) {
    let FindOptions { follow, videos, .. } = *options;
    let mut walk = Walk { base, globs, follow, videos, found, above: HashSet::new() };
    walk.folder(folder);
}

struct Walk<'a> {
    base: &'a Path,
    globs: &'a Globs,
    follow: bool,
    videos: Videos,
    found: &'a mut Found,
    /// The folders that are being gone through, so that a loop of links ends.
    above: HashSet<PathBuf>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path) {
        let name = self.name(folder);
        let listed = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>());
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(error) => return self.found.left_out.fail(&error, &name),
        };
        entries.sort();
        for path in entries {
            self.entry(&path);
        }
    }

    fn entry(&mut self, path: &Path) {
        let name = self.name(path);
        let last = path.file_name().map(|last| last.to_string_lossy().into_owned()).unwrap_or_default();
        let is_link = path.is_symlink();
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(_) if is_link => return self.leave_out("links that lead nowhere", &name),
            Err(error) => return self.found.left_out.fail(&error, &name),
        };
        if self.globs.matches(&name) {
            return self.leave_out("excluded (--exclude)", &name);
        }
        if metadata.is_dir() {
            if is_litter(&last) {
                return self.leave_out("folders of the system, or hidden", &name);
            }
            if !is_link {
                return self.folder(path);
            }
            if !self.follow {
                return self.leave_out("links to folders (--follow)", &name);
            }
            let Ok(real) = path.canonicalize() else {
                return self.leave_out("links that lead nowhere", &name);
            };
            let above = path.parent().and_then(|parent| parent.canonicalize().ok());
            if above.is_some_and(|above| above.starts_with(&real)) || !self.above.insert(real.clone()) {
                return self.leave_out("links that lead back", &name);
            }
            self.folder(path);
            self.above.remove(&real);
            return;
        }
        if !metadata.is_file() {
            return self.leave_out("no files (pipes, sockets, devices)", &name);
        }
        match taken(path, &last, self.videos) {
            Ok(content) => {
                let relative = path.strip_prefix(self.base).unwrap_or(path);
                self.found.files.push(FileEntry::new(path, relative, &metadata, content));
            }
            Err(reason) => self.leave_out(&reason, &name),
        }
    }

    fn name(&self, path: &Path) -> String {
        name_of(path.strip_prefix(self.base).unwrap_or(path))
    }

    fn leave_out(&mut self, reason: &str, name: &str) {
        self.found.left_out.add(reason, name);
    }
}

/// Whether a folder holds nothing of the user's.
fn is_litter(name: &str) -> bool {
    LITTER.contains(&name) || name.starts_with('.')
}

/// What is in a file of a folder, by its name; or why it is not taken.
fn taken(path: &Path, last: &str, videos: Videos) -> Result<Content, String> {
    // AppleDouble files are called like the picture that they belong to.
    if last.starts_with("._") || last == ".DS_Store" || last.eq_ignore_ascii_case("thumbs.db") {
        return Err("files of the system".to_owned());
    }
    let content = Content::of(path);
    if content == Content::Video {
        return videos.reason().map_or(Ok(content), |reason| Err(reason.to_owned()));
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        extension if EXTENSIONS.contains(&extension) => Ok(Content::Picture),
        "" => Err("without an extension (name them, or give a list)".to_owned()),
        _ if !content.is_loose() => Err("files of many inputs (name them, or give a list)".to_owned()),
        extension if HEIF.contains(&extension) => match cfg!(feature = "heif") {
            true => Ok(Content::Picture),
            false => Err(format!(".{extension}, for which this program was not built (the feature heif)")),
        },
        extension => Err(format!(".{extension}, no picture by its name")),
    }
}

/// The same for an object, by its name below the prefix. Tars and tables are taken, since no shell finds their names.
#[cfg(feature = "object-store")]
pub(in crate::bulk) fn taken_from_store(
    name: &str,
    globs: &Globs,
    options: &FindOptions,
) -> Result<Content, String> {
    let mut folder = 0;
    while let Some(end) = name[folder..].find('/').map(|at| folder + at) {
        if is_litter(&name[folder..end]) {
            return Err("folders of the system, or hidden".to_owned());
        }
        if globs.matches(&name[..end]) {
            return Err("excluded (--exclude)".to_owned());
        }
        folder = end + 1;
    }
    if globs.matches(name) {
        return Err("excluded (--exclude)".to_owned());
    }
    let path = Path::new(name);
    match Content::of(path) {
        Content::Video => Err("videos in object stores".to_owned()),
        content if !content.is_loose() && !name[folder..].starts_with('.') => Ok(content),
        _ => taken(path, &name[folder..], options.videos),
    }
}
