//! SigLIP, SigLIP 2 and NaFlex: image and text embeddings and zero-shot classification.
//!
//! The rooms, from the top: [`commands`] and the HTTP service sit on [`pipeline`], which puts a
//! checkpoint's parts together: [`image`] turns files into patches, [`text`] turns strings into
//! token ids, [`model`] turns both into embeddings through the fused operations of [`ops`], and
//! [`checkpoint`] finds and reads the weights. A lower room never imports a higher one.

pub mod api;
pub mod budget;
pub mod bulk;
pub mod checkpoint;
pub mod commands;
pub mod config;
pub mod engine;
pub mod error;
pub mod image;
pub mod labels;
pub mod model;
pub mod ops;
pub mod pipeline;
pub mod telemetry;
pub mod text;

pub use error::{Error, Result};
