//! What keeps a command from being done.

use std::process::ExitCode;

use crate::Error;
use crate::bulk::Fault;
use crate::checkpoint::CheckpointError;
use crate::engine::{EngineError, WorkError};
use crate::image::ImageError;
use crate::model::ModelError;
use crate::text::TextError;

/// Why a command failed; `main` prints it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration, the model or a file of the user's.
    #[error(transparent)]
    Crate(#[from] Error),
    /// The engine did not take or did not finish the work.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Work that the command cannot do without.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// Bulk work ended before its end.
    #[error(transparent)]
    Bulk(#[from] Fault),
    /// Anything else, in words: the system refused, a service is not ready, nothing was left to write.
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Bulk(fault) => ExitCode::from(fault.kind.exit_code()),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Errors of the lower rooms, which the crate's own gathers.
macro_rules! gathered {
    ($($error:ty),+) => {
        $(impl From<$error> for CommandError {
            fn from(error: $error) -> Self {
                Self::Crate(error.into())
            }
        })+
    };
}

gathered!(CheckpointError, ImageError, ModelError, TextError);

/// `std::result::Result` with [`CommandError`].
pub(super) type Result<T, E = CommandError> = std::result::Result<T, E>;

/// A [`CommandError::Failed`] with this text.
pub(super) fn failed(text: impl Into<String>) -> CommandError {
    CommandError::Failed(text.into())
}
