//! What several themes need: small checkpoints with random weights, written without Python.

pub mod tiny;
