//! Tensors as the files hold them: names, types, shapes and bytes, before any layout's meaning.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use half::{bf16, f16};

use super::CheckpointError;
use super::files::Blob;
use crate::model::{ModelError, Table};

/// The types of values that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
}

impl Dtype {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name as a user writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// How the bytes of a tensor lie in its file.
#[derive(Debug, Clone)]
pub(super) enum Bytes {
    /// As they are.
    Plain(Range<usize>),
    /// An entry of a zip archive: `range` of the file, perhaps deflated, of which the first
    /// `header` bytes (once inflated) are not values.
    Zip { range: Range<usize>, deflated: bool, header: usize, crc: u32 },
}

/// One tensor in a file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Index into the store's files.
    pub(super) file: usize,
    /// The type of its values, or the name of one that cannot be read.
    pub(super) dtype: Result<Dtype, String>,
    /// In C order, the last axis varying fastest.
    pub(super) shape: Vec<usize>,
    /// The values lie in Fortran order: as the reversed shape in C order.
    pub(super) fortran: bool,
    pub(super) bytes: Bytes,
}

impl Stored {
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What tells a file that was changed from one that was not, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    /// How messages call it.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// When it was changed last; `None` for bytes inside the program.
    pub modified: Option<SystemTime>,
}

/// All tensors of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Store {
    files: Vec<(String, Arc<Blob>)>,
    tensors: BTreeMap<String, Stored>,
    /// Archive entries of which the checksum was right; the inflated bytes of those that are read
    /// piece by piece, so that a stack of layers is not inflated once for each layer.
    checked: Mutex<BTreeMap<String, Option<Arc<Vec<u8>>>>>,
}

impl Store {
    /// Adds a file and the tensors found in it; the bounds of each are already checked.
    pub(super) fn add(
        &mut self,
        label: String,
        blob: Blob,
        tensors: Vec<(String, Stored)>,
    ) -> Result<(), CheckpointError> {
        let file = self.files.len();
        self.files.push((label, Arc::new(blob)));
        for (name, mut tensor) in tensors {
            tensor.file = file;
            if let Some(first) = self.tensors.get(&name) {
                let first = self.files[first.file].0.clone();
                let second = self.files[file].0.clone();
                return Err(CheckpointError::DuplicateTensor { tensor: name, first, second });
            }
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }

    /// Takes away what wrappers put before all names (`module.` of DistributedDataParallel, `model.` of a class around
    /// the model) or into them (`_orig_mod.` of torch.compile).
    pub(super) fn unwrap_names(&mut self) {
        const WRAPPERS: [&str; 2] = ["module.", "model."];
        const COMPILED: &str = "_orig_mod.";
        let mut taken = BTreeSet::new();
        let plain: BTreeSet<String> = self.tensors.keys().map(|name| name.replace(COMPILED, "")).collect();
        if plain.len() == self.tensors.len() && plain.iter().any(|name| !self.tensors.contains_key(name)) {
            self.rename(|name| name.replace(COMPILED, ""));
            taken.insert(COMPILED);
        }
        while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| {
            !self.tensors.is_empty() && self.tensors.keys().all(|name| name.starts_with(**wrapper))
        }) {
            self.rename(|name| name[wrapper.len()..].to_string());
            taken.insert(wrapper);
        }
        if !taken.is_empty() {
            let taken = taken.into_iter().collect::<Vec<_>>().join(" and ");
            for (label, _) in &mut self.files {
                *label += &format!(" (its names without {taken})");
            }
        }
    }

    fn rename(&mut self, name: impl Fn(&str) -> String) {
        self.tensors =
            std::mem::take(&mut self.tensors).into_iter().map(|(old, t)| (name(&old), t)).collect();
    }

    pub(super) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Stored)> {
        self.tensors.iter()
    }

    /// The file that holds a tensor.
    pub(super) fn file_of(&self, tensor: &Stored) -> &str {
        &self.files[tensor.file].0
    }

    /// The file to name when a tensor is in none of them.
    pub(super) fn label(&self) -> String {
        match self.files.as_slice() {
            [(label, _)] => label.clone(),
            [] => String::new(),
            [(label, _), rest @ ..] => format!("{label} (and {} more files)", rest.len()),
        }
    }

    /// Bytes of all files together.
    pub(super) fn size(&self) -> u64 {
        self.files.iter().map(|(_, blob)| blob.len() as u64).sum()
    }

    /// Name, size and time of the last change of every file.
    pub(super) fn stamps(&self) -> Vec<FileStamp> {
        let stamp = |(label, blob): &(String, Arc<Blob>)| FileStamp {
            file: label.clone(),
            bytes: blob.len() as u64,
            modified: blob.modified(),
        };
        self.files.iter().map(stamp).collect()
    }

    /// The values of a tensor as f32, in C order. The range picks elements, in C order; it is only
    /// for tensors in C order.
    pub(super) fn values(&self, name: &str, pick: Option<Range<usize>>) -> Result<Vec<f32>, CheckpointError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| CheckpointError::NoSuchTensor { place: self.label(), tensor: name.to_string() })?;
        let dtype = self.dtype(name, tensor)?;
        self.with_bytes(name, tensor, dtype, pick.is_some(), |bytes| {
            if tensor.fortran {
                let all = from_fortran(&to_f32(bytes, dtype), &tensor.shape);
                return match &pick {
                    Some(range) => all[range.clone()].to_vec(),
                    None => all,
                };
            }
            match &pick {
                Some(range) => to_f32(&bytes[range.start * dtype.bytes()..range.end * dtype.bytes()], dtype),
                None => to_f32(bytes, dtype),
            }
        })
    }

    /// The bytes of a tensor that is plain little-endian f32 in C order already, without a copy.
    pub(super) fn plain_f32(&self, name: &str) -> Option<&[u8]> {
        let tensor = self.tensors.get(name)?;
        match (&tensor.bytes, &tensor.dtype, tensor.fortran) {
            (Bytes::Plain(range), Ok(Dtype::F32), false) => self.files[tensor.file].1.get(range.clone()),
            _ => None,
        }
    }

    /// Whether the values of a tensor lie in its file as they are, in C order, in whatever type.
    pub(super) fn is_plain(&self, name: &str) -> bool {
        self.tensors
            .get(name)
            .is_some_and(|tensor| matches!(tensor.bytes, Bytes::Plain(_)) && !tensor.fortran)
    }

    /// Rows of a tensor `[rows, width]` that lies in its file as it is.
    pub(super) fn rows(&self, name: &str, width: usize) -> Option<StoredRows> {
        let tensor = self.tensors.get(name)?;
        match (&tensor.bytes, &tensor.dtype, tensor.fortran) {
            (Bytes::Plain(range), Ok(dtype), false) => {
                let (label, blob) = &self.files[tensor.file];
                let (file, blob) = (label.clone(), Arc::clone(blob));
                Some(StoredRows { file, blob, range: range.clone(), dtype: *dtype, width })
            }
            _ => None,
        }
    }

    pub(super) fn dtype(&self, name: &str, tensor: &Stored) -> Result<Dtype, CheckpointError> {
        tensor.dtype.clone().map_err(|found| CheckpointError::Dtype {
            file: self.file_of(tensor).to_string(),
            tensor: name.to_string(),
            found,
        })
    }

    /// Calls `read` with the bytes of a tensor's values, of which there are as many as its shape says.
    fn with_bytes<T>(
        &self,
        name: &str,
        tensor: &Stored,
        dtype: Dtype,
        again: bool,
        read: impl Fn(&[u8]) -> T,
    ) -> Result<T, CheckpointError> {
        let (label, blob) = &self.files[tensor.file];
        let damaged = |reason: &str| CheckpointError::Damaged {
            file: label.clone(),
            tensor: name.to_string(),
            reason: reason.to_string(),
        };
        let outside = || damaged("it lies outside the file");
        let length = tensor.elements() * dtype.bytes();
        let (range, deflated, header, crc) = match &tensor.bytes {
            Bytes::Plain(range) => {
                let bytes = blob.get(range.clone()).filter(|bytes| bytes.len() == length);
                return bytes.map(read).ok_or_else(outside);
            }
            Bytes::Zip { range, deflated, header, crc } => (range, *deflated, *header, *crc),
        };
        let raw = blob.get(range.clone()).ok_or_else(outside)?;
        let known = self.checked.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match known {
            Some(Some(bytes)) => return Ok(read(&bytes)),
            Some(None) if !deflated => return raw.get(header..header + length).map(read).ok_or_else(outside),
            _ => {}
        }
        let bytes =
            super::npz::entry(raw, deflated, header, length, crc).map_err(|reason| damaged(&reason))?;
        let result = read(&bytes);
        let keep = match bytes {
            Cow::Owned(bytes) if again => Some(Arc::new(bytes)),
            _ => None,
        };
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), keep);
        Ok(result)
    }
}

/// A table that stays in its file.
pub(super) struct StoredRows {
    file: String,
    blob: Arc<Blob>,
    range: Range<usize>,
    dtype: Dtype,
    width: usize,
}

impl Table for StoredRows {
    fn read(&self, index: usize, row: &mut [f32]) -> Result<(), ModelError> {
        let size = self.width * self.dtype.bytes();
        let start = index.checked_mul(size).filter(|at| at + size <= self.range.len());
        let failed = |source| CheckpointError::Read { file: self.file.clone(), source };
        let start = start.ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        let mut bytes = vec![0; size];
        self.blob.read_at(&mut bytes, self.range.start + start).map_err(failed)?;
        widen_into(&bytes, self.dtype, row);
        Ok(())
    }
}

fn to_f32(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / dtype.bytes()];
    widen_into(bytes, dtype, &mut values);
    values
}

/// Little-endian values as f32, as many as `values` has.
fn widen_into(bytes: &[u8], dtype: Dtype, values: &mut [f32]) {
    fn each<const N: usize>(bytes: &[u8], values: &mut [f32], widen: impl Fn([u8; N]) -> f32) {
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
            *value = widen(*bytes);
        }
    }
    match dtype {
        Dtype::F64 => each(bytes, values, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::F32 => each(bytes, values, f32::from_le_bytes),
        Dtype::F16 => each(bytes, values, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::Bf16 => each(bytes, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
    }
}

/// Values in Fortran order to C order.
fn from_fortran(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let strides: Vec<usize> =
        shape.iter().scan(1, |step, size| Some(std::mem::replace(step, *step * size))).collect();
    let mut index = vec![0; shape.len()];
    let mut result = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        result.push(values[index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_is_undone() {
        // numpy: np.arange(6).reshape(2, 3) stored in Fortran order is 0 3 1 4 2 5.
        assert_eq!(from_fortran(&[0., 3., 1., 4., 2., 5.], &[2, 3]), [0., 1., 2., 3., 4., 5.]);
    }

    #[test]
    fn every_type_widens() {
        assert_eq!(to_f32(&1.5f64.to_le_bytes(), Dtype::F64), [1.5]);
        assert_eq!(to_f32(&1.5f32.to_le_bytes(), Dtype::F32), [1.5]);
        assert_eq!(to_f32(&f16::from_f32(1.5).to_le_bytes(), Dtype::F16), [1.5]);
        assert_eq!(to_f32(&bf16::from_f32(1.5).to_le_bytes(), Dtype::Bf16), [1.5]);
    }
}
