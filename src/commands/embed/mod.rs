//! `siglip embed`: images and texts into a file of embeddings, or into a folder of shards.

mod file;
mod folder;
mod inputs;
mod output;

use std::path::Path;
use std::process::ExitCode;

use super::error::{Result, failed};
use crate::bulk::objects::is_url;
use crate::config::EmbedArgs;

pub(super) use inputs::{find as find_images, read as read_file};

pub(super) fn run(args: EmbedArgs) -> Result<ExitCode> {
    if args.output.as_os_str() == "-" {
        return Err(failed(
            "--output -: vectors go into files and folders; siglip worker writes to standard output",
        ));
    }
    if is_url(&args.output) {
        return Err(failed(format!(
            "--output {}: shards go into a folder of a file system, which has locks; copy them into the store when they are done",
            args.output.display()
        )));
    }
    match is_folder(&args.output) {
        true => Ok(folder::run(&args)),
        false => file::run(args),
    }
}

/// Whether an output is a folder: one that is there, or a name that is not that of a file.
fn is_folder(output: &Path) -> bool {
    output.is_dir() || output.as_os_str().to_string_lossy().ends_with('/') || output.extension().is_none()
}
