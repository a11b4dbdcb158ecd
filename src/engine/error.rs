//! Why the engine did not take or did not finish a request.

use std::time::Duration;

use super::ModelState;
use crate::model::ModelError;

/// Why the engine did not take or did not finish a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No room in the queue for the whole request; nothing of it was admitted.
    #[error("the service is at its limit ({reason}); try again in {} s", seconds(*retry_after))]
    Overloaded {
        /// Which bound was met.
        reason: String,
        /// When room is expected.
        retry_after: Duration,
    },
    /// One request asks for more than the queue can ever hold.
    #[error("the request is larger than the service takes at once: {0}")]
    TooLarge(String),
    /// The deadline passed before the answer was ready.
    #[error("the request was not finished within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The service is stopping and takes no new work.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// A worker failed on the batch this input was in.
    #[error("the model failed on this batch: {0}")]
    Worker(String),
    /// The model cannot answer yet, or cannot be loaded; the towers of one that is unloaded did not come back.
    #[error("the model {model:?} cannot answer now ({state}); try again in {} s", seconds(*retry_after))]
    Loading {
        /// Its name.
        model: String,
        /// How it is.
        state: ModelState,
        /// When to ask again.
        retry_after: Duration,
    },
    /// There is a model of that name already.
    #[error("there is a model named {name:?} already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is no model of that name.
    #[error("there is no model named {name:?}; this service has {}", known.join(", "))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

/// Why work that the engine took came to nothing: its own reason, or that of the input or the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The input cannot be used, or the model or its device failed.
    #[error(transparent)]
    Model(#[from] crate::Error),
    /// The engine stopped it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl WorkError {
    /// The same for somebody else who waits. Not every error can be cloned; of those the copy has the text.
    pub(super) fn copy(&self) -> Self {
        match self {
            Self::Model(crate::Error::Image(error)) => crate::Error::Image(error.clone()).into(),
            Self::Model(crate::Error::Request(message)) => crate::Error::Request(message.clone()).into(),
            Self::Engine(error) => error.clone().into(),
            Self::Model(error) => EngineError::Worker(error.to_string()).into(),
        }
    }
}

impl From<ModelError> for WorkError {
    fn from(error: ModelError) -> Self {
        Self::Model(error.into())
    }
}

/// `std::result::Result` with [`WorkError`].
pub(super) type Result<T, E = WorkError> = std::result::Result<T, E>;

/// Whole seconds, rounded up: who comes back a moment too early is refused again.
fn seconds(time: Duration) -> u64 {
    time.as_secs_f64().ceil().max(1.0) as u64
}

impl EngineError {
    /// The error of a request to a model that cannot answer.
    pub(super) fn loading(model: &str, state: ModelState) -> Self {
        Self::Loading { model: model.to_owned(), retry_after: state.retry_after(), state }
    }
}
