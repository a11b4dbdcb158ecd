//! Pages for people.

pub mod docs;
pub mod playground;
