//! Bulk work: many inputs through one model, as background work of the engine. Knows files, Arrow and the engine; knows no
//! HTTP and no command line.
//!
//! [`Session`] is an engine with one model. [`worker`] answers Arrow streams with Arrow streams; [`shards`] writes folders of
//! embeddings, of what [`inputs`] finds and [`containers`] hold; [`vectors`] searches them.

pub mod containers;
pub mod facts;
mod fault;
mod files;
pub mod frames;
mod gate;
pub mod inputs;
pub mod npy;
pub mod objects;
mod session;
pub mod shards;
mod stored;
pub mod vectors;
pub mod worker;

pub use fault::{Fault, Kind as FaultKind};
pub use files::read as read_file;
pub use session::{Failures, Session};
