//! One file per command; each gives the exit code of the process.

/// `print!` that ends the program quietly when whoever reads its output has gone (`siglip … | head`).
macro_rules! out {
    ($($part:tt)*) => { $crate::commands::write_out(format_args!($($part)*)) };
}

/// `println!` in the same way.
macro_rules! outln {
    ($($part:tt)*) => { $crate::commands::write_out(format_args!("{}\n", format_args!($($part)*))) };
}

mod bench;
mod classify;
mod dedup;
mod embed;
mod error;
mod health;
mod inspect;
mod progress;
mod search;
mod serve;
mod session;
mod verify;
mod worker;

use std::fmt::Arguments;
use std::io::Write;
use std::process::ExitCode;

use crate::config::{Cli, Command};
#[cfg(all(feature = "heif", target_os = "linux"))]
use crate::image::decode_heif_in_child;
use crate::telemetry::{self, LogFormat};

pub use error::CommandError;

/// Runs the command that was asked for.
///
/// # Errors
/// What kept it from being done; the caller prints it.
pub fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    let _telemetry = match cli.command {
        // The service sets up its own, with the format that its flags ask for.
        Command::Serve(_) => None,
        // Nothing is started that a process needs which only decodes.
        #[cfg(all(feature = "heif", target_os = "linux"))]
        Command::DecodeHeif(_) => None,
        _ => Some(telemetry::init(LogFormat::Text, Some(cli.log.as_deref().unwrap_or("warn")))?),
    };
    match cli.command {
        Command::Serve(args) => Ok(serve::run(*args, cli.log.as_deref())?),
        Command::Health(args) => health::run(&args),
        Command::Embed(args) => embed::run(*args),
        Command::Worker(args) => Ok(worker::run(&args)),
        Command::Search(args) => search::run(&args),
        Command::Dedup(args) => dedup::run(&args),
        Command::Classify(args) => classify::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        #[cfg(all(feature = "heif", target_os = "linux"))]
        Command::DecodeHeif(args) => {
            decode_heif_in_child(args.memory, args.seconds)
                .map_err(|error| CommandError::Failed(error.to_string()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Some inputs were skipped, the rest was done.
const SKIPPED: u8 = 3;

/// The exit code after so many inputs were answered and so many skipped.
fn some_skipped(answered: usize, skipped: usize) -> ExitCode {
    match (answered, skipped) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(SKIPPED),
    }
}

fn write_out(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("error: standard output: {error}");
        std::process::exit(1);
    }
}
