//! Arrow streams answered with Arrow streams: the same rows in the same order and the same batches, with their embeddings.
//!
//! ```text
//! input ──► reader (a thread): frames ─ columns ─► [1] ──► rows ─► engine ─► answer ──► [1] ──► writer (a thread) ──► output
//!              waits for the gate                     a bounded stream, over the ends of batches
//! ```
//!
//! - The size of a batch is checked before its body is read ([`frames`]), with that of what is made of it.
//! - A gate ([`crate::bulk::gate`]) holds the batches of a stream to twice the largest: one is read while another is computed
//!   or written. When the output is not read, nothing more is taken from the input.
//! - A row that cannot be embedded has an error in its place; only a stream that cannot be read and a model that is broken
//!   end it.

mod answer;
mod columns;
mod frames;
mod labels;
#[cfg(unix)]
mod listen;
mod read;
mod rows;
mod write;

use std::io::{Read, Write};

use tokio::sync::mpsc;

use self::rows::Rows;
use crate::bulk::Session;
use crate::bulk::fault::{Fault, Kind as FaultKind};
use crate::bulk::gate::Gate;
use crate::engine::ModelHandle;

pub(super) use columns::{Cells, MAX_TEXT_BYTES};
pub use columns::{Kind, Wanted};
pub(super) use frames::Frames;
pub use labels::RowLabels;
#[cfg(unix)]
pub use listen::{Address, Listener};

/// What a batch may take at most: above this, offsets of 32 bits would not do.
pub const MAX_BATCH_BYTES: usize = i32::MAX as usize;
/// What the names and errors of a row take at most, and what it takes in the engine.
const ROW_BYTES: usize = 512;

/// Numbers of the vectors that are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EmbeddingType {
    /// Single precision.
    #[default]
    F32,
    /// Half precision.
    F16,
}

/// What is added to rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answered {
    /// Numbers of the vectors.
    pub embedding: EmbeddingType,
    /// Whether there are labels, and whether there are lists of them of a length.
    pub labels: Option<Option<usize>>,
}

/// How streams are worked on.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Which column.
    pub wanted: Wanted,
    /// Whether it goes through, too.
    pub keep_input: bool,
    /// Numbers of the vectors.
    pub embedding: EmbeddingType,
    /// Whether vectors have the length 1.
    pub normalize: bool,
    /// Patch budget of each picture, NaFlex only.
    pub max_num_patches: Option<usize>,
    /// Bytes of a batch and its answer at most; no more than [`MAX_BATCH_BYTES`].
    pub max_batch_bytes: usize,
    /// Lists of so many labels beside the best one.
    pub top_k: Option<usize>,
}

/// One model, and what it does to streams.
pub struct Worker {
    model: ModelHandle,
    window: usize,
    labels: Option<RowLabels>,
    options: WorkerOptions,
    /// What the metadata of every answer says.
    facts: Vec<(String, String)>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that were written.
    pub rows: usize,
    /// Those of them that are errors.
    pub bad: usize,
    /// Record batches.
    pub batches: usize,
}

impl Worker {
    /// A worker with the model of a session, which must outlive it.
    pub fn new(session: &Session, labels: Option<RowLabels>, mut options: WorkerOptions) -> Self {
        options.max_batch_bytes = options.max_batch_bytes.min(MAX_BATCH_BYTES);
        let facts = facts(session, &options);
        Self { model: session.model().clone(), window: session.window(), labels, options, facts }
    }

    /// What the metadata of every answer says: which model made it, and how.
    pub fn facts(&self) -> &[(String, String)] {
        &self.facts
    }

    /// Answers one stream. Within a tokio runtime.
    ///
    /// What was read before the input broke is answered; then the output ends without the mark of an end.
    ///
    /// # Errors
    /// If the input is not such a stream, the output cannot be written, or the model fails.
    pub async fn answer(
        &self,
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> Result<Summary, Fault> {
        // The gate opens for a batch that needs all of it; twice that lets the next one be read meanwhile.
        let gate = Gate::new(self.options.max_batch_bytes as u64 * 2);
        let frames = Frames::new(input, self.options.max_batch_bytes, self.row_bytes(), gate);
        let (sender, mut batches) = mpsc::channel(1);
        let answered = self.answered();
        let plan = {
            let (options, info, facts) =
                (self.options.clone(), self.model.info().clone(), self.facts.clone());
            move |schema: &arrow_schema::Schema| {
                columns::Columns::plan(schema, &options.wanted, options.keep_input, answered, &info, &facts)
            }
        };
        read::start(frames, plan, sender)?;
        let columns = match batches.recv().await {
            Some(read::Part::Columns(columns)) => columns,
            Some(read::Part::Fault(fault)) => return Err(fault),
            _ => return Err(Fault::input("the input ended before its schema")),
        };
        let (results, mut written) = write::start(output, columns.schema.clone())?;
        let rows = Rows::new(self, columns, answered, results.clone());
        let done = tokio::select! {
            biased;
            done = rows.run(batches) => done,
            // It ends before the rows do only if it failed.
            failed = &mut written => {
                return match failed {
                    Ok(Err(fault)) => Err(fault),
                    _ => Err(Fault::new(FaultKind::Output, "the output ended early")),
                };
            }
        };
        if done.is_ok() {
            let _ = results.send(write::Part::End).await;
        }
        drop(results);
        // What was computed is written whatever came after it.
        let written =
            written.await.unwrap_or_else(|_| Err(Fault::new(FaultKind::Output, "the writer was lost")));
        let summary = done?;
        written?;
        Ok(summary)
    }

    fn answered(&self) -> Answered {
        let labels = self.labels.as_ref().map(|_| self.options.top_k);
        Answered { embedding: self.options.embedding, labels }
    }

    /// Bytes that are made of each row.
    fn row_bytes(&self) -> usize {
        let number = match self.options.embedding {
            EmbeddingType::F32 => size_of::<f32>(),
            EmbeddingType::F16 => size_of::<u16>(),
        };
        self.model.info().embedding_dim * number
            + ROW_BYTES
            + self.labels.as_ref().map_or(0, RowLabels::row_bytes)
    }
}

/// What the metadata of every answer says.
fn facts(session: &Session, options: &WorkerOptions) -> Vec<(String, String)> {
    crate::bulk::facts::facts(session.info(), options.max_num_patches, options.normalize)
}
