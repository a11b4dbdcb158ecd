//! SigLIP, SigLIP 2 and NaFlex: image and text embeddings and zero-shot classification.
//!
//! The library is the program's: [`run`] runs a [`Cli`]. The rooms, from the top: `commands` and the HTTP service sit on
//! `pipeline`, which puts a checkpoint's parts together: `image` turns files into patches, `text` turns strings into token
//! ids, `model` turns both into embeddings through the fused operations of `ops`, and `checkpoint` finds and reads the
//! weights. A lower room never imports a higher one. [`testing`] is what tests see.

mod api;
mod budget;
mod bulk;
mod checkpoint;
mod commands;
mod config;
mod engine;
mod error;
mod image;
mod labels;
mod model;
mod ops;
mod pipeline;
mod telemetry;
#[doc(hidden)]
pub mod testing;
mod text;

pub use commands::run;
pub use config::Cli;
pub use error::{Error, Result};
