//! The file or files with a checkpoint's weights: safetensors, whole or in shards, or PyTorch's own.

use std::fs::File;
use std::io::Read;

use super::files::Files;
use super::store::Store;
use super::{CheckpointError, pth, safetensors};

/// What weights are called, the usual ones first.
pub(super) const SAFETENSORS: &[&str] = &["model.safetensors", "open_clip_model.safetensors"];

/// PyTorch's own, which are read where there is no safetensors file.
pub(super) const PYTORCH: &[&str] = &["pytorch_model.bin", "open_clip_pytorch_model.bin"];

/// Whether a file, or the index of its shards, is among those that `has` knows.
pub(super) fn is_there(has: impl Fn(&str) -> bool, file: &str) -> bool {
    has(file) || has(&index(file))
}

/// The index of a file's shards.
pub(super) fn index(file: &str) -> String {
    format!("{file}.index.json")
}

/// Opens weights; of shards only those with a tensor that `wanted` accepts.
pub(super) fn open(
    files: &Files,
    file: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Store, CheckpointError> {
    let mut store = if is_pytorch(file) {
        pth::open(files, file)?
    } else {
        safetensors::open(files, file, wanted)?.ok_or_else(|| CheckpointError::UnknownLayout {
            place: files.place(),
            reason: format!("neither {file} nor {} is there", index(file)),
        })?
    };
    store.unwrap_names();
    Ok(store)
}

/// The names of the tensors, from the header or the index alone; `None` where there is no such file.
pub(super) fn names(files: &Files, file: &str) -> Result<Option<Vec<String>>, CheckpointError> {
    if !is_there(|name| files.has(name), file) {
        return Ok(None);
    }
    if is_pytorch(file) {
        return pth::open(files, file)
            .map(|store| Some(store.iter().map(|(name, _)| name.clone()).collect()));
    }
    if files.has(file) {
        let label = files.label(file);
        let header = match files {
            Files::Dir(folder) => File::open(folder.join(file))
                .and_then(header)
                .map_err(|source| CheckpointError::Read { file: label.clone(), source })?,
            Files::Embedded(_) => {
                let blob = files.map(file)?;
                header(&blob[..]).map_err(|source| CheckpointError::Read { file: label.clone(), source })?
            }
        };
        // A header that cannot be read is for whoever opens the file to report, who knows what to say of it.
        return Ok(Some(header.map(|header| names_of(&header)).unwrap_or_default()));
    }
    Ok(safetensors::tensors(files, &index(file))?.map(|names| names.into_iter().collect()))
}

/// Whether a file is PyTorch's own format.
fn is_pytorch(file: &str) -> bool {
    [".bin", ".pt", ".pth"].iter().any(|end| file.ends_with(end))
}

/// Longest header of a safetensors file that is read for its names; the crate's own limit.
const HEADER: u64 = 100_000_000;

/// The JSON header at the beginning of a safetensors file; `None` if it is none.
pub(super) fn header(mut file: impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    if file.read_exact(&mut length).is_err() {
        return Ok(None);
    }
    let length = u64::from_le_bytes(length);
    if length > HEADER {
        return Ok(None);
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    Ok((header.len() as u64 == length).then_some(header))
}

/// The tensors that a safetensors header names.
pub(super) fn names_of(header: &[u8]) -> Vec<String> {
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(header).unwrap_or_default();
    header.into_iter().map(|(name, _)| name).filter(|name| name != "__metadata__").collect()
}
