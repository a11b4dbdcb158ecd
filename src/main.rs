//! The `siglip` program.

fn main() {}
