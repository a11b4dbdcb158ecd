//! What is done: a line for each shard, in a file that one run at a time writes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bulk::fault::{Fault, Kind};

/// A shard that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name, without the ends of its files.
    pub shard: String,
    /// The file whose rows it has; none for a shard of loose files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// SHA-256 over names, sizes and times of its input.
    pub input: String,
    /// Rows, with those that are errors.
    pub rows: usize,
    /// Rows that are errors.
    pub bad: usize,
    /// The embedding space.
    pub fingerprint: String,
    /// The model.
    pub model: String,
    /// Which run made it.
    pub run: String,
    /// Seconds since 1970.
    pub finished: u64,
    /// Its files.
    pub files: Vec<Written>,
}

/// A file of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Done(Record),
    /// A shard that counts no longer: its input has changed, or its files are damaged.
    Void {
        void: String,
    },
}

/// The manifest of one part of the work.
pub(super) struct Manifest {
    path: PathBuf,
    live: BTreeMap<String, Record>,
    /// Bytes of its whole lines.
    whole: u64,
}

impl Manifest {
    /// Reads it; an empty one where there is none. What follows the last line break was being written when its process was
    /// killed, and does not count.
    pub(super) fn read(path: &Path) -> Result<Self, Fault> {
        let mut text = Vec::new();
        match File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Fault::usage(format!("{}: {error}", path.display()))),
        }
        let mut live = BTreeMap::new();
        let whole = whole_lines(&text);
        for (i, line) in whole.split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(Line::Done(record)) => {
                    live.insert(record.shard.clone(), record);
                }
                Ok(Line::Void { void }) => drop(live.remove(&void)),
                Err(error) => {
                    let text = format!("{}: line {} is damaged: {error}", path.display(), i + 1);
                    return Err(Fault::input(text));
                }
            }
        }
        let whole = whole.len() as u64;
        Ok(Self { path: path.to_owned(), live, whole })
    }

    /// The shards that are done.
    pub(super) fn live(&self) -> impl Iterator<Item = &Record> {
        self.live.values()
    }

    /// Whether a shard is done.
    pub(super) fn has(&self, shard: &str) -> bool {
        self.live.contains_key(shard)
    }

    pub(super) fn add(&mut self, record: Record) -> Result<(), Fault> {
        self.append(&Line::Done(record.clone()))?;
        self.live.insert(record.shard.clone(), record);
        Ok(())
    }

    pub(super) fn void(&mut self, shard: &str) -> Result<(), Fault> {
        self.append(&Line::Void { void: shard.to_owned() })?;
        self.live.remove(shard);
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Result<(), Fault> {
        let write = || -> std::io::Result<u64> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
            // A line that was cut off must not become the beginning of this one.
            file.set_len(self.whole)?;
            file.seek(SeekFrom::Start(self.whole))?;
            let mut line = serde_json::to_vec(line)?;
            line.push(b'\n');
            file.write_all(&line)?;
            file.sync_all()?;
            Ok(line.len() as u64)
        };
        let wrong = |error| Fault::new(Kind::Output, format!("{}: {error}", self.path.display()));
        self.whole += write().map_err(wrong)?;
        Ok(())
    }
}

/// Up to the last line break.
fn whole_lines(text: &[u8]) -> &[u8] {
    &text[..memchr::memrchr(b'\n', text).map_or(0, |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shard: &str) -> Record {
        let written = Written { name: format!("{shard}.parquet"), bytes: 7, sha256: "0".repeat(64) };
        Record {
            shard: shard.to_owned(),
            source: None,
            input: "1".repeat(64),
            rows: 3,
            bad: 1,
            fingerprint: "f".to_owned(),
            model: "demo".to_owned(),
            run: "r".to_owned(),
            finished: 1,
            files: vec![written],
        }
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_count_and_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0-of-1.jsonl");
        let mut manifest = Manifest::read(&path).unwrap();
        manifest.add(record("a")).unwrap();
        manifest.add(record("b")).unwrap();
        manifest.void("a").unwrap();
        let text = std::fs::read(&path).unwrap();
        for cut in 0..text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let mut manifest = Manifest::read(&path).unwrap();
            let before = manifest.live().count();
            assert!(before <= 2);
            manifest.add(record("c")).unwrap();
            assert_eq!(Manifest::read(&path).unwrap().live().count(), before + 1, "cut at {cut}");
        }
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Manifest::read(&path).unwrap().live().collect::<Vec<_>>(), [&record("b")]);
        std::fs::write(&path, "{\"shard\":1}\n").unwrap();
        assert!(Manifest::read(&path).err().unwrap().text.contains("line 1 is damaged"));
    }
}
