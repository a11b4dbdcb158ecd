//! How a model is: on its way, ready, out of memory, or failed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::pipeline::ModelInfo;

/// How a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// Its files are being fetched.
    Downloading {
        /// Bytes fetched so far.
        bytes: u64,
        /// Bytes of all files, where that is known.
        total: Option<u64>,
    },
    /// Its files are being read and its towers put on their devices.
    Loading,
    /// Its towers are computing their first batch.
    Warming,
    /// It answers.
    Ready,
    /// Its towers have left the memory. They come back with the next request.
    Unloaded,
    /// It cannot be loaded, or fails on inputs that are known to be good.
    Failed {
        /// What went wrong. For operators: it may name files.
        reason: String,
    },
}

impl ModelState {
    /// Every word that [`Self::label`] says.
    pub const LABELS: [&str; 6] = ["downloading", "loading", "warming", "ready", "unloaded", "failed"];

    /// In one word, as in metrics and in the API.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Downloading { .. } => "downloading",
            Self::Loading => "loading",
            Self::Warming => "warming",
            Self::Ready => "ready",
            Self::Unloaded => "unloaded",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether the model is on its way to its first answer.
    pub fn is_starting(&self) -> bool {
        matches!(self, Self::Downloading { .. } | Self::Loading | Self::Warming)
    }

    /// When to ask again.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Downloading { .. } | Self::Failed { .. } => Duration::from_secs(10),
            _ => Duration::from_secs(2),
        }
    }
}

impl fmt::Display for ModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Downloading { bytes, total: Some(total) } => {
                write!(f, "downloading ({bytes} of {total} bytes)")
            }
            Self::Downloading { bytes, total: None } => write!(f, "downloading ({bytes} bytes so far)"),
            other => f.write_str(other.label()),
        }
    }
}

/// What is known of one model of an engine.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// The name that answers use.
    pub name: String,
    /// Other names that requests may use.
    pub aliases: Vec<String>,
    /// How it is.
    pub state: ModelState,
    /// What it is; `None` until it has been loaded once.
    pub info: Option<ModelInfo>,
    /// How the replacement is that is being loaded, if one is.
    pub replacement: Option<ModelState>,
}

/// Where a loader says how far it is. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    report: Arc<dyn Fn(ModelState) + Send + Sync>,
}

impl Progress {
    pub(super) fn new(report: impl Fn(ModelState) + Send + Sync + 'static) -> Self {
        Self { report: Arc::new(report) }
    }

    /// For a loader that nobody watches.
    pub fn unwatched() -> Self {
        Self::new(|_| {})
    }

    /// Files are being fetched: `bytes` so far, of `total` where that is known.
    pub fn downloading(&self, bytes: u64, total: Option<u64>) {
        (self.report)(ModelState::Downloading { bytes, total });
    }

    /// Everything is on this machine and being read.
    pub fn loading(&self) {
        (self.report)(ModelState::Loading);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
