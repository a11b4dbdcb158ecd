//! Rows of shards: as they are written, in three formats, and what is read of them again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use arrow_array::builder::{
    FixedSizeListBuilder, Float32Builder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::Deserialize;
use serde_json::json;

use super::manifest::Written;
use crate::bulk::fault::{Fault, Kind};
use crate::bulk::files::{digest, sync_folder};
use crate::bulk::npy;

/// Rows that are written at once.
const ROWS: usize = 1024;
/// Rows of a group of a Parquet file.
const GROUP: usize = 8192;

/// How shards are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ShardFormat {
    /// A table.
    #[default]
    Parquet,
    /// Vectors, and beside them a line of JSON for each row.
    Npy,
    /// A line of JSON for each row.
    Jsonl,
}

impl ShardFormat {
    /// As `--format` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Npy => "npy",
            Self::Jsonl => "jsonl",
        }
    }

    /// The ends of the names of a shard's files.
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Parquet => &["parquet"],
            Self::Npy => &["npy", "names.jsonl"],
            Self::Jsonl => &["jsonl"],
        }
    }
}

impl FromStr for ShardFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Parquet, Self::Npy, Self::Jsonl]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| format!("{text:?} is not parquet, npy or jsonl"))
    }
}

/// A row of a shard.
pub(super) struct Row {
    pub(super) name: String,
    /// `image` or `text`.
    pub(super) kind: &'static str,
    /// When a frame of an animation is shown, in seconds; none for what does not move.
    pub(super) time: Option<f64>,
    /// Bytes of the input.
    pub(super) size: u64,
    /// When its file was changed, in microseconds since 1970; none for what is inside a file.
    pub(super) mtime: Option<i64>,
    /// SHA-256 of the input in hex.
    pub(super) sha256: Option<String>,
    /// The vector, or why there is none.
    pub(super) result: Result<Vec<f32>, String>,
}

impl Row {
    /// What a line of JSON says of it, but for the result.
    fn line(&self) -> serde_json::Value {
        let Self { name, kind, time, size, mtime, sha256, .. } = self;
        let mut line = json!({ "name": name, "kind": kind, "size": size, "mtime": mtime, "sha256": sha256 });
        if let Some(time) = time {
            line["time"] = json!(time);
        }
        line
    }
}

/// A shard in the making. Dropped before it is finished, it leaves nothing.
pub(super) struct ShardWriter {
    root: PathBuf,
    files: Vec<Draft>,
    writer: Writer,
    pub(super) rows: usize,
    pub(super) bad: usize,
}

struct Draft {
    name: String,
    hidden: PathBuf,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.hidden);
        }
    }
}

enum Writer {
    Parquet { file: Box<ArrowWriter<File>>, columns: Box<Columns>, schema: SchemaRef },
    Npy { values: BufWriter<File>, names: BufWriter<File>, width: usize, good: usize },
    Jsonl(BufWriter<File>),
}

impl ShardWriter {
    /// Begins a shard of that name, of vectors of `width`.
    pub(super) fn create(
        root: &Path,
        shard: &str,
        format: ShardFormat,
        width: usize,
        facts: &[(String, String)],
    ) -> Result<Self, Fault> {
        let names = format.extensions().iter().map(|extension| format!("{shard}.{extension}"));
        let files: Vec<Draft> =
            names.map(|name| Draft { hidden: root.join(format!(".{name}")), name, kept: false }).collect();
        let open = |i: usize| File::create(&files[i].hidden).map_err(|error| cannot(&files[i].hidden, error));
        let writer = match format {
            ShardFormat::Parquet => {
                let schema = schema(width);
                let facts = facts.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    // Vectors do not become smaller.
                    .set_column_compression("embedding.list.element".into(), Compression::UNCOMPRESSED)
                    .set_dictionary_enabled(false)
                    .set_max_row_group_row_count(Some(GROUP))
                    .set_key_value_metadata(Some(facts.collect()))
                    .build();
                // Without Arrow's own schema in it: pyarrow 25 and older cannot read a fixed-size list with a null, which a bad
                // row has. As Parquet has it, it is a list.
                let options =
                    ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
                let file = ArrowWriter::try_new_with_options(open(0)?, Arc::clone(&schema), options)
                    .map_err(|error| cannot(&files[0].hidden, error))?;
                Writer::Parquet { file: Box::new(file), columns: Box::new(Columns::new(width)), schema }
            }
            ShardFormat::Npy => {
                let mut values = BufWriter::new(open(0)?);
                // Overwritten when the number of rows is known.
                values.write_all(&npy::header(0, width)).map_err(|error| cannot(&files[0].hidden, error))?;
                Writer::Npy { values, names: BufWriter::new(open(1)?), width, good: 0 }
            }
            ShardFormat::Jsonl => Writer::Jsonl(BufWriter::new(open(0)?)),
        };
        Ok(Self { root: root.to_owned(), files, writer, rows: 0, bad: 0 })
    }

    /// Adds a row.
    pub(super) fn write(&mut self, row: Row) -> Result<(), Fault> {
        self.rows += 1;
        self.bad += usize::from(row.result.is_err());
        let written = match &mut self.writer {
            Writer::Parquet { file, columns, schema } => {
                columns.add(row);
                match columns.rows == ROWS {
                    true => columns.flush(file, schema),
                    false => Ok(()),
                }
            }
            Writer::Npy { values, names, good, .. } => {
                let mut line = row.line();
                let values = match row.result {
                    Ok(vector) => {
                        line["row"] = json!(*good);
                        *good += 1;
                        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                        values.write_all(&bytes)
                    }
                    Err(error) => {
                        line["error"] = json!(error);
                        Ok(())
                    }
                };
                values.and_then(|()| writeln!(names, "{line}")).map_err(|error| error.to_string())
            }
            Writer::Jsonl(file) => {
                let mut line = row.line();
                match row.result {
                    Ok(vector) => line["embedding"] = json!(vector),
                    Err(error) => line["error"] = json!(error),
                }
                writeln!(file, "{line}").map_err(|error| error.to_string())
            }
        };
        written.map_err(|error| cannot(&self.files[0].hidden, error))
    }

    /// Puts the whole shard into its place: on the disk, then under its name.
    pub(super) fn finish(self) -> Result<Vec<Written>, Fault> {
        let Self { root, mut files, writer, .. } = self;
        let hidden = files[0].hidden.clone();
        let ended = match writer {
            Writer::Parquet { mut file, mut columns, schema } => columns
                .flush(&mut file, &schema)
                .and_then(|()| file.into_inner().map_err(|error| error.to_string()))
                .and_then(|file| file.sync_all().map_err(|error| error.to_string())),
            Writer::Npy { mut values, names, width, good } => values
                .seek(SeekFrom::Start(0))
                .and_then(|_| values.write_all(&npy::header(good, width)))
                .and_then(|()| synced(values))
                .and_then(|()| synced(names))
                .map_err(|error| error.to_string()),
            Writer::Jsonl(file) => synced(file).map_err(|error| error.to_string()),
        };
        ended.map_err(|error| cannot(&hidden, error))?;
        let mut written = Vec::new();
        for file in &mut files {
            // As it is on the disk, not as it was meant.
            let (bytes, sha256) = digest(&file.hidden).map_err(|error| cannot(&file.hidden, error))?;
            let place = root.join(&file.name);
            fs::rename(&file.hidden, &place).map_err(|error| cannot(&place, error))?;
            file.kept = true;
            written.push(Written { name: file.name.clone(), bytes, sha256 });
        }
        sync_folder(&root).map_err(|error| cannot(&root, error))?;
        Ok(written)
    }
}

fn synced(file: BufWriter<File>) -> std::io::Result<()> {
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

fn cannot(path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Output, format!("{}: {error}", path.display()))
}

fn schema(width: usize) -> SchemaRef {
    let item = Arc::new(Field::new("element", DataType::Float32, true));
    let width = i32::try_from(width).unwrap_or(i32::MAX);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("time", DataType::Float64, true),
        Field::new("size", DataType::Int64, false),
        Field::new("mtime", time, true),
        Field::new("sha256", DataType::Utf8, true),
        Field::new("embedding", DataType::FixedSizeList(item, width), true),
        Field::new("error", DataType::Utf8, true),
    ]))
}

/// Rows that are not written yet.
struct Columns {
    rows: usize,
    width: usize,
    name: StringBuilder,
    kind: StringBuilder,
    time: Float64Builder,
    size: Int64Builder,
    mtime: TimestampMicrosecondBuilder,
    sha256: StringBuilder,
    embedding: FixedSizeListBuilder<Float32Builder>,
    error: StringBuilder,
}

impl Columns {
    fn new(width: usize) -> Self {
        let item = Field::new("element", DataType::Float32, true);
        let length = i32::try_from(width).unwrap_or(i32::MAX);
        Self {
            rows: 0,
            width,
            name: StringBuilder::new(),
            kind: StringBuilder::new(),
            time: Float64Builder::new(),
            size: Int64Builder::new(),
            mtime: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            sha256: StringBuilder::new(),
            embedding: FixedSizeListBuilder::new(Float32Builder::new(), length).with_field(item),
            error: StringBuilder::new(),
        }
    }

    fn add(&mut self, row: Row) {
        self.rows += 1;
        self.name.append_value(row.name);
        self.kind.append_value(row.kind);
        self.time.append_option(row.time);
        self.size.append_value(i64::try_from(row.size).unwrap_or(i64::MAX));
        self.mtime.append_option(row.mtime);
        self.sha256.append_option(row.sha256);
        match row.result {
            Ok(vector) => {
                self.embedding.values().append_slice(&vector);
                self.embedding.append(true);
                self.error.append_null();
            }
            Err(error) => {
                (0..self.width).for_each(|_| self.embedding.values().append_null());
                self.embedding.append(false);
                self.error.append_value(error);
            }
        }
    }

    fn flush(&mut self, file: &mut ArrowWriter<File>, schema: &SchemaRef) -> Result<(), String> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.name.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.time.finish()),
            Arc::new(self.size.finish()),
            Arc::new(self.mtime.finish()),
            Arc::new(self.sha256.finish()),
            Arc::new(self.embedding.finish()),
            Arc::new(self.error.finish()),
        ];
        let batch = RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| error.to_string())?;
        file.write(&batch).map_err(|error| error.to_string())
    }
}

/// What a shard says of the file that a row is of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) mtime: Option<i64>,
    #[serde(default)]
    time: Option<f64>,
}

impl Identity {
    /// The name of its file: that of a frame says when it is shown, too.
    pub(super) fn file(&self) -> &str {
        match self.time {
            Some(_) => self.name.rsplit_once("#t=").map_or(&*self.name, |(file, _)| file),
            None => &self.name,
        }
    }
}

/// The identity of every row of a shard, without its vectors.
pub(super) fn identities(
    root: &Path,
    files: &[Written],
    format: ShardFormat,
    mut each: impl FnMut(Identity),
) -> Result<(), Fault> {
    // The last file has the names, in every format.
    let Some(file) = files.last() else { return Ok(()) };
    let path = root.join(&file.name);
    let wrong = |error: String| Fault::input(format!("{}: {error}", path.display()));
    let open = File::open(&path).map_err(|error| wrong(error.to_string()))?;
    if format != ShardFormat::Parquet {
        for line in BufReader::new(open).lines() {
            let line = line.map_err(|error| wrong(error.to_string()))?;
            each(serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?);
        }
        return Ok(());
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(open).map_err(|error| wrong(error.to_string()))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["name", "time", "size", "mtime"]);
    let reader = builder.with_projection(mask).build().map_err(|error| wrong(error.to_string()))?;
    for batch in reader {
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| wrong(format!("it has no column {name:?}")))
        };
        let names = column("name")?.as_string_opt::<i32>();
        let sizes = column("size")?.as_primitive_opt::<Int64Type>();
        let times = column("mtime")?.as_primitive_opt::<TimestampMicrosecondType>();
        let moments = column("time")?.as_primitive_opt::<Float64Type>();
        let (Some(names), Some(moments), Some(sizes), Some(times)) = (names, moments, sizes, times) else {
            return Err(wrong("columns of other types".to_owned()));
        };
        for row in 0..batch.num_rows() {
            each(Identity {
                name: names.value(row).to_owned(),
                time: moments.is_valid(row).then(|| moments.value(row)),
                size: u64::try_from(sizes.value(row)).unwrap_or(0),
                mtime: times.is_valid(row).then(|| times.value(row)),
            });
        }
    }
    Ok(())
}
