//! Why bulk work ends before its end, by what whoever started it can do about it.

use crate::Error;
use crate::checkpoint::CheckpointError;
use crate::engine::WorkError;

/// Who must act, which is also the exit code of the process (those above 64 are of `sysexits.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A flag, a name, a file that is not there.
    Usage,
    /// What is there already was made by another model, or in another way: it cannot be gone on with.
    OtherSpace,
    /// The input is not what it should be.
    Input,
    /// The model cannot be loaded, or fails on one input after the other.
    Model,
    /// The output cannot be written.
    Output,
    /// Whoever read the output has gone. Nothing is to be said about it.
    Gone,
    /// Trying again later may help: a download, a lock that another run holds.
    Temporary,
}

impl Kind {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage | Self::Gone => 1,
            Self::OtherSpace => 4,
            Self::Input => 65,
            Self::Model => 70,
            Self::Output => 74,
            Self::Temporary => 75,
        }
    }
}

/// Why it ended, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// Who must act.
    pub kind: Kind,
    /// What was wrong.
    pub text: String,
}

impl Fault {
    /// A fault of a kind, in words.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text)
    }

    pub(super) fn input(text: impl Into<String>) -> Self {
        Self::new(Kind::Input, text)
    }

    /// Of a model that cannot be loaded.
    pub fn of_loading(error: &WorkError) -> Self {
        let kind = match error {
            WorkError::Model(Error::Config(_)) => Kind::Usage,
            WorkError::Model(Error::Checkpoint(
                CheckpointError::Transfer { .. }
                | CheckpointError::WrongDownload { .. }
                | CheckpointError::DiskFull { .. },
            )) => Kind::Temporary,
            _ => Kind::Model,
        };
        Self::new(kind, error.to_string())
    }

    /// Of an output that cannot be written.
    pub(super) fn of_output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {
                Self::new(Kind::Gone, "whoever read the output has gone")
            }
            _ => Self::new(Kind::Output, format!("the output cannot be written: {error}")),
        }
    }
}

/// Whether an input failed for a reason that the next one may share.
pub(super) fn is_of_the_model(error: &WorkError) -> bool {
    match error {
        WorkError::Model(error) => matches!(error, Error::Compute(_) | Error::Config(_)),
        WorkError::Engine(_) => true,
    }
}
