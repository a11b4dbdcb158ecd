//! The routes of our own contract, `openapi.yaml`.

pub mod call;
pub mod classify;
pub mod embeddings;
pub mod form;
pub mod labels;
pub mod models;
pub mod schema;
pub mod score;
pub mod work;
