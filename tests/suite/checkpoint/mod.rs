//! Checkpoints: every layout, every way in which one can be broken, downloads.

mod big_vision;
mod broken;
mod hub;
mod huggingface;
mod kinds;
mod known;
mod open_clip;
mod parts;
mod published;

use std::path::Path;

use siglip::testing::checkpoint::{Checkpoint, CheckpointError, HubOptions, ModelRef, open};
use siglip::testing::model::Weights;

use crate::support::tiny::Tiny;

/// Opens a folder or a file.
fn open_path(path: &Path) -> Result<Checkpoint, CheckpointError> {
    open(&ModelRef::Path(path.to_path_buf()), &HubOptions::default())
}

/// Writes a tiny checkpoint into a folder and opens it.
fn open_tiny(tiny: &Tiny) -> Result<Checkpoint, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    open_path(folder.path())
}

/// The values of one tensor, by its canonical name.
fn values(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> Vec<f32> {
    checkpoint.weights.tensor(name, shape).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Asserts that two checkpoints hold the same tensors, by name, shape, value and digest.
fn assert_same(left: &Checkpoint, right: &Checkpoint) {
    assert_eq!(left.spec.tensors(), right.spec.tensors());
    for tensor in left.spec.tensors() {
        let [one, other] = [left, right].map(|checkpoint| values(checkpoint, &tensor.name, &tensor.shape));
        assert_eq!(one, other, "{}", tensor.name);
    }
    assert_eq!(left.weights.digest().unwrap(), right.weights.digest().unwrap());
}
