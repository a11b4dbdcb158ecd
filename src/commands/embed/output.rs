//! Files of embeddings: NumPy, JSON lines, Parquet. Written beside their place and moved there when whole.

use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::inputs::Kind;
use crate::bulk::{Fault, FaultKind, npy};

type Result<T> = std::result::Result<T, Fault>;

/// Rows of one group of a Parquet file, which is what is held in memory.
const GROUP: usize = 4096;

/// What the end of the file's name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Npy,
    Jsonl,
    Parquet,
}

impl Format {
    /// By the name's end.
    ///
    /// # Errors
    /// If it is none of the three.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("jsonl") => Ok(Self::Jsonl),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(Fault::new(
                FaultKind::Usage,
                format!(
                    "--output {}: the name must end in .npy, .jsonl or .parquet, or be that of a folder",
                    path.display()
                ),
            )),
        }
    }
}

/// A file that is being written.
pub struct Output {
    path: PathBuf,
    width: usize,
    rows: usize,
    writer: Writer,
}

enum Writer {
    Npy { values: Draft, names: Draft },
    Jsonl(Draft),
    Parquet { file: SerializedFileWriter<Draft>, rows: Vec<(Kind, String, Vec<f32>)> },
}

/// A file beside its final place; gone if it is dropped before it is whole.
struct Draft {
    file: BufWriter<File>,
    part: PathBuf,
    place: PathBuf,
    kept: bool,
}

impl Draft {
    fn create(place: PathBuf) -> Result<Self> {
        let mut part = place.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = lock(&part).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => {
                Fault::new(FaultKind::Temporary, format!("{}: {error}", place.display()))
            }
            _ => failed(&place, error),
        })?;
        Ok(Self { file: BufWriter::new(file), part, place, kept: false })
    }

    /// Makes sure that all of it is on the disk: some systems find out only now that it is full.
    fn sync(&mut self) -> Result<()> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| failed(&self.place, error))
    }

    /// Moves what was synced to its place.
    fn keep(mut self) -> Result<PathBuf> {
        fs::rename(&self.part, &self.place).map_err(|error| failed(&self.place, error))?;
        self.kept = true;
        Ok(self.place.clone())
    }
}

/// A new file that no other run writes: the lock is given back when the process ends, however it ends.
fn lock(part: &Path) -> std::io::Result<File> {
    loop {
        let file = File::options().write(true).create(true).truncate(false).open(part)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(std::io::Error::new(ErrorKind::WouldBlock, "another run is writing it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had the lock before may have moved the file to its place since it was opened here.
        if is_at(&file, part) {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().and_then(|open| Ok(same(open, fs::metadata(path)?))).unwrap_or(false)
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.part);
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Output {
    /// Begins a file of vectors of `width`.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: &Path, format: Format, width: usize, facts: &[(String, String)]) -> Result<Self> {
        let draft = Draft::create(path.to_path_buf())?;
        let writer = match format {
            Format::Npy => {
                let mut values = draft;
                // Overwritten when the number of rows is known.
                values.write_all(&npy::header(0, width)).map_err(|error| failed(path, error))?;
                Writer::Npy { values, names: Draft::create(path.with_extension("names.txt"))? }
            }
            Format::Jsonl => Writer::Jsonl(draft),
            Format::Parquet => {
                let schema = "message embeddings {
                    required binary kind (UTF8);
                    required binary name (UTF8);
                    required group embedding (LIST) { repeated group list { required float element; } }
                }";
                let schema = parse_message_type(schema).map_err(|error| failed(path, error))?;
                let facts = facts.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
                let properties = WriterProperties::builder()
                    .set_compression(parquet::basic::Compression::SNAPPY)
                    .set_dictionary_enabled(false)
                    .set_key_value_metadata(Some(facts.collect()))
                    .build();
                let file = SerializedFileWriter::new(draft, Arc::new(schema), Arc::new(properties))
                    .map_err(|error| failed(path, error))?;
                Writer::Parquet { file, rows: Vec::new() }
            }
        };
        Ok(Self { path: path.to_path_buf(), width, rows: 0, writer })
    }

    /// Number of rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, kind: Kind, name: &str, vector: Vec<f32>) -> Result<()> {
        let path = &self.path;
        match &mut self.writer {
            Writer::Npy { values, names } => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                // A line break in a name would shift all names after it.
                let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
                values
                    .write_all(&bytes)
                    .and_then(|()| writeln!(names, "{name}"))
                    .map_err(|e| failed(path, e))?;
            }
            Writer::Jsonl(file) => {
                let row = json!({ "kind": kind.name(), "name": name, "embedding": vector });
                writeln!(file, "{row}").map_err(|error| failed(path, error))?;
            }
            Writer::Parquet { file, rows } => {
                rows.push((kind, name.to_owned(), vector));
                if rows.len() == GROUP {
                    write_group(file, rows).map_err(|error| failed(path, error))?;
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Ends the file and puts it in its place; gives the files written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<Vec<PathBuf>> {
        let path = self.path;
        match self.writer {
            Writer::Npy { mut values, mut names } => {
                let header = npy::header(self.rows, self.width);
                values
                    .file
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| values.file.write_all(&header))
                    .map_err(|error| failed(&path, error))?;
                // Both are whole before one is in its place.
                values.sync()?;
                names.sync()?;
                Ok(vec![values.keep()?, names.keep()?])
            }
            Writer::Jsonl(mut file) => {
                file.sync()?;
                Ok(vec![file.keep()?])
            }
            Writer::Parquet { mut file, mut rows } => {
                write_group(&mut file, &mut rows).map_err(|error| failed(&path, error))?;
                let mut file = file.into_inner().map_err(|error| failed(&path, error))?;
                file.sync()?;
                Ok(vec![file.keep()?])
            }
        }
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Output, format!("{}: {error}", path.display()))
}

fn write_group(
    file: &mut SerializedFileWriter<Draft>,
    rows: &mut Vec<(Kind, String, Vec<f32>)>,
) -> parquet::errors::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut group = file.next_row_group()?;
    let kinds: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(row.0.name())).collect();
    let names: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(row.1.as_str())).collect();
    let missing = || parquet::errors::ParquetError::General("a column is missing".into());
    for strings in [&kinds, &names] {
        let mut column = group.next_column()?.ok_or_else(missing)?;
        column.typed::<ByteArrayType>().write_batch(strings, None, None)?;
        column.close()?;
    }
    // Within a list every value is there (definition 1); the first of each begins a row (repetition 0).
    let values: Vec<f32> = rows.iter().flat_map(|row| row.2.iter().copied()).collect();
    let repetition: Vec<i16> =
        rows.iter().flat_map(|row| (0..row.2.len()).map(|i| i16::from(i > 0))).collect();
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<FloatType>().write_batch(&values, Some(&vec![1; values.len()]), Some(&repetition))?;
    column.close()?;
    group.close()?;
    rows.clear();
    Ok(())
}
