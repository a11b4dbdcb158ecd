//! What goes into the engine and what comes out.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::WorkError;
use crate::budget::Tally;
use crate::image::Grid;
use crate::model::PatchVectors;
use crate::text::Canonicalization;

/// Pictures and texts queue apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Images,
    Texts,
}

impl Lane {
    pub(super) const ALL: [Self; 2] = [Self::Images, Self::Texts];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Images => "image",
            Self::Texts => "text",
        }
    }
}

/// How urgent work is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Bulk work: it takes only what interactive work leaves, at most half of the queue's places, and yields within
    /// one batch.
    Background,
}

impl Class {
    pub(super) const ALL: [Self; 2] = [Self::Interactive, Self::Background];
}

/// What happens to inputs for which there is no room now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// They are refused at once.
    #[default]
    Refuse,
    /// They wait, in the order in which they came.
    Wait,
}

/// The order of the results of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// That of the inputs.
    AsSent,
    /// As they are computed.
    AsCompleted,
}

/// One thing to embed.
#[derive(Debug, Clone)]
pub enum Input {
    /// A picture as it was sent, in any of the formats of [`crate::image`].
    Image(Bytes),
    /// A text.
    Text(String),
    /// A text as token ids, without padding.
    TokenIds(Vec<u32>),
}

/// What is the same for all inputs of a request.
#[derive(Debug, Clone, Default)]
pub struct EmbedOptions {
    /// Another canonicalisation than the checkpoint's.
    pub canonicalization: Option<Canonicalization>,
    /// Another patch budget than the checkpoint's, NaFlex only.
    pub max_num_patches: Option<usize>,
    /// What is made of the patches of a picture instead of its embedding.
    pub patches: Option<PatchVectors>,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
    /// Who asks, for fairness between clients; requests with the same key share a turn.
    pub client: u64,
    /// What the memory of the request sums up to, where it holds any already: what never fits with that is refused for good.
    pub tally: Option<Tally>,
    /// Whether what is done at the deadline is answered, instead of nothing; the rest is then an error in its place.
    pub partial: bool,
    /// How urgent it is.
    pub class: Class,
    /// What to do where there is no room.
    pub when_full: WhenFull,
    /// Whether nobody is expected to ask for these texts again: they are looked up in the cache, but push nothing out of it.
    pub transient: bool,
}

/// One embedding, not normalised.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// The vector as the tower gives it; with [`EmbedOptions::patches`] what is made of its patches, row by row.
    pub vector: std::sync::Arc<[f32]>,
    /// Tokens that the tower saw which carry content: patches, or text ids without padding.
    pub tokens: usize,
    /// Height and width of a picture.
    pub size: Option<(u32, u32)>,
    /// Patches of a picture.
    pub grid: Option<Grid>,
    /// Whether a text was cut at the context length.
    pub truncated: bool,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// Where the time of a request went; each is the longest of its inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Decoding, resizing, patches.
    pub decode: Duration,
    /// Canonicalisation and tokens.
    pub tokenize: Duration,
    /// Waiting for a preparation thread and for a worker.
    pub queue: Duration,
    /// In a batch on a worker.
    pub inference: Duration,
}

impl Timings {
    /// With what came after it.
    #[must_use]
    pub fn and(self, after: Self) -> Self {
        Self {
            decode: self.decode + after.decode,
            tokenize: self.tokenize + after.tokenize,
            queue: self.queue + after.queue,
            inference: self.inference + after.inference,
        }
    }
}

/// The answer to a request: one result an input, in the order they came.
#[derive(Debug)]
pub struct Output {
    /// A bad input is an error in its place and spoils no other.
    pub results: Vec<Result<Embedding, WorkError>>,
    /// Where the time went.
    pub timings: Timings,
}
