//! Reads PyTorch's own files (`pytorch_model.bin`): a zip archive with a pickle that says what the tensors are, and their
//! values beside it, uncompressed.
//!
//! candle reads the pickle, as data: no code in it runs. The values stay where they are in the file.

use std::collections::HashMap;
use std::io::Cursor;

use candle_core::DType;
use candle_core::pickle::{TensorInfo, read_pth_tensor_info};
use zip::{CompressionMethod, ZipArchive};

use super::CheckpointError;
use super::files::Files;
use super::store::{Bytes, Dtype, Store, Stored};

/// Where the tensors may be below the root of the pickle, as training programs save them.
const KEYS: [Option<&str>; 3] = [None, Some("state_dict"), Some("model")];

/// Opens one file.
pub(super) fn open(files: &Files, file: &str) -> Result<Store, CheckpointError> {
    let label = files.label(file);
    let bad = |reason: String| CheckpointError::Header { file: label.clone(), format: "PyTorch", reason };
    let Files::Dir(folder) = files else {
        return Err(bad("it can only be read from a folder".into()));
    };
    let blob = files.map(file)?;
    let mut tensors = Vec::new();
    for key in KEYS {
        // A key that is not there is an error of candle's: the next one may be.
        match read_pth_tensor_info(folder.join(file), false, key) {
            Ok(found) => tensors = found,
            Err(error) if key.is_none() => return Err(bad(error.to_string())),
            Err(_) => {}
        }
        if !tensors.is_empty() {
            break;
        }
    }
    if tensors.is_empty() {
        return Err(bad("it holds no tensors by name".into()));
    }
    let entries = entries(&blob).map_err(bad)?;
    let mut found = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let stored = stored(&tensor, &entries).map_err(|reason| bad(format!("{}: {reason}", tensor.name)))?;
        found.push((tensor.name, stored));
    }
    let mut store = Store::default();
    store.add(label, blob, found)?;
    Ok(store)
}

/// Where the entries of the archive are: start and length.
fn entries(bytes: &[u8]) -> Result<HashMap<String, (usize, usize)>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut entries = HashMap::with_capacity(archive.len());
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| error.to_string())?;
        let name = entry.name().map_err(|error| error.to_string())?.to_string();
        let range = entry.data_start().and_then(|start| {
            let range = (usize::try_from(start).ok()?, usize::try_from(entry.size()).ok()?);
            (range.0.checked_add(range.1)? <= bytes.len()).then_some(range)
        });
        // Only what tensors lie in must be plain.
        if let Some(range) = range.filter(|_| entry.compression() == CompressionMethod::Stored) {
            entries.insert(name, range);
        }
    }
    Ok(entries)
}

fn stored(tensor: &TensorInfo, entries: &HashMap<String, (usize, usize)>) -> Result<Stored, String> {
    let layout = &tensor.layout;
    let fortran = !layout.is_contiguous() && layout.is_fortran_contiguous();
    if !layout.is_contiguous() && !fortran {
        return Err("it is a view into another tensor: save it with safetensors".into());
    }
    let dtype = match tensor.dtype {
        DType::F64 => Ok(Dtype::F64),
        DType::F32 => Ok(Dtype::F32),
        DType::F16 => Ok(Dtype::F16),
        DType::BF16 => Ok(Dtype::Bf16),
        other => Err(other.as_str().to_string()),
    };
    let size = tensor.dtype.size_in_bytes();
    let (start, length) =
        entries.get(&tensor.path).ok_or_else(|| format!("no uncompressed {} in the archive", tensor.path))?;
    let count = layout.dims().iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let range = count.and_then(|count| {
        let from = layout.start_offset().checked_mul(size)?;
        let to = from.checked_add(count.checked_mul(size)?)?;
        (to <= *length).then_some(start + from..start + to)
    });
    let range = range.ok_or_else(|| format!("it lies outside {}", tensor.path))?;
    Ok(Stored { file: 0, dtype, shape: layout.dims().to_vec(), fortran, bytes: Bytes::Plain(range) })
}
