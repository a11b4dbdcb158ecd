//! Arrow streams into the worker and out of it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema, SchemaRef};

/// What the worker did.
pub struct Answered {
    pub code: Option<i32>,
    pub told: String,
    /// None where there was no stream.
    pub schema: Option<SchemaRef>,
    pub batches: Vec<RecordBatch>,
}

/// A batch of named columns, all of which may have nulls.
pub fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The stream of some batches of one schema.
pub fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

/// `siglip worker` with pipes, with the embedded model unless another is named.
pub fn start(folder: &Path, arguments: &[&str]) -> Child {
    let model = if arguments.contains(&"--model") { &[][..] } else { &["--model", "demo"] };
    super::command(folder, &[&["worker"], model, arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The batches of a stream, as far as it can be read.
pub fn read(input: impl Read) -> (Option<SchemaRef>, Vec<RecordBatch>) {
    match StreamReader::try_new(input, None) {
        Ok(stream) => (Some(stream.schema()), stream.map_while(Result::ok).collect()),
        Err(_) => (None, Vec::new()),
    }
}

/// Everything that the worker says to an input.
pub fn answer(folder: &Path, arguments: &[&str], input: Vec<u8>) -> Answered {
    let mut child = start(folder, arguments);
    let mut stdin = child.stdin.take().unwrap();
    // It may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let (schema, batches) = read(output.stdout.as_slice());
    Answered { code: output.status.code(), told: super::text(&output.stderr), schema, batches }
}

impl Answered {
    /// The vectors of all rows; none where a row has none.
    pub fn vectors(&self) -> Vec<Option<Vec<f32>>> {
        self.batches.iter().flat_map(vectors).collect()
    }

    /// The errors of all rows.
    pub fn errors(&self) -> Vec<Option<String>> {
        self.batches.iter().flat_map(|batch| strings(batch, "error")).collect()
    }
}

pub fn vectors(batch: &RecordBatch) -> Vec<Option<Vec<f32>>> {
    let column = batch.column_by_name("embedding").unwrap().as_fixed_size_list();
    (0..column.len())
        .map(|row| {
            column.is_valid(row).then(|| column.value(row).as_primitive::<Float32Type>().values().to_vec())
        })
        .collect()
}

pub fn strings(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(name).unwrap().as_string::<i32>();
    column.iter().map(|value| value.map(str::to_owned)).collect()
}
