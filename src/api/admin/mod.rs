//! What operators ask: health and metrics.

pub mod health;
pub mod models;
