//! Why a label set cannot be stored or used.

use std::time::Duration;

use crate::budget::Exceeded;
use crate::engine::EngineError;

/// Why a label set cannot be stored or used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LabelError {
    /// A field of a definition cannot be used.
    #[error("{field}: {message}")]
    Invalid {
        /// The field at fault: `labels[3].threshold`.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// There is more of something than the service takes.
    #[error("{field}: {message}")]
    TooLarge {
        /// The field at fault.
        field: String,
        /// How much there is, and how much may be.
        message: String,
    },
    /// There are as many sets as the service keeps.
    #[error("{whose} {limit} label sets ({flag}), and there are as many; delete one first")]
    Full {
        /// Sets that may be kept.
        limit: usize,
        /// For whom they are counted.
        whose: &'static str,
        /// What says so.
        flag: &'static str,
    },
    /// There is no set of that name.
    #[error("there is no label set named {}", quoted(name))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// There is a set of that name, but not of that version.
    #[error("the label set {name:?} has no version {}; it is at {current}", quoted(version))]
    UnknownVersion {
        /// The set.
        name: String,
        /// The version asked for.
        version: String,
        /// The version that it has.
        current: String,
    },
    /// The set is not what the caller took it for.
    #[error("the label set {name:?} {}", match current {
        Some(version) => format!("is at version {version}"),
        None => "does not exist".to_owned(),
    })]
    Changed {
        /// The set.
        name: String,
        /// The version that it has, if it exists.
        current: Option<String>,
    },
    /// The set's texts are being encoded.
    #[error(
        "the label set {name:?} is being encoded for the model {model:?}: {done} of {total} labels are done"
    )]
    Encoding {
        /// The set.
        name: String,
        /// The model.
        model: String,
        /// Labels that are done.
        done: usize,
        /// All labels.
        total: usize,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The set's texts could not be encoded.
    #[error("the label set {name:?} could not be encoded for the model {model:?}: {reason}")]
    Failed {
        /// The set.
        name: String,
        /// The model.
        model: String,
        /// What went wrong.
        reason: String,
    },
    /// There is no room for it in memory.
    #[error(transparent)]
    Memory(#[from] Exceeded),
    /// The model is not there.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The disk or a computation failed.
    #[error("{0}")]
    Fault(String),
}

impl LabelError {
    pub(super) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    pub(super) fn too_large(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::TooLarge { field: field.into(), message: message.into() }
    }
}

/// What a caller sent, in quotation marks: its first 80 bytes, on one line.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let head = &text[..text.floor_char_boundary(MOST)];
    let clean = head.replace(|c: char| c.is_control(), " ");
    format!("\"{clean}{}\"", if head.len() < text.len() { "…" } else { "" })
}
