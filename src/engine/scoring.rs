//! Scores of pictures against labels: jobs that the model's workers compute between their batches.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::admission::Permit;
use super::batch::panic_message;
use super::metrics::{LaneMetrics, Outcome};
use super::{EngineError, Timings};
use crate::budget::Tally;
use crate::model::{LabelSet, ModelError};

/// Labels that pictures are scored against.
#[derive(Debug, Clone)]
pub enum Labels {
    /// Labels of one request. The worker packs them.
    Inline {
        /// What they are called.
        names: Arc<[Arc<str>]>,
        /// The embeddings of each label's texts, one label after the other.
        texts: Vec<Arc<[f32]>>,
        /// Texts per label.
        templates: usize,
    },
    /// A set that was packed before.
    Set(Arc<LabelSet>),
}

impl Labels {
    /// Texts that have no names, each a label of its own.
    pub fn unnamed(texts: Vec<Arc<[f32]>>) -> Self {
        let nameless: Arc<str> = "".into();
        let names = std::iter::repeat_n(nameless, texts.len()).collect();
        Self::Inline { names, texts, templates: 1 }
    }

    /// Number of labels.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Inline { names, .. } => names.len(),
            Self::Set(set) => set.len(),
        }
    }

    /// Bytes that a job with them holds: embeddings, and their packed directions.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Inline { texts, .. } => 2 * texts.iter().map(|text| size_of_val(&**text)).sum::<usize>(),
            Self::Set(_) => 0,
        }
    }

    /// The packed set in the embedding space of a model.
    pub(super) fn into_set(self, space: &Arc<str>) -> Result<Arc<LabelSet>, ModelError> {
        match self {
            Self::Inline { names, texts, templates } => {
                Ok(Arc::new(LabelSet::new(names, &texts, templates, Arc::clone(space))?))
            }
            Self::Set(set) if set.space() == space => Ok(set),
            Self::Set(set) => {
                let text = format!("labels of the embedding space {} for a model of {space}", set.space());
                Err(ModelError::Input(text))
            }
        }
    }
}

/// What is the same for all pictures of a scoring job.
#[derive(Debug, Clone, Default)]
pub struct ScoreOptions {
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
    /// Who asks, for fairness between clients.
    pub client: u64,
    /// What the memory of the request sums up to, where it holds any already.
    pub tally: Option<Tally>,
}

/// The answer of a scoring job.
#[derive(Debug)]
pub struct Scored<T> {
    /// The scores.
    pub value: T,
    /// `queue` and `inference` of the job.
    pub timings: Timings,
}

/// Whoever waits for a scoring job.
pub(super) struct Waiter {
    started: Instant,
    deadline: Option<Instant>,
    gone: AtomicBool,
}

impl Waiter {
    pub(super) fn new(started: Instant, deadline: Option<Instant>) -> Arc<Self> {
        Arc::new(Self { started, deadline, gone: AtomicBool::new(false) })
    }

    /// Nobody waits any more.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// The time that was allowed.
    pub(super) fn allowed(&self) -> Duration {
        self.deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(self.started))
    }

    /// Why there is no point in computing.
    fn end(&self, now: Instant) -> Option<Outcome> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            Some(Outcome::Expired)
        } else {
            self.gone.load(Ordering::Acquire).then_some(Outcome::Cancelled)
        }
    }
}

/// Gives the answer to whoever waits.
type Answer = Box<dyn FnOnce(Timings) + Send>;
/// Computes, asking now and then whether to stop, or fails as it is told.
type Compute = Box<dyn FnOnce(Result<&dyn Fn() -> bool, EngineError>) -> (Outcome, Answer) + Send>;

/// One admitted job. Dropped before it ran, it answers nothing: whoever waits notices.
pub(super) struct ScoreJob {
    pub(super) client: u64,
    waiter: Arc<Waiter>,
    permit: Option<Permit>,
    metrics: Arc<LaneMetrics>,
    pictures: usize,
    since: Instant,
    compute: Option<Compute>,
}

impl ScoreJob {
    /// A job and where its answer comes. `compute` gives `None` where it was told to stop.
    pub(super) fn new<T: Send + 'static>(
        client: u64,
        waiter: &Arc<Waiter>,
        permit: Permit,
        metrics: &Arc<LaneMetrics>,
        pictures: usize,
        compute: impl FnOnce(&dyn Fn() -> bool) -> Result<Option<T>, ModelError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<Scored<T>, EngineError>>) {
        let (sender, receiver) = oneshot::channel();
        let compute = move |stop: Result<&dyn Fn() -> bool, EngineError>| -> (Outcome, Answer) {
            // Unwind safety: the closure is gone after a panic, and so is what it captured.
            let result = stop.map(|stop| {
                catch_unwind(AssertUnwindSafe(|| compute(stop)))
                    .unwrap_or_else(|panic| Err(ModelError::Input(panic_message(panic.as_ref()))))
            });
            let (outcome, value) = match result {
                Ok(Ok(Some(value))) => (Outcome::Ok, Ok(value)),
                // The waiter is gone.
                Ok(Ok(None)) => return (Outcome::Cancelled, Box::new(|_| {})),
                Ok(Err(error)) => (Outcome::Failed, Err(EngineError::Worker(error.to_string()))),
                Err(error) => (Outcome::Stopped, Err(error)),
            };
            let answer = move |timings| {
                // An error means that nobody waits any more.
                let _ = sender.send(value.map(|value| Scored { value, timings }));
            };
            (outcome, Box::new(answer))
        };
        let job = Self {
            client,
            waiter: Arc::clone(waiter),
            permit: Some(permit),
            metrics: Arc::clone(metrics),
            pictures,
            since: Instant::now(),
            compute: Some(Box::new(compute)),
        };
        (job, receiver)
    }

    pub(super) fn belongs_to(&self, waiter: &Arc<Waiter>) -> bool {
        Arc::ptr_eq(&self.waiter, waiter)
    }

    /// Computes and answers, unless nobody waits.
    pub(super) fn run(mut self) {
        let start = Instant::now();
        if self.waiter.end(start).is_some() {
            return;
        }
        let Some(compute) = self.compute.take() else { return };
        let waiter = Arc::clone(&self.waiter);
        let (outcome, answer) = compute(Ok(&|| waiter.end(Instant::now()).is_some()));
        let inference = start.elapsed();
        let queue = start.saturating_duration_since(self.since);
        self.metrics.batch_items.record(self.pictures as f64);
        self.metrics.inference.record(inference);
        self.end(outcome, queue);
        answer(Timings { queue, inference, ..Timings::default() });
    }

    /// Answers with an error.
    pub(super) fn fail(mut self, error: EngineError) {
        let Some(compute) = self.compute.take() else { return };
        let queue = self.since.elapsed();
        let (outcome, answer) = compute(Err(error));
        self.end(outcome, queue);
        answer(Timings { queue, ..Timings::default() });
    }

    /// Counts the job and frees its place, before its answer is out.
    fn end(&mut self, outcome: Outcome, queue: Duration) {
        let Some(mut permit) = self.permit.take() else { return };
        // A job is no input: it says nothing about the rate at which inputs leave.
        permit.release(None);
        self.metrics.ended(outcome);
        self.metrics.queue_wait.record(queue);
    }
}

impl Drop for ScoreJob {
    fn drop(&mut self) {
        let now = Instant::now();
        let outcome = self.waiter.end(now).unwrap_or(Outcome::Stopped);
        self.end(outcome, now.saturating_duration_since(self.since));
    }
}

impl fmt::Debug for ScoreJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScoreJob({} pictures)", self.pictures)
    }
}
