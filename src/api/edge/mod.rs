//! Around every route: who asks, how much may come in, how long it may take, and how an error leaves.

pub mod base_path;
pub mod body;
pub mod buffer;
pub mod client;
pub mod ending;
pub mod error;
pub mod keys;
pub mod lifecycle;
pub mod middleware;
pub mod negotiate;
pub mod reload;
pub mod render;
pub mod server;
