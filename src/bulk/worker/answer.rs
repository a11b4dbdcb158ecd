//! The columns that are added to a batch, row by row.

use std::sync::Arc;

use arrow_array::builder::{Float32Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, FixedSizeListArray, Float16Array, Float32Array};
use arrow_buffer::NullBufferBuilder;
use arrow_schema::{ArrowError, DataType, Field};
use half::f16;

use super::{Answered, EmbeddingType};
use crate::engine::Embedding;
use crate::model::scores::l2_normalize;

/// The best labels of a row, best first; none where none of them fits.
pub(super) type Best<'a> = Vec<(&'a str, f32)>;

enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

/// The answers to the rows of a batch so far.
pub(super) struct Answer {
    width: usize,
    normalize: bool,
    values: Values,
    good: NullBufferBuilder,
    errors: StringBuilder,
    labels: Option<Labels>,
    /// Rows that are an error.
    pub(super) bad: usize,
}

struct Labels {
    label: StringBuilder,
    score: Float32Builder,
    lists: Option<(ListBuilder<StringBuilder>, ListBuilder<Float32Builder>)>,
}

impl Answer {
    /// The answer to a batch of `rows`, with room for all of it.
    pub(super) fn new(rows: usize, width: usize, normalize: bool, answered: Answered) -> Self {
        let values = match answered.embedding {
            EmbeddingType::F32 => Values::F32(Vec::with_capacity(rows * width)),
            EmbeddingType::F16 => Values::F16(Vec::with_capacity(rows * width)),
        };
        let labels = answered.labels.map(|top_k| Labels {
            label: StringBuilder::new(),
            score: Float32Builder::with_capacity(rows),
            lists: top_k
                .map(|_| (ListBuilder::new(StringBuilder::new()), ListBuilder::new(Float32Builder::new()))),
        });
        Self {
            width,
            normalize,
            values,
            good: NullBufferBuilder::new(rows),
            errors: StringBuilder::with_capacity(rows, 0),
            labels,
            bad: 0,
        }
    }

    /// Adds the embedding of a row.
    pub(super) fn good(&mut self, embedding: &Embedding) {
        let mut vector = embedding.vector.to_vec();
        if self.normalize {
            l2_normalize(&mut vector);
        }
        match &mut self.values {
            Values::F32(values) => values.append(&mut vector),
            Values::F16(values) => values.extend(vector.into_iter().map(f16::from_f32)),
        }
        self.good.append_non_null();
        self.errors.append_null();
    }

    /// Adds a row that has no embedding.
    pub(super) fn bad(&mut self, error: &str) {
        let zeros = self.width;
        match &mut self.values {
            Values::F32(values) => values.extend(std::iter::repeat_n(0.0, zeros)),
            Values::F16(values) => values.extend(std::iter::repeat_n(f16::ZERO, zeros)),
        }
        self.good.append_null();
        self.errors.append_value(error);
        self.bad += 1;
    }

    /// Adds the labels of the next row, in the order of the rows; `None` for one that has no embedding.
    pub(super) fn labels(&mut self, best: Option<Best<'_>>) {
        let Some(labels) = &mut self.labels else { return };
        match best.as_ref().and_then(|best| best.first()) {
            Some((label, score)) => {
                labels.label.append_value(label);
                labels.score.append_value(*score);
            }
            None => {
                labels.label.append_null();
                labels.score.append_null();
            }
        }
        if let Some((names, scores)) = &mut labels.lists {
            for (label, score) in best.iter().flatten() {
                names.values().append_value(label);
                scores.values().append_value(*score);
            }
            names.append(best.is_some());
            scores.append(best.is_some());
        }
    }

    /// The columns.
    ///
    /// # Errors
    /// If there are more values than a column can have.
    pub(super) fn finish(mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let (item, values): (DataType, ArrayRef) = match self.values {
            Values::F32(values) => (DataType::Float32, Arc::new(Float32Array::from(values))),
            Values::F16(values) => (DataType::Float16, Arc::new(Float16Array::from(values))),
        };
        let width = i32::try_from(self.width).map_err(|error| ArrowError::CastError(error.to_string()))?;
        let item = Arc::new(Field::new("item", item, true));
        let vectors = FixedSizeListArray::try_new(item, width, values, self.good.finish())?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(vectors), Arc::new(self.errors.finish())];
        if let Some(mut labels) = self.labels {
            columns.push(Arc::new(labels.label.finish()));
            columns.push(Arc::new(labels.score.finish()));
            if let Some((mut names, mut scores)) = labels.lists {
                columns.push(Arc::new(names.finish()));
                columns.push(Arc::new(scores.finish()));
            }
        }
        Ok(columns)
    }
}
