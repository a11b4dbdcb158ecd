//! Folders of sentence-transformers: the checkpoint lies in a folder of its own, which `modules.json` names.

use serde::Deserialize;

use super::CheckpointError;
use super::files::Files;

/// The list of the parts of such a model; the first one is the checkpoint, what follows normalises its vectors.
pub(super) const MODULES: &str = "modules.json";

/// Largest such list; real ones have a few hundred bytes.
const LIMIT: u64 = 1 << 20;

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
}

/// The files of the checkpoint in a folder.
pub(super) fn inside(files: Files) -> Result<Files, CheckpointError> {
    match (folder(&files)?, files) {
        (Some(inner), Files::Dir(folder)) => Ok(Files::Dir(folder.join(inner))),
        (_, files) => Ok(files),
    }
}

/// The folder of the checkpoint, where it is not the outer one.
pub(super) fn folder(files: &Files) -> Result<Option<String>, CheckpointError> {
    let Some(bytes) = files.read(MODULES, LIMIT)? else { return Ok(None) };
    let bad = |reason: String| CheckpointError::Json { file: files.label(MODULES), reason };
    let modules: Vec<Module> = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let path = modules.into_iter().next().map(|module| module.path).unwrap_or_default();
    if path.is_empty() {
        return Ok(None);
    }
    // It is joined to the folder and, on the hub, to a URL: nothing may lead out of them.
    let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !plain || path.starts_with('.') {
        return Err(bad(format!("{path:?} is not a plain folder name")));
    }
    Ok(Some(path))
}
