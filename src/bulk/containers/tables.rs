//! Rows of tables: Parquet, and Arrow's file and stream formats.

use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::ControlFlow;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Contained, ContainerOptions, wrong};
use crate::bulk::fault::Fault;
use crate::bulk::inputs::FileEntry;
use crate::bulk::worker::Cells;

/// Rows that are read from Parquet at once: each may be a photograph.
const ROWS: usize = 32;
const ARROW_FILE: &[u8] = b"ARROW1";

type Each<'a> = &'a mut dyn FnMut(Contained) -> ControlFlow<()>;

pub(super) fn read_parquet(
    file: &FileEntry,
    options: &ContainerOptions,
    each: Each<'_>,
) -> Result<(), Fault> {
    let open = File::open(&file.path).map_err(|error| wrong(file, error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(open).map_err(|error| wrong(file, error))?;
    let columns = Columns::find(builder.schema(), file, options)?;
    let roots = std::iter::once(columns.input).chain(columns.names);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let columns = columns.alone();
    let reader = builder.with_batch_size(ROWS).with_projection(mask).build();
    let reader = reader.map_err(|error| wrong(file, error))?;
    rows(file, columns, reader, each)
}

pub(super) fn read_arrow(file: &FileEntry, options: &ContainerOptions, each: Each<'_>) -> Result<(), Fault> {
    let mut magic = [0; 6];
    let mut open = File::open(&file.path).map_err(|error| wrong(file, error))?;
    let is_file = open.read_exact(&mut magic).is_ok() && magic == *ARROW_FILE;
    let open = BufReader::new(File::open(&file.path).map_err(|error| wrong(file, error))?);
    if is_file {
        let reader = FileReader::try_new(open, None).map_err(|error| wrong(file, error))?;
        let columns = Columns::find(&reader.schema(), file, options)?;
        rows(file, columns, reader, each)
    } else {
        let reader = StreamReader::try_new(open, None).map_err(|error| wrong(file, error))?;
        let columns = Columns::find(&reader.schema(), file, options)?;
        rows(file, columns, reader, each)
    }
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
            if each(Contained { name, input }).is_break() {
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
