//! From batches to rows and back: the rows of all batches are one bounded stream into the engine, so that it has work
//! while a batch ends and the next one begins.

use std::pin::pin;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;

use super::answer::Answer;
use super::columns::{CellError, Columns};
use super::read::{Part, Work};
use super::{Answered, Summary, Worker, write};
use crate::bulk::fault::{Fault, Kind};
use crate::bulk::session::{Failures, embed};
use crate::engine::{EngineError, Input, WorkError};

/// Vectors whose labels are asked for at once.
const JUDGED: usize = 256;
/// Bytes of the error of a row at most.
const ERROR_BYTES: usize = 240;

/// What an input came with.
enum Tag {
    /// A row; the first of a batch says how many there are.
    Row { rows: usize },
    /// The end of a batch.
    End(Box<Work>),
    /// The end of the stream.
    Fault(Fault),
}

/// Why a row has no embedding.
enum RowError {
    Cell(CellError),
    Work(WorkError),
    /// It is no row but what a [`Tag`] says.
    Mark,
}

impl From<WorkError> for RowError {
    fn from(error: WorkError) -> Self {
        Self::Work(error)
    }
}

impl From<EngineError> for RowError {
    fn from(error: EngineError) -> Self {
        Self::Work(error.into())
    }
}

/// The rows of one stream on their way.
pub(super) struct Rows<'a> {
    worker: &'a Worker,
    columns: Arc<Columns>,
    answered: Answered,
    results: mpsc::Sender<write::Part>,
    /// The answer to the present batch.
    answer: Option<Answer>,
    /// Rows of it whose labels are not known yet: their vectors, none for those that are errors.
    unjudged: Vec<Option<Arc<[f32]>>>,
    failures: Failures,
    summary: Summary,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        columns: Arc<Columns>,
        answered: Answered,
        results: mpsc::Sender<write::Part>,
    ) -> Self {
        Self {
            worker,
            columns,
            answered,
            results,
            answer: None,
            unjudged: Vec::new(),
            failures: Failures::default(),
            summary: Summary::default(),
        }
    }

    /// Answers every batch.
    pub(super) async fn run(mut self, batches: mpsc::Receiver<Part>) -> Result<Summary, Fault> {
        let worker = self.worker;
        let inputs = inputs(batches);
        let results =
            embed(worker.model.clone(), inputs, (worker.options.max_num_patches, None), worker.window);
        let mut results = pin!(results);
        while let Some((tag, result)) = results.next().await {
            match (tag, result) {
                (Tag::Row { rows }, Ok(embedding)) => {
                    self.failures.end();
                    self.answer(rows).good(&embedding);
                    self.ask_labels(Some(embedding.vector)).await?;
                }
                (Tag::Row { rows }, Err(error)) => {
                    let text = match error {
                        RowError::Work(error) if self.failures.count(&error) => {
                            return Err(Fault::new(Kind::Model, format!("the model fails: {error}")));
                        }
                        RowError::Work(error) => error.to_string(),
                        RowError::Cell(error) => error.to_string(),
                        RowError::Mark => String::new(),
                    };
                    self.answer(rows).bad(short(&text));
                    self.ask_labels(None).await?;
                }
                (Tag::End(work), _) => self.end(*work).await?,
                (Tag::Fault(fault), _) => return Err(fault),
            }
        }
        Ok(self.summary)
    }

    fn answer(&mut self, rows: usize) -> &mut Answer {
        let (worker, answered) = (self.worker, self.answered);
        self.answer.get_or_insert_with(|| {
            Answer::new(rows, worker.model.info().embedding_dim, worker.options.normalize, answered)
        })
    }

    async fn ask_labels(&mut self, vector: Option<Arc<[f32]>>) -> Result<(), Fault> {
        if self.worker.labels.is_some() {
            self.unjudged.push(vector);
            if self.unjudged.len() == JUDGED {
                self.judge().await?;
            }
        }
        Ok(())
    }

    /// Labels of the rows that have none yet.
    async fn judge(&mut self) -> Result<(), Fault> {
        let (Some(labels), Some(answer)) = (&self.worker.labels, &mut self.answer) else { return Ok(()) };
        let rows = std::mem::take(&mut self.unjudged);
        let vectors: Vec<_> = rows.iter().flatten().cloned().collect();
        let judged = match vectors.is_empty() {
            true => Vec::new(),
            false => labels
                .judge(&self.worker.model, vectors)
                .await
                .map_err(|error| Fault::new(Kind::Model, format!("the labels: {error}")))?,
        };
        let mut judged = judged.iter();
        for row in &rows {
            let found = row.as_ref().and_then(|_| judged.next());
            answer.labels(found.map(|judged| labels.best(judged)));
        }
        Ok(())
    }

    /// Gives the batch to the writer.
    async fn end(&mut self, work: Work) -> Result<(), Fault> {
        let rows = work.batch.num_rows();
        self.answer(rows);
        self.judge().await?;
        let Some(answer) = self.answer.take() else { return Ok(()) };
        self.summary.rows += rows;
        self.summary.bad += answer.bad;
        self.summary.batches += 1;
        let wrong = |error| Fault::new(Kind::Output, format!("the output: {error}"));
        let mut columns = self.columns.kept(&work.batch);
        columns.extend(answer.finish().map_err(wrong)?);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.columns.schema), columns, &options);
        let part = write::Part::Batch(batch.map_err(wrong)?, work.permit);
        // Whoever waits for the writer hears why it ended.
        if self.results.send(part).await.is_err() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// The rows of every batch, each batch followed by its end.
fn inputs(batches: mpsc::Receiver<Part>) -> impl Stream<Item = (Tag, Result<Input, RowError>)> {
    let parts = stream::unfold(Some(batches), |batches| async {
        let mut batches = batches?;
        match batches.recv().await {
            Some(Part::Batch(work)) => {
                Some((Inputs::Rows { next: 0, work: Some(Box::new(work)) }, Some(batches)))
            }
            Some(Part::Fault(fault)) => Some((Inputs::Fault(Some(fault)), None)),
            Some(Part::End | Part::Columns(_)) => None,
            // Nobody said that this is the end: the thread was lost.
            None => Some((Inputs::Fault(Some(Fault::input("the input: reading it panicked"))), None)),
        }
    });
    parts.flat_map(stream::iter)
}

/// The inputs of one part.
enum Inputs {
    Rows { next: usize, work: Option<Box<Work>> },
    Fault(Option<Fault>),
}

impl Iterator for Inputs {
    type Item = (Tag, Result<Input, RowError>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Rows { next, work } => {
                let rows = work.as_ref()?.cells.len();
                if *next == rows {
                    return Some((Tag::End(work.take()?), Err(RowError::Mark)));
                }
                let input = work.as_ref()?.cells.get(*next).map_err(RowError::Cell);
                *next += 1;
                Some((Tag::Row { rows }, input))
            }
            Self::Fault(fault) => Some((Tag::Fault(fault.take()?), Err(RowError::Mark))),
        }
    }
}

/// The beginning of an error that is long.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(ERROR_BYTES)]
}
