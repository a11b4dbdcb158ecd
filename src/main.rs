//! The `siglip` program: reads the command line, sets up logging, runs the command.

use std::process::ExitCode;

use clap::Parser;
use siglip::Cli;

// Decoding pictures allocates and frees large buffers from many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match siglip::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}
