//! Bulk work: many inputs through one model, as background work of the engine. Knows files, Arrow and the engine; knows no
//! HTTP and no command line.
//!
//! [`Session`] is an engine with one model. [`worker`] answers Arrow streams with Arrow streams.

pub mod facts;
mod fault;
mod session;
pub mod worker;

pub use fault::{Fault, Kind as FaultKind};
pub use session::{Failures, Session};
