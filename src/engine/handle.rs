//! What a request holds of a model.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admission::{Asker, Refused};
use super::batch::panic_message;
use super::cache::TextSource;
use super::error::Result;
use super::job::{Class, Lane};
use super::lane::Work;
use super::metrics::Outcome;
use super::model::Model;
use super::runtime::ModelRuntime;
use super::scoring::{Labels, ScoreJob, ScoreOptions, Scored, Waiter};
use super::shared::{Phase, Shared};
use super::state::ModelState;
use super::views::vectors_bytes;
use super::{EmbedOptions, Embedding, EngineError, ImageCost, Input};
use crate::model::{Judged, LabelSet, Levels, Match, ModelError, Question, Scores};
use crate::pipeline::{ModelInfo, OwnClassifier};
use crate::telemetry;
use crate::text::{Canonicalization, TextReading};

/// One model of an [`Engine`](super::Engine). Cheap to clone. It stays the same model when another is loaded under its
/// name: then it serves those who hold it until it has nothing left to do.
#[derive(Clone)]
pub struct ModelHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: Arc<ModelRuntime>,
}

impl ModelHandle {
    pub(super) fn new(shared: Arc<Shared>, runtime: Arc<ModelRuntime>) -> Self {
        Self { shared, runtime }
    }

    pub(super) fn runtime(&self) -> &ModelRuntime {
        &self.runtime
    }

    /// The name that requests use.
    pub fn name(&self) -> &str {
        &self.runtime.name
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        self.runtime.model.info()
    }

    /// The classifier that was trained with the image tower, where there is one.
    pub fn classifier(&self) -> Option<&OwnClassifier> {
        self.runtime.model.classifier()
    }

    /// How the model is.
    pub fn state(&self) -> ModelState {
        self.runtime.state()
    }

    /// The tokens of a text as the model sees them, without padding: the last one is the end token. Runs where it is
    /// called.
    ///
    /// # Errors
    /// If the text cannot be used, or the model has no text tower or no tokenizer.
    pub fn tokens(&self, text: &str) -> Result<Vec<(u32, Option<String>)>> {
        self.tokenizing(|model| {
            let tokens = model.prepare_text(text, None)?;
            Ok(tokens.ids.iter().take(tokens.used).map(|&id| (id, model.token(id))).collect())
        })
    }

    /// How the model reads a text: canonicalised, as ids, and what its context does not hold. Runs where it is called.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub fn reading(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TextReading> {
        self.tokenizing(|model| Ok(model.read_text(text, canonicalization)?))
    }

    /// The token of an id, as the vocabulary writes it; none where there is no such token, or no tokenizer.
    pub fn token(&self, id: u32) -> Option<String> {
        self.runtime.model.token(id)
    }

    fn tokenizing<T>(&self, work: impl FnOnce(&dyn Model) -> Result<T>) -> Result<T> {
        let model = self.runtime.model.as_ref();
        // Unwind safety: the model keeps its invariants, as in a batch.
        let tokenized = catch_unwind(AssertUnwindSafe(|| work(model)));
        tokenized.unwrap_or_else(|panic| {
            let message = panic_message(panic.as_ref());
            tracing::error!(model = self.name(), panic = %message, "tokenising panicked");
            Err(EngineError::Worker(format!("tokenising panicked: {message}")).into())
        })
    }

    /// The labels of each picture that `question` selects, best first, and whether any fits, computed on the model's
    /// workers. `pictures` are embeddings of this model. Dropping the future stops the work within milliseconds.
    ///
    /// # Errors
    /// [`EngineError::Worker`] if the labels, the question or the pictures do not fit together, or labels of another
    /// embedding space are given; [`EngineError::Overloaded`], [`EngineError::TooLarge`], [`EngineError::Deadline`],
    /// [`EngineError::ShuttingDown`].
    pub async fn judge(
        &self,
        pictures: Vec<Arc<[f32]>>,
        labels: Labels,
        scores: Scores,
        question: Question,
        options: ScoreOptions,
    ) -> Result<Scored<Vec<Judged>>, EngineError> {
        let selected = question.ranking.top_k.unwrap_or(usize::MAX).min(labels.len());
        let each = selected.saturating_mul(size_of::<Match>()).saturating_add(size_of::<Judged>());
        let space = Arc::clone(&self.runtime.space);
        let bytes = pictures.len().saturating_mul(each);
        self.score(pictures, labels, bytes, options, move |pictures, labels, stop| {
            labels.into_set(&space)?.judge(&pictures, scores, &question, stop)
        })
        .await
    }

    /// How high the logits of a set's labels are over the pictures of a background, as [`Self::judge`].
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub async fn levels(
        &self,
        pictures: Vec<Arc<[f32]>>,
        labels: Arc<LabelSet>,
        scores: Scores,
        options: ScoreOptions,
    ) -> Result<Scored<Levels>, EngineError> {
        let bytes = labels.len().saturating_mul(2 * size_of::<f64>());
        let space = Arc::clone(&self.runtime.space);
        self.score(pictures, Labels::Set(labels), bytes, options, move |pictures, labels, stop| {
            labels.into_set(&space)?.levels(&pictures, scores, stop)
        })
        .await
    }

    /// Cosine of every picture with every label, `[pictures, labels]`, as [`Self::judge`].
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub async fn cosines(
        &self,
        pictures: Vec<Arc<[f32]>>,
        labels: Labels,
        options: ScoreOptions,
    ) -> Result<Scored<Vec<f32>>, EngineError> {
        let bytes = pictures.len().saturating_mul(labels.len()).saturating_mul(size_of::<f32>());
        let space = Arc::clone(&self.runtime.space);
        self.score(pictures, labels, bytes, options, move |pictures, labels, stop| {
            labels.into_set(&space)?.all_cosines(&pictures, stop)
        })
        .await
    }

    /// A scoring job with an answer of `bytes`.
    async fn score<T: Send + 'static>(
        &self,
        pictures: Vec<Arc<[f32]>>,
        labels: Labels,
        bytes: usize,
        ScoreOptions { deadline, client, tally }: ScoreOptions,
        compute: impl FnOnce(Vec<Arc<[f32]>>, Labels, &dyn Fn() -> bool) -> Result<Option<T>, ModelError>
        + Send
        + 'static,
    ) -> Result<Scored<T>, EngineError> {
        let started = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= started) {
            return Err(self.reject("deadline", EngineError::Deadline(Duration::ZERO)));
        }
        let held = pictures.iter().map(|picture| size_of_val(&**picture)).sum::<usize>();
        let bytes = bytes.saturating_add(held).saturating_add(labels.bytes());
        let asker = Asker { client, class: Class::Interactive, tally };
        let admitted = self.shared.admission.admit_for(&[bytes], &asker, started);
        let mut permits = admitted.map_err(|Refused { reason, error }| self.reject(reason, error))?;
        let Some(permit) = permits.pop() else { return Err(EngineError::ShuttingDown) };
        let waiter = Waiter::new(started, deadline);
        let (count, metrics) = (pictures.len(), &self.runtime.scores);
        let (job, answer) = ScoreJob::new(client, &waiter, permit, metrics, count, move |stop| {
            compute(pictures, labels, stop)
        });
        // From here on, leaving this function early drops the job.
        let forget = ForgetScores { handle: self, client, waiter };
        if self.runtime.queues.enqueue_scores(job).is_err() {
            return Err(match self.runtime.is_retired() {
                true => EngineError::loading(&self.runtime.name, ModelState::Unloaded),
                false => EngineError::ShuttingDown,
            });
        }
        self.runtime.used();
        self.shared.want_towers(&self.runtime);
        let answer = async {
            answer.await.unwrap_or_else(|_| match *self.shared.phase.borrow() {
                Phase::Closed => Err(EngineError::ShuttingDown),
                _ => Err(EngineError::Worker("the scoring job was lost".to_owned())),
            })
        };
        self.in_time(answer, deadline, || forget.waiter.allowed()).await?
    }

    pub(super) fn reject(&self, reason: &'static str, mut error: EngineError) -> EngineError {
        if let EngineError::Overloaded { retry_after, .. } = &mut error {
            *retry_after = spread(*retry_after);
        }
        metrics::counter!(telemetry::REJECTED, "reason" => reason).increment(1);
        error
    }

    /// What a future gives, if it does before the deadline and before the engine is closed. `allowed` is the time that
    /// the error speaks of.
    pub(super) async fn in_time<F: Future>(
        &self,
        future: F,
        deadline: Option<Instant>,
        allowed: impl Fn() -> Duration,
    ) -> Result<F::Output, EngineError> {
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let mut phase = self.shared.phase.subscribe();
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = late => Err(EngineError::Deadline(allowed())),
            _ = phase.wait_for(|&phase| phase == Phase::Closed) => Err(EngineError::ShuttingDown),
        }
    }

    /// Answers what needs no work, and says what the rest will cost.
    pub(super) async fn sort(&self, inputs: Vec<Input>, options: &EmbedOptions) -> Sorted {
        let runtime = &self.runtime;
        let mut sorted = Sorted { results: Vec::with_capacity(inputs.len()), jobs: Vec::new() };
        for (index, input) in inputs.into_iter().enumerate() {
            if index % 16 == 15 {
                // A header is soon read; a thousand are not.
                tokio::task::yield_now().await;
            }
            let (lane, known) = match input {
                Input::Image(bytes) => {
                    let max_num_patches = options.max_num_patches;
                    let known =
                        self.probe(&bytes, max_num_patches).map(|ImageCost { decoded_bytes, tokens }| {
                            let patch = runtime.model.info().image.as_ref().map_or(0, |spec| spec.patch);
                            let (patches, width) = (options.patches, runtime.model.info().embedding_dim);
                            let prepared = tokens
                                .saturating_mul(patch * patch * 3)
                                .saturating_add(vectors_bytes(patches, tokens, width));
                            sorted.jobs.push(Job {
                                index,
                                lane: Lane::Images,
                                tokens,
                                decode_bytes: decoded_bytes,
                                results: 1,
                                bytes: prepared,
                                work: Work::Image { bytes, max_num_patches, patches },
                            });
                            None
                        });
                    (Lane::Images, known)
                }
                Input::Text(text) => {
                    let own = || runtime.model.info().text.as_ref().map(|spec| spec.canonicalization);
                    let source = TextSource::Text(text, options.canonicalization.or_else(own));
                    (Lane::Texts, Ok(self.look_up(index, source, &mut sorted.jobs)))
                }
                Input::TokenIds(ids) => {
                    (Lane::Texts, Ok(self.look_up(index, TextSource::Ids(ids), &mut sorted.jobs)))
                }
            };
            sorted.results.push(match known {
                Ok(Some(embedding)) => {
                    runtime.lane(lane).ended(Outcome::Cached);
                    Some(Ok(embedding))
                }
                Ok(None) => None,
                Err(error) => {
                    runtime.lane(lane).ended(Outcome::Invalid);
                    Some(Err(error))
                }
            });
        }
        sorted
    }

    fn probe(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost> {
        self.probe_with(|model| model.probe_image(bytes, max_num_patches))
    }

    /// Reads a header, whatever happens.
    pub(super) fn probe_with<T>(&self, probe: impl FnOnce(&dyn Model) -> crate::Result<T>) -> Result<T> {
        let model = self.runtime.model.as_ref();
        // Unwind safety: the model keeps its invariants, as in a batch.
        let probed = catch_unwind(AssertUnwindSafe(|| probe(model)));
        probed.map(|probed| Ok(probed?)).unwrap_or_else(|panic| {
            let message = panic_message(panic.as_ref());
            self.runtime.lane(Lane::Images).prepare_panics.increment(1);
            tracing::error!(model = self.name(), panic = %message, "reading a header panicked");
            Err(EngineError::Worker(format!("reading the header panicked: {message}")).into())
        })
    }

    /// The cached embedding of a text, or a job for it.
    fn look_up(&self, index: usize, text: TextSource, jobs: &mut Vec<Job>) -> Option<Embedding> {
        let runtime = &self.runtime;
        let key = self.shared.cache.key(&runtime.space, text);
        if let Some(embedding) = self.shared.cache.get(&key) {
            runtime.lane(Lane::Texts).cache_hits.increment(1);
            return Some(embedding);
        }
        let tokens = runtime.model.info().text.as_ref().map_or(0, |spec| spec.context);
        let bytes = tokens * size_of::<u32>();
        let (lane, work) = (Lane::Texts, Work::Text(key));
        jobs.push(Job { index, results: 1, lane, tokens, decode_bytes: 0, bytes, work });
        None
    }
}

/// A time to come back, longer by up to a quarter: those who were refused together should not come back together.
fn spread(time: Duration) -> Duration {
    let share = RandomState::new().hash_one(()) % 256;
    time + time.mul_f64(share as f64 / 1024.0)
}

/// The inputs of a request before admission.
pub(super) struct Sorted {
    /// What is known already, in the order of the inputs.
    pub(super) results: Vec<Option<Result<Embedding>>>,
    /// The others.
    pub(super) jobs: Vec<Job>,
}

/// An input that is to be computed.
pub(super) struct Job {
    /// Place of its first result.
    pub(super) index: usize,
    /// Results that it gives, at least one.
    pub(super) results: usize,
    pub(super) lane: Lane,
    pub(super) work: Work,
    pub(super) tokens: usize,
    pub(super) decode_bytes: usize,
    /// What each of its results holds while it waits.
    pub(super) bytes: usize,
}

/// Takes out a scoring job when it is dropped; that of an answered one is gone already.
struct ForgetScores<'a> {
    handle: &'a ModelHandle,
    client: u64,
    waiter: Arc<Waiter>,
}

impl Drop for ForgetScores<'_> {
    fn drop(&mut self) {
        self.waiter.leave();
        drop(self.handle.runtime.queues.forget_scores(self.client, &self.waiter));
        self.handle.shared.free_if_done(&self.handle.runtime);
    }
}
