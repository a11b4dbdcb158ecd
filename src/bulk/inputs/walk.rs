//! Folders, to any depth.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::glob::Globs;
use super::{Content, FileEntry, Found, name_of};

/// Ends of the names of pictures; a file that is named is taken whatever it is called.
const EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"];
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
pub(super) fn walk(folder: &Path, base: &Path, globs: &Globs, follow: bool, found: &mut Found) {
    let mut walk = Walk { base, globs, follow, found, above: HashSet::new() };
    walk.folder(folder);
}

struct Walk<'a> {
    base: &'a Path,
    globs: &'a Globs,
    follow: bool,
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
            if LITTER.contains(&last.as_str()) || last.starts_with('.') {
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
        // AppleDouble files are called like the picture that they belong to.
        if last.starts_with("._") || last == ".DS_Store" || last.eq_ignore_ascii_case("thumbs.db") {
            return self.leave_out("files of the system", &name);
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            extension if EXTENSIONS.contains(&extension) => {
                let relative = path.strip_prefix(self.base).unwrap_or(path);
                self.found.files.push(FileEntry::new(path, relative, &metadata, Content::Picture));
            }
            "" => self.leave_out("without an extension (name them, or give a list)", &name),
            "tar" | "parquet" | "arrow" | "arrows" | "feather" => {
                self.leave_out("files of many inputs (name them, or give a list)", &name);
            }
            extension @ ("heic" | "heif") => {
                self.leave_out(&format!(".{extension}, which this program cannot read"), &name);
            }
            extension => self.leave_out(&format!(".{extension}, no picture by its name"), &name),
        }
    }

    fn name(&self, path: &Path) -> String {
        name_of(path.strip_prefix(self.base).unwrap_or(path))
    }

    fn leave_out(&mut self, reason: &str, name: &str) {
        self.found.left_out.add(reason, name);
    }
}
