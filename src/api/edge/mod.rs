//! Around every route: who asks, how much may come in, how long it may take, and how an error leaves.

pub mod body;
pub mod buffer;
pub mod error;
pub mod keys;
pub mod middleware;
pub mod negotiate;
pub mod render;
pub mod server;
pub mod unread;
