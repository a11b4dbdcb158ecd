//! The weights of an opened checkpoint under their canonical names, whatever its files call them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use candle_core::{Device, Tensor};

use super::CheckpointError;
use super::store::{Dtype, FileStamp, Store};
use crate::model::{ModelError, ModelSpec, Table, TensorSpec, Values, Weights};

/// How one canonical tensor is made of stored ones.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// The stored tensors, in order.
    pub(super) parts: Vec<Part>,
    /// Added elementwise rather than put one below the other.
    pub(super) sum: bool,
}

impl Recipe {
    pub(super) fn one(part: Part) -> Self {
        Self { parts: vec![part], sum: false }
    }
}

/// A stored tensor, or a piece of one, seen in another order.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its name in the file.
    pub(super) name: String,
    /// The shapes that it may have there, each with the order of axes that makes it canonical
    /// (`None`: as it is). The first is the usual one, which messages name.
    pub(super) shapes: Vec<(Vec<usize>, Option<Vec<usize>>)>,
    /// Take only this one of so many equal pieces along the first axis.
    pub(super) piece: Option<(usize, usize)>,
    /// The first axis counts pieces, and is dropped when one is taken: scanned layers.
    pub(super) stacked: bool,
    /// Take only these rows, of a tensor that is read whole otherwise.
    pub(super) rows: Option<Range<usize>>,
}

impl Part {
    /// A tensor that is stored as it is used.
    pub(super) fn same(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shapes: vec![(shape.to_vec(), None)],
            piece: None,
            stacked: false,
            rows: None,
        }
    }
}

/// A part of which the shape in the file is known to be right.
#[derive(Debug, Clone)]
struct Checked {
    name: String,
    range: Option<Range<usize>>,
    shape: Vec<usize>,
    order: Option<Vec<usize>>,
}

/// What an adapter makes of one canonical tensor.
#[derive(Debug)]
pub(super) struct Change {
    /// As many as the tensor has, in C order.
    pub(super) values: Vec<f32>,
    /// They stand in the place of the stored ones, and are not added to them.
    pub(super) replaces: bool,
}

#[derive(Debug)]
struct Entry {
    shape: Vec<usize>,
    parts: Vec<Checked>,
    sum: bool,
}

impl Entry {
    /// The name of the stored tensor whose values are this one's, in their order.
    fn as_stored(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [part] if part.range.is_none() && part.order.is_none() => Some(&part.name),
            _ => None,
        }
    }
}

/// The weights of a checkpoint: memory-mapped, checked against its spec when it is opened, read and
/// widened to f32 one tensor at a time.
#[derive(Debug)]
pub struct CheckpointWeights {
    place: String,
    store: Store,
    entries: BTreeMap<String, Entry>,
    changes: BTreeMap<String, Change>,
    dtypes: Vec<&'static str>,
}

impl CheckpointWeights {
    /// Checks that every tensor of the spec is there in its shape and type, and that nothing else is
    /// that `ignored` does not know.
    pub(super) fn check(
        place: String,
        store: Store,
        spec: &ModelSpec,
        recipe: impl Fn(&TensorSpec) -> Recipe,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<Self, CheckpointError> {
        let mut entries = BTreeMap::new();
        let mut used = BTreeSet::new();
        let mut dtypes = BTreeSet::new();
        for tensor in spec.tensors() {
            let Recipe { parts, sum } = recipe(&tensor);
            let mut checked = Vec::with_capacity(parts.len());
            for part in parts {
                dtypes.insert(dtype(&store, &part.name, &part.shapes[0].0)?.name());
                checked.push(check_part(&store, &part)?);
                used.insert(part.name);
            }
            entries.insert(tensor.name, Entry { shape: tensor.shape, parts: checked, sum });
        }
        let extra: Vec<_> =
            store.iter().filter(|(name, _)| !used.contains(*name) && !ignored(name)).collect();
        if let [(name, tensor), others @ ..] = extra.as_slice() {
            return Err(CheckpointError::UnexpectedTensor {
                file: store.file_of(tensor).to_string(),
                tensor: (*name).clone(),
                found: tensor.shape.clone(),
                others: others.len(),
            });
        }
        let changes = BTreeMap::new();
        Ok(Self { place, store, entries, changes, dtypes: dtypes.into_iter().collect() })
    }

    /// Bytes of the weights files on disk.
    pub fn file_bytes(&self) -> u64 {
        self.store.size()
    }

    /// Name, size and time of the last change of the weights files.
    pub fn stamps(&self) -> Vec<FileStamp> {
        self.store.stamps()
    }

    /// The types the values are stored in (`f32`, `f16`, `bf16`, `f64`), sorted.
    pub fn dtypes(&self) -> &[&'static str] {
        &self.dtypes
    }

    /// The canonical names and shapes, sorted by name.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    /// Changes tensors, each of which is there in that shape.
    pub(super) fn change(&mut self, changes: BTreeMap<String, Change>) {
        self.changes = changes;
    }

    /// The name of the stored tensor that holds just the values of a canonical one.
    fn as_stored(&self, name: &str) -> Option<&str> {
        if self.changes.contains_key(name) {
            return None;
        }
        self.entries.get(name)?.as_stored()
    }

    /// The values of a canonical tensor, as f32 in C order.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let entry = self.entry(name)?;
        let mut result: Vec<f32> = Vec::new();
        for part in &entry.parts {
            let mut values = self.store.values(&part.name, part.range.clone())?;
            if let Some(order) = &part.order {
                let tensor = Tensor::from_vec(values, part.shape.as_slice(), &Device::Cpu)?;
                values = tensor.permute(order.as_slice())?.flatten_all()?.to_vec1()?;
            }
            if result.is_empty() {
                result = values;
            } else if entry.sum {
                result.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            } else {
                result.extend(values);
            }
        }
        match self.changes.get(name) {
            Some(change) if change.replaces => result.clone_from(&change.values),
            Some(change) => result.iter_mut().zip(&change.values).for_each(|(sum, value)| *sum += value),
            None => {}
        }
        Ok(result)
    }

    /// The bytes of a canonical tensor where the file holds them just so.
    pub(super) fn plain(&self, name: &str) -> Option<&[u8]> {
        self.as_stored(name).and_then(|stored| self.store.plain_f32(stored))
    }

    /// Reads some values of a canonical tensor as f32, where the file holds them in this order and some can be read
    /// without the others.
    pub(super) fn part_reader(
        &self,
        name: &str,
    ) -> Option<impl Fn(Range<usize>) -> Result<Vec<f32>, CheckpointError> + Sync + '_> {
        let stored = self.as_stored(name)?;
        self.store.is_plain(stored).then_some(move |range| self.store.values(stored, Some(range)))
    }

    fn entry_of_shape(&self, name: &str, shape: &[usize]) -> Result<&Entry, CheckpointError> {
        let entry = self.entry(name)?;
        if entry.shape != shape {
            return Err(CheckpointError::Shape {
                file: self.place.clone(),
                tensor: name.to_string(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        Ok(entry)
    }

    fn entry(&self, name: &str) -> Result<&Entry, CheckpointError> {
        self.entries.get(name).ok_or_else(|| CheckpointError::NoSuchTensor {
            place: self.place.clone(),
            tensor: name.to_string(),
        })
    }
}

impl Weights for CheckpointWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.entry_of_shape(name, shape)?;
        Ok(Tensor::from_vec(self.values(name)?, shape, &Device::Cpu)?)
    }

    fn table(&self, name: &str, shape: [usize; 2]) -> Result<Box<dyn Table>, ModelError> {
        self.entry_of_shape(name, &shape)?;
        match self.as_stored(name).and_then(|stored| self.store.rows(stored, shape[1])) {
            Some(rows) => Ok(Box::new(rows)),
            None => Ok(Box::new(Values::new(self.values(name)?, shape[1]))),
        }
    }
}

fn dtype(store: &Store, name: &str, expected: &[usize]) -> Result<Dtype, CheckpointError> {
    let tensor = store.get(name).ok_or_else(|| CheckpointError::MissingTensor {
        file: store.label(),
        tensor: name.to_string(),
        expected: expected.to_vec(),
    })?;
    store.dtype(name, tensor)
}

fn check_part(store: &Store, part: &Part) -> Result<Checked, CheckpointError> {
    // Both are there: `dtype` has looked already.
    let Some(tensor) = store.get(&part.name) else {
        return Err(CheckpointError::NoSuchTensor { place: store.label(), tensor: part.name.clone() });
    };
    let Some((_, order)) = part.shapes.iter().find(|(shape, _)| *shape == tensor.shape) else {
        return Err(CheckpointError::Shape {
            file: store.file_of(tensor).to_string(),
            tensor: part.name.clone(),
            expected: part.shapes[0].0.clone(),
            found: tensor.shape.clone(),
        });
    };
    let mut shape = tensor.shape.clone();
    let mut range = None;
    if let Some((index, count)) = part.piece {
        let elements = tensor.elements() / count;
        range = Some(index * elements..(index + 1) * elements);
        if part.stacked {
            shape.remove(0);
        } else {
            shape[0] /= count;
        }
    }
    if let Some(rows) = &part.rows {
        let row = tensor.elements() / shape[0].max(1);
        range = Some(rows.start * row..rows.end * row);
        shape[0] = rows.len();
    }
    Ok(Checked { name: part.name.clone(), range, shape, order: order.clone() })
}
