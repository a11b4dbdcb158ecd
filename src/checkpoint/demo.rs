//! The model inside the program.

use super::CheckpointError;
use super::files::Files;

/// Its files.
///
/// # Errors
/// In a build without the feature `demo`.
#[cfg(feature = "demo")]
#[expect(clippy::unnecessary_wraps, reason = "a build without the model fails here")]
pub(super) fn files() -> Result<Files, CheckpointError> {
    macro_rules! embedded {
        ($($name:literal),*) => {
            &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/", $name)))),*]
        };
    }
    Ok(Files::Embedded(embedded![
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors"
    ]))
}

/// Its files, which this build does not have.
///
/// # Errors
/// Always.
#[cfg(not(feature = "demo"))]
pub(super) fn files() -> Result<Files, CheckpointError> {
    Err(CheckpointError::NoDemo)
}
