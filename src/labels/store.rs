//! Label sets on disk. A set is one file, replaced as a whole: written beside, flushed, renamed, and the folder flushed, so
//! that after a crash at any moment there is the old or the new one. Directions are kept in files of their own that only
//! grow, a checksum after each piece: what was encoded before a crash is not encoded again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::content::Content;
use super::definition::{check_name, hex};

/// The folder of label sets within `--data-dir`.
const FOLDER: &str = "label-sets";
/// Ends of file names. No set's name has a `~`.
const SET: &str = ".set";
const ROWS: &str = ".rows";
const OWNER: &str = "~owner";
const TEMPORARY: &str = "~tmp";
/// The largest file of a set that is read.
const LARGEST: u64 = 4 << 30;

/// Label sets on disk; this process is the only one that writes there.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    // Held as long as the store is there.
    _lock: File,
}

/// The longest name of an owner that is read.
const LONGEST_OWNER: u64 = 256;

/// A set that was found on disk.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// The name of the key that made it, where one did.
    pub owner: Option<String>,
    /// Itself with its version, or what is wrong with its file.
    pub content: Result<(Content, String), String>,
}

impl Store {
    /// Opens the folder of label sets in `data`, which is made if it does not exist.
    ///
    /// # Errors
    /// If it cannot be made, written, or is another process's.
    pub fn open(data: &Path) -> io::Result<Self> {
        let folder = data.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("~lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::WouldBlock, "another process uses this folder")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self { folder, _lock: lock })
    }

    /// Reads every set, and removes what crashes have left behind.
    ///
    /// # Errors
    /// If the folder cannot be read. What is wrong with one file is in its place.
    pub fn load(&self) -> io::Result<Vec<Found>> {
        let (mut found, mut beside) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            if file.ends_with(TEMPORARY) {
                fs::remove_file(entry.path())?;
            } else if let Some(name) = file.strip_suffix(SET)
                && check_name(name).is_ok()
            {
                let owner = self.owner(name);
                found.push(Found { name: name.to_owned(), owner, content: read(&entry.path()) });
            } else if (file.ends_with(ROWS) || file.ends_with(OWNER))
                && let Some((name, _)) = file.split_once('~')
            {
                beside.push((name.to_owned(), entry.path()));
            }
        }
        // Directions and owners of sets that were deleted, or never made.
        for (name, path) in beside {
            if !found.iter().any(|known| known.name == name) {
                fs::remove_file(path)?;
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Stores the bytes of [`Content::encode`] under a name; when it returns they are there for good. `owner` is the name of the key
    /// that makes a new set.
    ///
    /// # Errors
    /// If the disk fails; then the old file is still there, unless it was the last flush that failed.
    pub fn put(&self, name: &str, content: &[u8], owner: Option<&str>) -> io::Result<()> {
        if let Some(owner) = owner {
            // Before the set: one without an owner would count for nobody.
            let mut file = File::create(self.folder.join(format!("{name}{OWNER}")))?;
            file.write_all(owner.as_bytes())?;
            file.sync_all()?;
        }
        let temporary = self.folder.join(format!("{name}{TEMPORARY}"));
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, self.folder.join(format!("{name}{SET}")))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.flush()
    }

    /// Removes a set and its directions.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(format!("{name}{SET}"))) {
            // It was removed before, and flushing the folder failed.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.flush()?,
        }
        let of_set = format!("{name}~");
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|file| file.starts_with(&of_set)) {
                // Left behind, they are removed at the next start.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Where the directions of a set in an embedding space are kept.
    pub fn rows_of(&self, name: &str, space: &str) -> PathBuf {
        let space = hex(&Sha256::digest(space)[..8]);
        self.folder.join(format!("{name}~{space}{ROWS}"))
    }

    fn owner(&self, name: &str) -> Option<String> {
        let mut owner = String::new();
        let file = File::open(self.folder.join(format!("{name}{OWNER}"))).ok()?;
        file.take(LONGEST_OWNER).read_to_string(&mut owner).ok()?;
        (!owner.is_empty()).then_some(owner)
    }

    /// A rename is there for good once its folder is flushed.
    fn flush(&self) -> io::Result<()> {
        if cfg!(unix) { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }
}

/// Reads one set of a folder that another process may be using.
///
/// # Errors
/// What is wrong with its name or its file, in words.
pub fn read_set(data: &Path, name: &str) -> Result<Content, String> {
    check_name(name).map_err(|error| error.to_string())?;
    let path = data.join(FOLDER).join(format!("{name}{SET}"));
    read(&path).map(|(content, _)| content).map_err(|error| format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Result<(Content, String), String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(LARGEST).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Content::decode(&bytes)
}

/// Directions as they are encoded: a file that only grows.
#[derive(Debug)]
pub struct RowsLog {
    file: File,
    key: [u8; 32],
    values: usize,
}

/// What directions follow from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsKey {
    /// [`super::Definition::texts_key`].
    pub texts: String,
    /// The embedding space.
    pub space: String,
    /// Labels of the set.
    pub labels: usize,
    /// Width of the embeddings.
    pub width: usize,
}

/// What a file of directions begins with.
const ROWS_MAGIC: &[u8; 16] = b"SIGLIP ROWS 1\n\n\n";
/// Bytes of a checksum after a piece.
const PIECE_CHECKSUM: usize = 16;

impl RowsKey {
    fn digest(&self) -> [u8; 32] {
        let Self { texts, space, labels, width } = self;
        Sha256::digest(format!("{texts}\n{space}\n{labels}\n{width}")).into()
    }
}

impl RowsLog {
    /// Opens a file of directions and gives the rows that are in it: none if it is of something else.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn open(path: &Path, key: &RowsKey) -> io::Result<(Self, Vec<f32>)> {
        let most = key.labels.saturating_mul(key.width);
        let digest = key.digest();
        match Self::resume(path, digest, most, key.width) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // A new file: whoever still writes to the old one writes to nothing.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(ROWS_MAGIC)?;
        file.write_all(&digest)?;
        Ok((Self { file, key: digest, values: 0 }, Vec::new()))
    }

    fn resume(path: &Path, key: [u8; 32], most: usize, width: usize) -> io::Result<Option<(Self, Vec<f32>)>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut start = [0; ROWS_MAGIC.len() + 32];
        match file.read_exact(&mut start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        if start[..ROWS_MAGIC.len()] != ROWS_MAGIC[..] || start[ROWS_MAGIC.len()..] != key {
            return Ok(None);
        }
        let mut rows: Vec<f32> = Vec::with_capacity(most);
        let mut end = start.len() as u64;
        let mut reader = io::BufReader::with_capacity(1 << 20, &mut file);
        while let Some(piece) = read_piece(&mut reader, &key, rows.len(), most, width)? {
            end += (4 + piece.len() * 4 + PIECE_CHECKSUM) as u64;
            rows.extend_from_slice(&piece);
        }
        drop(reader);
        // What a crash cut short is written again.
        file.set_len(end)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(end))?;
        Ok(Some((Self { file, key, values: rows.len() }, rows)))
    }

    /// Adds rows; when it returns they are there for good.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn append(&mut self, rows: &[f32]) -> io::Result<()> {
        let mut piece = Vec::with_capacity(4 + rows.len() * 4 + PIECE_CHECKSUM);
        piece.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        rows.iter().for_each(|x| piece.extend_from_slice(&x.to_le_bytes()));
        let checksum = checksum(&self.key, self.values, &piece[4..]);
        piece.extend_from_slice(&checksum);
        self.file.write_all(&piece)?;
        self.file.sync_data()?;
        self.values += rows.len();
        Ok(())
    }
}

/// The next piece of a file; `None` at its end, or where it is damaged.
fn read_piece(
    reader: &mut impl Read,
    key: &[u8; 32],
    before: usize,
    most: usize,
    width: usize,
) -> io::Result<Option<Vec<f32>>> {
    /// Values of a piece at most, whatever the file claims.
    const LARGEST_PIECE: usize = 16 << 20;
    let mut count = [0; 4];
    if !fill(reader, &mut count)? {
        return Ok(None);
    }
    let count = u32::from_le_bytes(count) as usize;
    if count == 0 || count > LARGEST_PIECE || !count.is_multiple_of(width) || before + count > most {
        return Ok(None);
    }
    let mut bytes = vec![0; count * 4 + PIECE_CHECKSUM];
    if !fill(reader, &mut bytes)? {
        return Ok(None);
    }
    let (values, found) = bytes.split_at(count * 4);
    if found != checksum(key, before, values) {
        return Ok(None);
    }
    let (values, _) = values.as_chunks::<4>();
    Ok(Some(values.iter().map(|&value| f32::from_le_bytes(value)).collect()))
}

/// Reads all of a buffer; `false` if the file ends before.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A piece is of its file and of its place in it.
fn checksum(key: &[u8; 32], before: usize, values: &[u8]) -> [u8; PIECE_CHECKSUM] {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update((before as u64).to_le_bytes());
    hash.update(values);
    let mut short = [0; PIECE_CHECKSUM];
    short.copy_from_slice(&hash.finalize()[..PIECE_CHECKSUM]);
    short
}

#[cfg(test)]
mod tests {
    use super::super::definition::Definition;
    use super::*;

    fn content(label: &str) -> (Content, Vec<u8>) {
        let content = Content::of(Definition::of([label.to_owned()]));
        let (bytes, _) = content.encode().unwrap();
        (content, bytes)
    }

    #[test]
    fn sets_are_there_after_a_start_and_what_crashes_left_is_not() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        assert!(Store::open(data.path()).unwrap_err().to_string().contains("another process"));
        store.put("a", &content("cat").1, Some("ann")).unwrap();
        store.put("b", &content("dog").1, None).unwrap();
        store.put("a", &content("car").1, None).unwrap();
        let folder = data.path().join(FOLDER);
        fs::write(folder.join("c~tmp"), "half").unwrap();
        fs::write(folder.join("c~0011.rows"), "of no set").unwrap();
        fs::write(folder.join("c~owner"), "of no set").unwrap();
        fs::write(folder.join("d.set"), "damaged").unwrap();
        fs::write(store.rows_of("b", "space"), "rows").unwrap();
        drop(store);
        let store = Store::open(data.path()).unwrap();
        let found = store.load().unwrap();
        let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "d"]);
        assert_eq!((found[0].owner.as_deref(), found[1].owner.as_deref()), (Some("ann"), None));
        assert_eq!(found[0].content.as_ref().unwrap().0, content("car").0);
        assert!(found[2].content.as_ref().unwrap_err().contains("cut short"));
        assert!(!folder.join("c~owner").exists());
        assert!(!folder.join("c~tmp").exists() && !folder.join("c~0011.rows").exists());
        assert!(store.rows_of("b", "space").exists());
        store.remove("b").unwrap();
        assert!(!store.rows_of("b", "space").exists());
        assert_eq!(store.load().unwrap().len(), 2);
        // Again, as after a flush that failed: what was left is removed.
        fs::write(store.rows_of("b", "space"), "rows").unwrap();
        store.remove("b").unwrap();
        assert!(!store.rows_of("b", "space").exists());
    }

    #[test]
    fn directions_go_on_where_a_crash_cut_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.rows");
        let key = RowsKey { texts: "t".into(), space: "s".into(), labels: 5, width: 2 };
        let rows: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let (mut log, before) = RowsLog::open(&path, &key).unwrap();
        assert!(before.is_empty());
        log.append(&rows[..4]).unwrap();
        log.append(&rows[4..6]).unwrap();
        drop(log);
        let whole = fs::read(&path).unwrap();
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            RowsLog::open(&path, &key).unwrap()
        };
        assert_eq!(read(&whole).1, rows[..6]);
        for cut in 0..whole.len() {
            let (mut log, found) = read(&whole[..cut]);
            let wanted = if cut < 48 + 4 + 16 + 16 { 0 } else { 4 };
            assert_eq!(found, rows[..wanted], "cut at {cut}");
            log.append(&rows[wanted..]).unwrap();
            drop(log);
            assert_eq!(RowsLog::open(&path, &key).unwrap().1, rows, "cut at {cut}");
        }
        // A piece of another place, of another file, or damaged is none.
        let piece = &whole[48..48 + 36];
        assert_eq!(read(&[&whole[..84], piece].concat()).1, rows[..4]);
        for at in 48..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).1.len() < 6, "byte {at}");
        }
        fs::write(&path, &whole).unwrap();
        for other in [
            RowsKey { texts: "u".into(), ..key.clone() },
            RowsKey { space: "u".into(), ..key.clone() },
            RowsKey { labels: 6, ..key.clone() },
        ] {
            assert!(RowsLog::open(&path, &other).unwrap().1.is_empty());
            fs::write(&path, &whole).unwrap();
        }
    }
}
