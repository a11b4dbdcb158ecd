//! The one error of the crate, grouped by who must act on it.
//!
//! Each room has an error of its own that says what was wrong; this enum only says whose turn it
//! is. It knows nothing of HTTP: `api` turns it into a status.

use crate::checkpoint::CheckpointError;
use crate::image::ImageError;
use crate::model::ModelError;
use crate::text::TextError;

/// What can go wrong anywhere in the crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A picture cannot be used: the caller must send another one.
    #[error(transparent)]
    Image(ImageError),
    /// A text or its token ids cannot be used: the caller must send another one.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The request asks for something that the loaded model cannot do (a text from a model without
    /// a text tower, a patch budget for a fixed-resolution model): the caller must change it.
    #[error("{0}")]
    Request(String),
    /// A model cannot be found, read or understood: the operator must act.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A flag, an environment variable or a combination of them is not valid: the operator must act.
    #[error("{0}")]
    Config(String),
    /// The tensor library or a kernel failed: a fault of ours or of the device.
    #[error("computing failed: {0}")]
    Compute(#[from] candle_core::Error),
    /// A file of the user's cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Compute(error) => Self::Compute(error),
            ModelError::Weights(error) => match error.downcast::<CheckpointError>() {
                Ok(error) => Self::Checkpoint(*error),
                Err(error) => Self::Compute(candle_core::Error::Msg(error.to_string())),
            },
            error @ ModelError::Scores { .. } => Self::Config(error.to_string()),
            error => Self::Request(error.to_string()),
        }
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Specification(what) => Self::Config(what),
            error @ ImageError::NoDecoder { .. } => Self::Config(error.to_string()),
            error if error.is_about_options() => Self::Request(error.to_string()),
            error => Self::Image(error),
        }
    }
}

/// `std::result::Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
