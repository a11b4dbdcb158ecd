//! Reads what `siglip embed` wrote: a folder of shards, or one file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

use super::{Vectors, unescaped};
use crate::bulk::facts::{FINGERPRINT, MODEL};
use crate::bulk::fault::Fault;
use crate::bulk::inputs::split_list;
use crate::bulk::{npy, shards};

/// Reads all vectors of a folder or file. Rows that are errors are left out.
///
/// # Errors
/// If it is not what `siglip embed` writes, or its parts do not fit together.
pub fn load(path: &Path) -> Result<Vectors, Fault> {
    let mut vectors = Vectors::default();
    if path.is_dir() {
        let (space, files) = shards::contents(path)?;
        vectors.fingerprint = Some(space.fingerprint);
        vectors.model = Some(space.model);
        for file in files {
            let file = path.join(file);
            // Beside vectors in npy are their names.
            if file.to_string_lossy().ends_with(".npy") {
                read_npy(&file, &file.with_extension("names.jsonl"), &mut vectors)?;
            } else if !file.to_string_lossy().ends_with(".names.jsonl") {
                read_file(&file, &mut vectors)?;
            }
        }
    } else {
        read_file(path, &mut vectors)?;
    }
    vectors.normalize();
    Ok(vectors)
}

fn read_file(path: &Path, vectors: &mut Vectors) -> Result<(), Fault> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => read_npy(path, &path.with_extension("names.txt"), vectors),
        Some("parquet") => read_parquet(path, vectors),
        Some("jsonl") => read_jsonl(path, vectors),
        _ => Err(wrong(path, "neither a folder that siglip embed wrote, nor .npy, .parquet or .jsonl")),
    }
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> Fault {
    Fault::input(format!("{}: {what}", path.display()))
}

fn open(path: &Path) -> Result<File, Fault> {
    File::open(path).map_err(|error| wrong(path, error))
}

impl Vectors {
    /// The width, which is that of the first vector.
    fn fit(&mut self, path: &Path, width: usize) -> Result<(), Fault> {
        if self.width == 0 {
            self.width = width;
        }
        match width == self.width {
            true => Ok(()),
            false => Err(wrong(path, format!("vectors of width {width} beside others of {}", self.width))),
        }
    }
}

fn read_npy(path: &Path, names: &Path, vectors: &mut Vectors) -> Result<(), Fault> {
    let mut file = BufReader::with_capacity(1 << 20, open(path)?);
    let mut head = vec![0; npy::HEADER];
    file.read_exact(&mut head).map_err(|error| wrong(path, error))?;
    let (from, rows, width) = npy::parse(&head).map_err(|error| wrong(path, error))?;
    if from != npy::HEADER {
        return Err(wrong(path, "its header is not that of siglip embed"));
    }
    let size = file.get_ref().metadata().map_err(|error| wrong(path, error))?.len();
    let values = rows.checked_mul(width).filter(|&values| {
        (values as u64).checked_mul(4).and_then(|bytes| bytes.checked_add(from as u64)) == Some(size)
    });
    let values = values.ok_or_else(|| wrong(path, "it has not the size that its header says"))?;
    vectors.fit(path, width)?;
    vectors.values.reserve(values);
    let mut buffer = vec![0; 1 << 20];
    let mut left = values * 4;
    while left > 0 {
        let part = &mut buffer[..left.min(1 << 20)];
        file.read_exact(part).map_err(|error| wrong(path, error))?;
        left -= part.len();
        let numbers =
            part.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        vectors.values.extend(numbers);
    }
    let before = vectors.names.len();
    if names.extension().is_some_and(|extension| extension == "jsonl") {
        each_line(names, |line| {
            if line.error.is_none() {
                vectors.names.push(line.name);
            }
            Ok(())
        })?;
    } else {
        let mut odd = false;
        split_list(BufReader::new(open(names)?), b'\n', |line| match std::str::from_utf8(line) {
            Ok(name) => vectors.names.push(unescaped(name)),
            Err(_) => odd = true,
        })
        .map_err(|error| wrong(names, error))?;
        if odd {
            return Err(wrong(names, "a name is not UTF-8"));
        }
    }
    match vectors.names.len() - before == rows {
        true => Ok(()),
        false => Err(wrong(names, format!("{} names for {rows} vectors", vectors.names.len() - before))),
    }
}

#[derive(Deserialize)]
struct Line {
    name: String,
    #[serde(default)]
    embedding: Option<Vec<f32>>,
    #[serde(default)]
    error: Option<String>,
}

fn each_line(path: &Path, mut each: impl FnMut(Line) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut result = Ok(());
    split_list(BufReader::new(open(path)?), b'\n', |line| {
        if result.is_ok() {
            let line = serde_json::from_slice::<Line>(line).map_err(|error| wrong(path, error));
            result = line.and_then(&mut each);
        }
    })
    .map_err(|error| wrong(path, error))?;
    result
}

fn read_jsonl(path: &Path, vectors: &mut Vectors) -> Result<(), Fault> {
    each_line(path, |line| {
        let Some(vector) = line.embedding else { return Ok(()) };
        vectors.fit(path, vector.len())?;
        vectors.values.extend(vector);
        vectors.names.push(line.name);
        Ok(())
    })
}

fn read_parquet(path: &Path, vectors: &mut Vectors) -> Result<(), Fault> {
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(open(path)?).map_err(|error| wrong(path, error))?;
    let facts = builder.metadata().file_metadata().key_value_metadata();
    for fact in facts.into_iter().flatten() {
        let place = match fact.key.as_str() {
            FINGERPRINT => &mut vectors.fingerprint,
            MODEL => &mut vectors.model,
            _ => continue,
        };
        *place = place.take().or_else(|| fact.value.clone());
    }
    let root =
        |name: &str| builder.schema().index_of(name).map_err(|_| wrong(path, format!("no column {name:?}")));
    let mask = ProjectionMask::roots(builder.parquet_schema(), [root("name")?, root("embedding")?]);
    let reader = builder.with_projection(mask).with_batch_size(4096).build();
    for batch in reader.map_err(|error| wrong(path, error))? {
        let batch = batch.map_err(|error| wrong(path, error))?;
        let column =
            |name: &str| batch.column_by_name(name).ok_or_else(|| wrong(path, format!("no column {name:?}")));
        let names =
            column("name")?.as_string_opt::<i32>().ok_or_else(|| wrong(path, "names of another type"))?;
        let lists = column("embedding")?;
        for row in (0..batch.num_rows()).filter(|&row| lists.is_valid(row)) {
            let vector = vector(lists, row).ok_or_else(|| wrong(path, "vectors of another type"))?;
            let numbers = vector.as_primitive_opt::<Float32Type>();
            let numbers = numbers.ok_or_else(|| wrong(path, "vectors of another type than f32"))?.values();
            vectors.fit(path, numbers.len())?;
            vectors.values.extend_from_slice(numbers);
            vectors.names.push(names.value(row).to_owned());
        }
    }
    Ok(())
}

fn vector(lists: &ArrayRef, row: usize) -> Option<ArrayRef> {
    match lists.data_type() {
        DataType::FixedSizeList(..) => Some(lists.as_fixed_size_list().value(row)),
        DataType::List(_) => Some(lists.as_list::<i32>().value(row)),
        _ => None,
    }
}
