//! Bulk work through the program: Arrow streams, folders of shards, searches over what they wrote.

#[cfg(target_os = "linux")]
mod full_disk;
mod inputs;
#[cfg(unix)]
mod killed;
mod moving;
mod shards;
mod streams;
mod vectors;
mod worker;
mod worker_limits;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program with these arguments, in a folder.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siglip"));
    // What the surroundings set must not change the answer.
    command.args(arguments).current_dir(folder).env_clear().env("HF_HUB_OFFLINE", "1");
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Example pictures of the embedded model.
fn examples() -> Vec<PathBuf> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "models/demo/examples"].iter().collect();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "png"));
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

/// The values of a `.npy` of `f32`, row by row.
fn npy(file: &Path, width: usize) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(file).unwrap();
    let values: Vec<f32> =
        bytes[128..].chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
    values.chunks(width).map(<[f32]>::to_vec).collect()
}
