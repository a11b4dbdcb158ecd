//! The columns of a stream: which one is embedded, which go through, which are added.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BinaryViewArray, RecordBatch};
use arrow_buffer::Buffer;
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use bytes::Bytes;

use super::{Answered, EmbeddingType};
use crate::bulk::fault::Fault;
use crate::engine::Input;
use crate::pipeline::ModelInfo;

/// Bytes of a text at most: some thousand times the context of any model.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Encoded pictures.
    Image,
    /// Texts.
    Text,
}

impl Kind {
    /// The column that is looked for where none is named.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }

    /// What a column of this type holds, if it can be embedded.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Some(Self::Image),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Text),
            _ => None,
        }
    }
}

/// Which column is to be embedded.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Its name; `image` or `text`, whichever there is, for `None`.
    pub name: Option<String>,
    /// What it must hold; what its type says for `None`.
    pub kind: Option<Kind>,
}

impl Wanted {
    /// The column in a schema.
    ///
    /// # Errors
    /// If there is none, if there are two, or if it has a type that cannot be embedded.
    pub(crate) fn find(&self, schema: &Schema) -> Result<(usize, Kind), Fault> {
        let all = || schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        let places = |name: &str| -> Vec<usize> {
            (0..schema.fields().len()).filter(|&i| schema.field(i).name() == name).collect()
        };
        let found = match &self.name {
            Some(name) => places(name),
            None => [places("image"), places("text")].concat(),
        };
        let place = match (found.as_slice(), &self.name) {
            (&[place], _) => place,
            ([], Some(name)) => {
                return Err(Fault::input(format!("there is no column {name:?} among {}", all())));
            }
            ([], None) => {
                let text = format!(
                    "there is no column \"image\" or \"text\" among {}: name one with --column",
                    all()
                );
                return Err(Fault::input(text));
            }
            (_, Some(name)) => return Err(Fault::input(format!("there are several columns {name:?}"))),
            (_, None) => {
                return Err(Fault::input(
                    "there are columns \"image\" and \"text\": choose one with --column",
                ));
            }
        };
        let field = schema.field(place);
        let kind = Kind::of(field.data_type()).ok_or_else(|| {
            Fault::input(format!(
                "column {:?} is of type {}; pictures are binary, large_binary or binary_view, texts are utf8, \
                 large_utf8 or utf8_view",
                field.name(),
                field.data_type()
            ))
        })?;
        let asked = self.kind.or_else(|| match (&self.name, field.name().as_str()) {
            (None, "image") => Some(Kind::Image),
            (None, _) => Some(Kind::Text),
            (Some(_), _) => None,
        });
        match asked {
            Some(asked) if asked != kind => Err(Fault::input(format!(
                "column {:?} is of type {}, which does not hold {}s",
                field.name(),
                field.data_type(),
                asked.name()
            ))),
            _ => Ok((place, kind)),
        }
    }
}

/// What becomes of the columns of a stream.
pub(super) struct Columns {
    /// The column that is embedded.
    pub(super) input: usize,
    /// Those that go through.
    kept: Vec<usize>,
    /// Of what is written.
    pub(super) schema: SchemaRef,
}

impl Columns {
    /// # Errors
    /// If there is nothing that can be embedded by this model, or a column has the name of one that is added.
    pub(super) fn plan(
        input: &Schema,
        wanted: &Wanted,
        keep_input: bool,
        added: Answered,
        info: &ModelInfo,
        facts: &[(String, String)],
    ) -> Result<Self, Fault> {
        let (place, kind) = wanted.find(input)?;
        check_tower(kind, info)?;
        let kept: Vec<usize> = (0..input.fields().len()).filter(|&i| keep_input || i != place).collect();
        let new = added.fields(info.embedding_dim);
        let taken = |field: &&FieldRef| kept.iter().any(|&i| input.field(i).name() == field.name());
        if let Some(field) = new.iter().find(taken) {
            let text = format!("there is a column {:?} already: rename or drop it", field.name());
            return Err(Fault::input(text));
        }
        let fields: Fields =
            kept.iter().map(|&i| Arc::clone(&input.fields()[i])).chain(new.iter().cloned()).collect();
        let mut metadata: HashMap<String, String> = input.metadata().clone().into();
        metadata.extend(facts.iter().cloned());
        Ok(Self { input: place, kept, schema: Arc::new(Schema::new_with_metadata(fields, metadata)) })
    }

    /// The columns of a batch that go through.
    pub(super) fn kept(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.kept.iter().map(|&i| Arc::clone(batch.column(i))).collect()
    }
}

/// Whether the model can embed what a column holds.
pub(crate) fn check_tower(kind: Kind, info: &ModelInfo) -> Result<(), Fault> {
    let there = match kind {
        Kind::Image => info.image.is_some(),
        Kind::Text => info.text.is_some(),
    };
    match there {
        true => Ok(()),
        false => Err(Fault::input(format!("this model has no {} tower", kind.name()))),
    }
}

impl Answered {
    /// The columns that are added, in their order.
    fn fields(self, width: usize) -> Fields {
        let item = match self.embedding {
            EmbeddingType::F32 => DataType::Float32,
            EmbeddingType::F16 => DataType::Float16,
        };
        let list = |item: DataType| Arc::new(Field::new("item", item, true));
        let vector = DataType::FixedSizeList(list(item), i32::try_from(width).unwrap_or(i32::MAX));
        let mut fields =
            vec![Field::new("embedding", vector, true), Field::new("error", DataType::Utf8, true)];
        if self.labels.is_some() {
            fields.push(Field::new("label", DataType::Utf8, true));
            fields.push(Field::new("score", DataType::Float32, true));
        }
        if matches!(self.labels, Some(Some(_))) {
            fields.push(Field::new("labels", DataType::List(list(DataType::Utf8)), true));
            fields.push(Field::new("scores", DataType::List(list(DataType::Float32)), true));
        }
        fields.into()
    }
}

/// The rows of the column that is embedded. Pictures are slices of the batch: nothing is copied.
pub(crate) struct Cells {
    column: ArrayRef,
    /// The buffers that pictures lie in.
    buffers: Vec<Bytes>,
}

/// Why a row cannot be an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CellError {
    /// There is nothing in it.
    #[error("null")]
    Null,
    /// A text of so many bytes.
    #[error("the text has {0} bytes; the limit is {MAX_TEXT_BYTES}")]
    TextTooLong(usize),
}

impl Cells {
    /// The rows of a column of a type that [`Kind::of`] knows.
    pub(crate) fn new(column: ArrayRef) -> Self {
        let owned = |buffer: &Buffer| Bytes::from_owner(buffer.clone());
        let buffers = match column.data_type() {
            DataType::Binary => vec![owned(column.as_binary::<i32>().values())],
            DataType::LargeBinary => vec![owned(column.as_binary::<i64>().values())],
            DataType::BinaryView => column.as_binary_view().data_buffers().iter().map(owned).collect(),
            _ => Vec::new(),
        };
        Self { column, buffers }
    }

    pub(crate) fn len(&self) -> usize {
        self.column.len()
    }

    /// The input in a row.
    pub(crate) fn get(&self, row: usize) -> Result<Input, CellError> {
        let column = &self.column;
        if column.is_null(row) {
            return Err(CellError::Null);
        }
        let whole = |from: usize, to: usize| Input::Image(self.buffers[0].slice(from..to));
        Ok(match column.data_type() {
            DataType::Binary => {
                let offsets = column.as_binary::<i32>().value_offsets();
                whole(offsets[row] as usize, offsets[row + 1] as usize)
            }
            DataType::LargeBinary => {
                let offsets = column.as_binary::<i64>().value_offsets();
                whole(offsets[row] as usize, offsets[row + 1] as usize)
            }
            DataType::BinaryView => Input::Image(self.view(column.as_binary_view(), row)),
            DataType::Utf8 => text(column.as_string::<i32>().value(row))?,
            DataType::LargeUtf8 => text(column.as_string::<i64>().value(row))?,
            DataType::Utf8View => text(column.as_string_view().value(row))?,
            _ => return Err(CellError::Null),
        })
    }

    /// A view is its length, then twelve bytes of the value or four bytes, a buffer and an offset.
    fn view(&self, array: &BinaryViewArray, row: usize) -> Bytes {
        let view = array.views()[row];
        let length = view as u32 as usize;
        if length <= 12 {
            return Bytes::copy_from_slice(array.value(row));
        }
        let (buffer, offset) = ((view >> 64) as u32 as usize, (view >> 96) as u32 as usize);
        self.buffers[buffer].slice(offset..offset + length)
    }
}

fn text(text: &str) -> Result<Input, CellError> {
    match text.len() > MAX_TEXT_BYTES {
        true => Err(CellError::TextTooLong(text.len())),
        false => Ok(Input::Text(text.to_owned())),
    }
}
