//! The routes, one file a family.

pub mod classify;
pub mod docs;
pub mod embeddings;
pub mod health;
pub mod models;
pub mod score;
