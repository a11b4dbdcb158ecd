//! Rows of tables: Parquet, and Arrow's file and stream formats.

use std::ops::ControlFlow;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;

use super::pages::Pages;
use super::{Contained, ContainerOptions, wrong};
use crate::bulk::fault::Fault;
use crate::bulk::gate::Gate;
use crate::bulk::inputs::FileEntry;
use crate::bulk::stored::{Sequential, Stored};
use crate::bulk::worker::{Cells, Frames, MAX_BATCH_BYTES};

/// Rows that are read from Parquet at once: each may be a photograph.
const ROWS: usize = 32;
const ARROW_FILE: &[u8] = b"ARROW1";
/// What a row of an Arrow file takes at least, so that there is an end of rows that are nothing.
const ROW_BYTES: usize = 64;

type Each<'a> = &'a mut dyn FnMut(Contained) -> ControlFlow<()>;

pub(super) fn read_parquet(
    file: &FileEntry,
    options: &ContainerOptions,
    each: Each<'_>,
) -> Result<(), Fault> {
    let pages = Pages::new(file.open().map_err(|error| wrong(file, error))?);
    // As Parquet has it: types of Arrow's own, such as long lists of bytes, have no bound. Pages are read one after the other.
    let reading = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_page_index_policy(PageIndexPolicy::Skip);
    let metadata = ArrowReaderMetadata::load(&pages, reading).map_err(|error| wrong(file, error))?;
    let columns = Columns::find(metadata.schema(), file, options)?;
    let roots = std::iter::once(columns.input).chain(columns.names);
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
    let read: Vec<usize> =
        (0..metadata.parquet_schema().num_columns()).filter(|&leaf| mask.leaf_included(leaf)).collect();
    let pages = pages.with(metadata.metadata(), &read).map_err(|error| wrong(file, error))?;
    let columns = columns.alone();
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(pages, metadata);
    let reader = builder.with_batch_size(ROWS).with_projection(mask).build();
    let reader = reader.map_err(|error| wrong(file, error))?;
    rows(file, columns, reader, each)
}

/// Both formats of Arrow: a file is a stream behind a mark, with a table of contents that is not needed at its end.
pub(super) fn read_arrow(file: &FileEntry, options: &ContainerOptions, each: Each<'_>) -> Result<(), Fault> {
    let stored = file.open().map_err(|error| wrong(file, error))?;
    let start = start(&*stored).map_err(|error| wrong(file, error))?;
    let input = Sequential::new(stored, start);
    let gate = Gate::new(MAX_BATCH_BYTES as u64);
    let frames = Frames::new(input, MAX_BATCH_BYTES, ROW_BYTES, gate);
    let reader = StreamReader::try_new(frames, None).map_err(|error| wrong(file, error))?;
    let columns = Columns::find(&reader.schema(), file, options)?;
    rows(file, columns, reader, each)
}

/// Where the stream begins: behind the mark of a file, and the zeros that some writers leave up to a multiple of 64 bytes.
fn start(stored: &dyn Stored) -> std::io::Result<u64> {
    let head = stored.read_at(0, 128)?;
    if !head.starts_with(ARROW_FILE) {
        return Ok(0);
    }
    let zeros = head.as_chunks::<8>().0.iter().skip(1).take_while(|word| **word == [0; 8]).count();
    Ok(8 * (1 + zeros as u64))
}

/// The columns that are read.
#[derive(Clone, Copy)]
struct Columns {
    input: usize,
    names: Option<usize>,
}

impl Columns {
    fn find(schema: &Schema, file: &FileEntry, options: &ContainerOptions) -> Result<Self, Fault> {
        let (input, _) = options.wanted.find(schema).map_err(|fault| wrong(file, fault))?;
        let names = match &options.names {
            None => None,
            Some(name) => Some(
                schema
                    .index_of(name)
                    .map_err(|_| wrong(file, format!("there is no column {name:?} (--name-column)")))?,
            ),
        };
        if names == Some(input) {
            return Err(wrong(file, "--name-column names the column that is embedded"));
        }
        if let Some(field) = names.map(|i| schema.field(i))
            && name_at(&arrow_array::new_empty_array(field.data_type()), None).is_none()
        {
            return Err(wrong(file, format!("--name-column: {} are no names", field.data_type())));
        }
        Ok(Self { input, names })
    }

    /// Where they are when nothing else was read.
    fn alone(self) -> Self {
        let after = |other: Option<usize>, this: usize| usize::from(other.is_some_and(|other| other < this));
        Self {
            input: after(self.names, self.input),
            names: self.names.map(|names| after(Some(self.input), names)),
        }
    }
}

fn rows(
    file: &FileEntry,
    columns: Columns,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    each: Each<'_>,
) -> Result<(), Fault> {
    let mut number = 0u64;
    for batch in batches {
        let batch = batch.map_err(|error| wrong(file, error))?;
        let cells = Cells::new(batch.column(columns.input).clone());
        let names = columns.names.map(|names| batch.column(names));
        for row in 0..batch.num_rows() {
            let name = names.and_then(|names| name_at(names, Some(row)));
            let name = name.unwrap_or_else(|| format!("{}#{number}", file.name));
            let input = cells.get(row).map_err(|error| error.to_string());
            if each(Contained::new(name, input)).is_break() {
                return Ok(());
            }
            number += 1;
        }
    }
    Ok(())
}

/// The name in a row; for no row, whether the column has any.
fn name_at(column: &ArrayRef, row: Option<usize>) -> Option<String> {
    macro_rules! value {
        ($array:expr) => {
            match row {
                Some(row) => column.is_valid(row).then(|| $array.value(row).to_string()),
                None => Some(String::new()),
            }
        };
    }
    use arrow_array::types::{Int32Type, Int64Type, UInt32Type, UInt64Type};
    match column.data_type() {
        DataType::Utf8 => value!(column.as_string::<i32>()),
        DataType::LargeUtf8 => value!(column.as_string::<i64>()),
        DataType::Utf8View => value!(column.as_string_view()),
        DataType::Int32 => value!(column.as_primitive::<Int32Type>()),
        DataType::Int64 => value!(column.as_primitive::<Int64Type>()),
        DataType::UInt32 => value!(column.as_primitive::<UInt32Type>()),
        DataType::UInt64 => value!(column.as_primitive::<UInt64Type>()),
        _ => None,
    }
}
