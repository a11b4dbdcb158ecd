//! The routes of our own contract, `openapi.yaml`.

pub mod classify;
pub mod embeddings;
pub mod examples;
pub mod heatmaps;
pub mod label_sets;
pub mod models;
pub mod resolve;
pub mod schema;
pub mod score;
pub mod tokenize;
