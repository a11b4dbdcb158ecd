//! Reads safetensors files, single or sharded, through the `safetensors` crate's header checks.

use std::collections::BTreeSet;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, SafeTensorError};

use super::files::{Blob, Files};
use super::json::Object;
use super::store::{Bytes, Dtype, Store, Stored};
use super::{CheckpointError, weights_file};

/// Bytes before the header: its length.
const PREFIX: usize = 8;

/// Opens a file, or the shards of its index; `None` if there is neither. Of a sharded checkpoint only files with a tensor
/// that `wanted` accepts are opened.
pub(super) fn open(
    files: &Files,
    file: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Option<Store>, CheckpointError> {
    let mut store = Store::default();
    if files.has(file) {
        add(&mut store, files.label(file), files.map(file)?)?;
        return Ok(Some(store));
    }
    let Some(shards) = shards(files, &weights_file::index(file), wanted)? else { return Ok(None) };
    for shard in shards {
        add(&mut store, files.label(&shard), files.map(&shard)?)?;
    }
    Ok(Some(store))
}

/// The tensors that an index names; `None` where there is no index.
pub(super) fn tensors(files: &Files, index: &str) -> Result<Option<BTreeSet<String>>, CheckpointError> {
    let Some(object) = Object::read(files, index)? else { return Ok(None) };
    Ok(Some(object.object("weight_map")?.iter().flat_map(Object::keys).cloned().collect()))
}

/// The shard files that an index names, for the tensors wanted; `None` where there is no index.
pub(super) fn shards(
    files: &Files,
    index: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Option<BTreeSet<String>>, CheckpointError> {
    let Some(object) = Object::read(files, index)? else { return Ok(None) };
    let map = object
        .object("weight_map")?
        .ok_or_else(|| object.error("weight_map", "the index of a sharded checkpoint must have it"))?;
    let mut shards = BTreeSet::new();
    for tensor in map.keys() {
        let shard = map.text(tensor)?.unwrap_or_default();
        // A name is joined to the folder and, on the hub, to a URL: nothing may lead out of them.
        let plain = !shard.is_empty()
            && shard.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !shard.starts_with('.');
        if !plain {
            return Err(map.error(tensor, format!("{shard:?} is not a plain file name")));
        }
        if wanted(tensor) {
            shards.insert(shard.to_string());
        }
    }
    Ok(Some(shards))
}

/// Adds one file to a store.
pub(super) fn add(store: &mut Store, label: String, blob: Blob) -> Result<(), CheckpointError> {
    let (length, metadata) =
        SafeTensors::read_metadata(&blob).map_err(|error| header_error(&label, &blob, &error))?;
    let start = PREFIX + length;
    let tensors = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let (from, to) = info.data_offsets;
            let tensor = Stored {
                file: 0,
                dtype: dtype(info.dtype),
                shape: info.shape.clone(),
                fortran: false,
                bytes: Bytes::Plain(start + from..start + to),
            };
            (name, tensor)
        })
        .collect();
    store.add(label, blob, tensors)
}

fn dtype(dtype: FileDtype) -> Result<Dtype, String> {
    match dtype {
        FileDtype::F64 => Ok(Dtype::F64),
        FileDtype::F32 => Ok(Dtype::F32),
        FileDtype::F16 => Ok(Dtype::F16),
        FileDtype::BF16 => Ok(Dtype::Bf16),
        other => Err(format!("{other:?}").to_lowercase()),
    }
}

fn header_error(label: &str, bytes: &[u8], error: &SafeTensorError) -> CheckpointError {
    let file = label.to_string();
    let found = bytes.len() as u64;
    match (error, expected(bytes)) {
        (
            SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength,
            Some(expected),
        ) => CheckpointError::Truncated { file, expected, found },
        _ => CheckpointError::Header { file, format: "safetensors", reason: error.to_string() },
    }
}

/// Bytes that the file should have, as far as its beginning tells.
fn expected(bytes: &[u8]) -> Option<u64> {
    let header = u64::from_le_bytes(bytes.get(..PREFIX)?.try_into().ok()?);
    let body = PREFIX as u64 + header;
    let Some(json) = usize::try_from(body).ok().and_then(|end| bytes.get(PREFIX..end)) else {
        // The header itself is cut off; one of gigabytes is not a header but another kind of file.
        return (header < 100_000_000).then_some(body);
    };
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).ok()?;
    let last = header.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64()).max();
    body.checked_add(last.unwrap_or(0))
}
