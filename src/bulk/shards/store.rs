//! The folder that a run writes into: who may write, of which model it is, what is done.
//!
//! ```text
//! DIR/part-0-of-4-<input>.parquet      a shard: in its place when it is whole
//! DIR/.part-0-of-4-<input>.parquet     one in the making
//! DIR/_manifest/space.json             the model, and how vectors were made
//! DIR/_manifest/0-of-4.jsonl           what is done of part 0 of 4 of the work: one line a shard
//! DIR/_manifest/0-of-4.lock            held while a run works on that part
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, Record};
use crate::bulk::fault::{Fault, Kind};
use crate::bulk::files::{create_whole, digest};

const FOLDER: &str = "_manifest";
/// How long a run waits for the lock of its part: another may hold it for a moment to clean up.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// One part of the work: those files that a hash of their names gives to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub of: u32,
}

impl Default for Part {
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not i/n with i from 0 to n - 1, such as 0/4");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let (index, of) = (index.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        if index < of { Ok(Self { index, of }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-of-{}", self.index, self.of)
    }
}

impl Part {
    /// Out of `0-of-4…`.
    fn at_start_of(text: &str) -> Option<Self> {
        let (index, rest) = text.split_once("-of-")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { index: index.parse().ok()?, of: rest[..digits].parse().ok()? })
    }
}

/// Of which model the vectors in a folder are, and how they were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The embedding space.
    pub fingerprint: String,
    /// The model, for people.
    pub model: String,
    /// Width of the vectors.
    pub dimensions: usize,
    /// Whether vectors have the length 1.
    pub normalized: bool,
    /// `parquet`, `npy` or `jsonl`.
    pub format: String,
    /// Frames of each animation, where more than the first is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
}

/// A folder, with the lock of one part.
pub struct Store {
    root: PathBuf,
    part: Part,
    // Given back when the process ends, however it ends.
    _lock: File,
    own: Option<Manifest>,
    /// Those of other divisions of the work, which may have done what is ours now.
    others: BTreeMap<Part, Manifest>,
}

impl Store {
    /// Makes the folder and takes the lock of a part.
    ///
    /// # Errors
    /// If another run holds it, or the folder cannot be written.
    pub fn open(root: &Path, part: Part) -> Result<Self, Fault> {
        let folder = root.join(FOLDER);
        fs::create_dir_all(&folder).map_err(|error| cannot(&folder, &error))?;
        let deadline = Instant::now() + LOCK_WAIT;
        let lock = loop {
            if let Some(lock) = try_lock(&folder, part)? {
                break lock;
            }
            if Instant::now() > deadline {
                let text = format!("{}: another run works on this part of it ({part})", root.display());
                return Err(Fault::new(Kind::Temporary, text));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        Ok(Self { root: root.to_owned(), part, _lock: lock, own: None, others: BTreeMap::new() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn part(&self) -> Part {
        self.part
    }

    /// Says of which model the folder is, reads what is done, and removes what is not whole. `verify` reads every file of the
    /// own part again. Gives the shards whose files were not what the manifest says.
    ///
    /// # Errors
    /// [`Kind::OtherSpace`] if what is there is of another model.
    pub(super) fn settle(&mut self, space: &Space, verify: bool) -> Result<Vec<String>, Fault> {
        self.claim(space)?;
        let folder = self.root.join(FOLDER);
        let mut own = Manifest::read(&folder.join(format!("{}.jsonl", self.part)))?;
        for entry in fs::read_dir(&folder).map_err(|error| cannot(&folder, &error))? {
            let path = entry.map_err(|error| cannot(&folder, &error))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(Part::at_start_of);
            let is_manifest = path.extension().is_some_and(|extension| extension == "jsonl");
            // Parts of the same division have other files than this one.
            if let Some(part) = stem.filter(|part| is_manifest && part.of != self.part.of) {
                self.others.insert(part, Manifest::read(&path)?);
            }
        }
        let all = std::iter::once(&own).chain(self.others.values());
        if let Some(record) =
            all.flat_map(Manifest::live).find(|record| record.fingerprint != space.fingerprint)
        {
            let text = format!(
                "{}: shard {} is of another embedding space ({}, {}) than this model ({}, {})",
                self.root.display(),
                record.shard,
                record.model,
                short(&record.fingerprint),
                space.model,
                short(&space.fingerprint)
            );
            return Err(Fault::new(Kind::OtherSpace, text));
        }
        let broken: Vec<String> = own
            .live()
            .filter(|record| !self.is_whole(record, verify))
            .map(|record| record.shard.clone())
            .collect();
        for shard in &broken {
            own.void(shard)?;
        }
        self.own = Some(own);
        self.sweep()?;
        Ok(broken)
    }

    fn claim(&self, space: &Space) -> Result<(), Fault> {
        let path = self.root.join(FOLDER).join("space.json");
        // Where it is there already, nothing has to be written, for which there may be no room.
        if !path.exists() {
            let temporary = self.root.join(FOLDER).join(format!(".space-{}.json", uuid::Uuid::new_v4()));
            let content =
                serde_json::to_vec_pretty(space).map_err(|error| Fault::usage(error.to_string()))?;
            if create_whole(&path, &temporary, &content).map_err(|error| cannot(&path, &error))? {
                return Ok(());
            }
        }
        let text = fs::read(&path).map_err(|error| cannot(&path, &error))?;
        let there: Space = serde_json::from_slice(&text)
            .map_err(|error| Fault::input(format!("{}: {error}", path.display())))?;
        let of = |space: &Space| {
            let length = if space.normalized { "length 1" } else { "their own length" };
            format!("{} ({}), vectors of {length}", space.model, short(&space.fingerprint))
        };
        if there.fingerprint != space.fingerprint || there.normalized != space.normalized {
            let text =
                format!("{} is of {}, and this run is of {}", self.root.display(), of(&there), of(space));
            return Err(Fault::new(Kind::OtherSpace, text));
        }
        if there.format != space.format {
            let text =
                format!("{} has shards in {}, not {}", self.root.display(), there.format, space.format);
            return Err(Fault::usage(text));
        }
        if there.frames != space.frames {
            let of = |frames: Option<usize>| match frames {
                Some(frames) => format!("{frames} frames"),
                None => "the first frame".to_owned(),
            };
            let (there, here) = (of(there.frames), of(space.frames));
            let text =
                format!("{} has {there} of each animation, not {here} (--frames)", self.root.display());
            return Err(Fault::usage(text));
        }
        Ok(())
    }

    fn is_whole(&self, record: &Record, verify: bool) -> bool {
        record.files.iter().all(|file| {
            let path = self.root.join(&file.name);
            match verify {
                true => digest(&path).is_ok_and(|found| found == (file.bytes, file.sha256.clone())),
                false => fs::metadata(path).is_ok_and(|found| found.len() == file.bytes),
            }
        })
    }

    /// Removes files of shards that are not done: of this part, and of those of other divisions on which nobody works.
    fn sweep(&self) -> Result<(), Fault> {
        let mut unknown: BTreeMap<Part, Vec<PathBuf>> = BTreeMap::new();
        let known: HashSet<&str> =
            self.records().flat_map(|record| &record.files).map(|file| &*file.name).collect();
        for entry in fs::read_dir(&self.root).map_err(|error| cannot(&self.root, &error))? {
            let path = entry.map_err(|error| cannot(&self.root, &error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let own = name.trim_start_matches('.').strip_prefix("part-");
            let Some(part) = own.and_then(Part::at_start_of) else { continue };
            if (part == self.part || part.of != self.part.of) && !known.contains(name) {
                unknown.entry(part).or_default().push(path);
            }
        }
        for (part, files) in unknown {
            // Whoever holds the lock is about to write a line for them.
            let lock = if part == self.part { None } else { try_lock(&self.root.join(FOLDER), part)? };
            if part != self.part && lock.is_none() {
                continue;
            }
            let again = match lock {
                Some(_) => Some(Manifest::read(&self.root.join(FOLDER).join(format!("{part}.jsonl")))?),
                None => None,
            };
            let records = again.iter().flat_map(Manifest::live);
            let known: HashSet<&str> =
                records.flat_map(|record| &record.files).map(|file| &*file.name).collect();
            let is_known =
                |file: &Path| file.file_name().is_some_and(|name| known.contains(&*name.to_string_lossy()));
            for file in files.iter().filter(|file| !is_known(file)) {
                fs::remove_file(file).map_err(|error| cannot(file, &error))?;
            }
        }
        Ok(())
    }

    /// Everything that is done, of this part and of other divisions.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.own.iter().chain(self.others.values()).flat_map(Manifest::live)
    }

    /// What is done of this part.
    pub(super) fn own(&self) -> impl Iterator<Item = &Record> {
        self.own.iter().flat_map(Manifest::live)
    }

    /// Whether a shard counts is this run's to say.
    pub(super) fn void(&mut self, record: &Record) -> Result<(), Fault> {
        let folder = self.root.join(FOLDER);
        let mut lock = None;
        let manifest = match self.own.as_mut().filter(|own| own.has(&record.shard)) {
            Some(own) => own,
            None => {
                let other = self.others.iter_mut().find(|(_, other)| other.has(&record.shard));
                let Some((&part, manifest)) = other else { return Ok(()) };
                lock = try_lock(&folder, part)?;
                if lock.is_none() {
                    let text = format!("{}: another run works on part {part} of it", self.root.display());
                    return Err(Fault::new(Kind::Temporary, text));
                }
                manifest
            }
        };
        // The line first: files without one do not count.
        manifest.void(&record.shard)?;
        drop(lock);
        for file in &record.files {
            let path = self.root.join(&file.name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(cannot(&path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, record: Record) -> Result<(), Fault> {
        match &mut self.own {
            Some(own) => own.add(record),
            None => Err(Fault::usage("the folder was not looked at")),
        }
    }
}

/// Of which model a folder is, and the files of its shards, in the order of their names.
///
/// # Errors
/// If it is no such folder.
pub fn contents(root: &Path) -> Result<(Space, Vec<String>), Fault> {
    let folder = root.join(FOLDER);
    let path = folder.join("space.json");
    let text = fs::read(&path).map_err(|error| {
        Fault::input(format!("{}: no folder that siglip embed wrote: {error}", root.display()))
    })?;
    let space = serde_json::from_slice(&text)
        .map_err(|error| Fault::input(format!("{}: {error}", path.display())))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|error| cannot(&folder, &error))? {
        let path = entry.map_err(|error| cannot(&folder, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let manifest = Manifest::read(&path)?;
            files.extend(manifest.live().flat_map(|record| &record.files).map(|file| file.name.clone()));
        }
    }
    files.sort();
    Ok((space, files))
}

fn try_lock(folder: &Path, part: Part) -> Result<Option<File>, Fault> {
    let path = folder.join(format!("{part}.lock"));
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| cannot(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(cannot(&path, &error)),
    }
}

fn cannot(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(Kind::Output, format!("{}: {error}", path.display()))
}

fn short(fingerprint: &str) -> &str {
    &fingerprint[..fingerprint.floor_char_boundary(12)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_from_0() {
        assert_eq!("3/4".parse(), Ok(Part { index: 3, of: 4 }));
        for wrong in ["4/4", "0/0", "-1/2", "1", "a/b", ""] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
        assert_eq!(Part::at_start_of("3-of-14-abc.parquet"), Some(Part { index: 3, of: 14 }));
        assert_eq!((Part::at_start_of("x-of-1"), Part::at_start_of("1-of-")), (None, None));
    }

    #[test]
    fn one_run_at_a_time_works_on_a_part_and_one_model_on_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let space = |fingerprint: &str| Space {
            fingerprint: fingerprint.to_owned(),
            model: "m".to_owned(),
            dimensions: 2,
            normalized: true,
            format: "parquet".to_owned(),
            frames: None,
        };
        let (first, second) = (Part { index: 0, of: 2 }, Part { index: 1, of: 2 });
        let mut store = Store::open(folder.path(), first).unwrap();
        store.settle(&space("a"), false).unwrap();
        assert_eq!(Store::open(folder.path(), first).err().unwrap().kind, Kind::Temporary);
        let mut other = Store::open(folder.path(), second).unwrap();
        other.settle(&space("a"), false).unwrap();
        assert_eq!(other.settle(&space("b"), false).unwrap_err().kind, Kind::OtherSpace);
        assert_eq!(
            other.settle(&Space { normalized: false, ..space("a") }, false).unwrap_err().kind,
            Kind::OtherSpace
        );
        // Files of nobody are removed, those of a part that works are not.
        let (mine, theirs) =
            (folder.path().join("part-1-of-2-x.parquet"), folder.path().join(".part-0-of-2-x.parquet"));
        fs::write(&mine, "x").unwrap();
        fs::write(&theirs, "x").unwrap();
        other.settle(&space("a"), false).unwrap();
        assert!(!mine.exists() && theirs.exists());
        let mut whole = Store::open(folder.path(), Part::default()).unwrap();
        whole.settle(&space("a"), false).unwrap();
        assert!(theirs.exists(), "its run is still there");
        drop(store);
        whole.settle(&space("a"), false).unwrap();
        assert!(!theirs.exists());
    }
}
