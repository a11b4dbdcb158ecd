//! Tests of the rooms from outside, in one crate so that the dependencies are linked once.

mod api;
mod architecture;
#[cfg(feature = "demo")]
mod bulk;
mod checkpoint;
mod cli;
mod demo;
mod engine;
mod heif;
mod image;
mod kernels;
mod label_store;
mod ops;
#[cfg(unix)]
mod serve;
mod support;
mod text;
mod towers;
mod unload;
