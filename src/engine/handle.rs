//! The engine's front: what the service and the commands hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::admission::{Admission, Refused};
use super::batch::panic_message;
use super::cache::{TextCache, TextKey, TextSource};
use super::health::Health;
use super::lane::{Lane, Waiting, Work};
use super::metrics::{LaneMetrics, Outcome};
use super::request::{Request, Ticket};
use super::scheduler::Scheduler;
use super::{EmbedOptions, Embedding, EngineConfig, EngineError, ImageCost, Input, Model, Output, Timings};
use super::{prepare, worker};
use crate::pipeline::ModelInfo;
use crate::{Error, Result, telemetry};

/// All models of the process behind one admission. Cheap to clone; when the last clone is gone,
/// the threads end.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// One model of an [`Engine`]. Cheap to clone.
#[derive(Clone)]
pub struct ModelHandle {
    shared: Arc<Shared>,
    index: usize,
}

/// What the engine holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Inputs admitted and not yet answered.
    pub items: usize,
    /// Bytes that they hold.
    pub bytes: usize,
    /// Bytes of decoded pixels on the preparation threads.
    pub decode_bytes: usize,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Inputs that were in the engine when the drain began and left it.
    pub finished: usize,
    /// Inputs that were answered with [`EngineError::ShuttingDown`] when the time was up.
    pub abandoned: usize,
    /// How long it took.
    pub waited: Duration,
}

struct Inner {
    models: Vec<ModelHandle>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the handles and the threads share.
pub(super) struct Shared {
    pub(super) models: Vec<ModelEntry>,
    pub(super) scheduler: Scheduler,
    pub(super) cache: TextCache,
    admission: Arc<Admission>,
    phase: watch::Sender<Phase>,
    warm: watch::Sender<Warm>,
}

/// A model and its metrics.
pub(super) struct ModelEntry {
    pub(super) name: Arc<str>,
    pub(super) model: Arc<dyn Model>,
    /// Of each replica.
    pub(super) health: Vec<Health>,
    lanes: [Arc<LaneMetrics>; 2],
}

impl ModelEntry {
    /// The metrics of a lane.
    pub(super) fn lane(&self, lane: Lane) -> &Arc<LaneMetrics> {
        &self.lanes[lane as usize]
    }

    /// Whether no replica works.
    pub(super) fn is_failing(&self) -> bool {
        self.health.iter().all(Health::is_failing)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Takes nothing new.
    Draining,
    /// Answers nothing any more.
    Closed,
}

#[derive(Debug, Clone)]
struct Warm {
    /// Replicas of models that are not warm yet.
    missing: usize,
    error: Option<EngineError>,
}

impl Engine {
    /// Starts the threads and the warm-up of every model; returns at once. The first model is the
    /// one that a request without a name gets; of several with one name the first is found.
    ///
    /// Install the metrics recorder before, or nothing is recorded.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(models: Vec<(String, Arc<dyn Model>)>, config: EngineConfig) -> Self {
        let models: Vec<ModelEntry> = models
            .into_iter()
            .map(|(name, model)| {
                let lanes = Lane::ALL.map(|lane| Arc::new(LaneMetrics::new(&name, lane)));
                let health = (0..model.replicas().max(1)).map(|_| Health::default()).collect();
                ModelEntry { name: name.into(), model, health, lanes }
            })
            .collect();
        let lanes: Vec<_> = models.iter().map(|entry| entry.lanes.clone()).collect();
        let workers_per_replica = config.workers_per_model.max(1);
        let workers: Vec<_> = models.iter().map(|entry| entry.health.len() * workers_per_replica).collect();
        let missing = if config.warm_up { models.iter().map(|entry| entry.health.len()).sum() } else { 0 };
        let shared = Arc::new(Shared {
            scheduler: Scheduler::new(&lanes, &workers, &config),
            cache: TextCache::new(config.cache_bytes),
            admission: Admission::new(config.max_queue_items, config.max_queue_bytes),
            phase: watch::Sender::new(Phase::Running),
            warm: watch::Sender::new(Warm { missing, error: None }),
            models,
        });

        let mut threads = Vec::new();
        for (lane, count) in [(Lane::Images, config.prepare_threads), (Lane::Texts, config.tokenize_threads)]
        {
            for i in 0..count.max(1) {
                let name = format!("prepare-{}-{i}", lane.label());
                threads.push(spawn(name, &shared, move |shared| prepare::run(shared, lane)));
            }
        }
        for (model, &workers) in workers.iter().enumerate() {
            for i in 0..workers {
                let replica = i / workers_per_replica;
                let mut cold = config.warm_up && i % workers_per_replica == 0;
                threads.push(spawn(format!("model-{model}-{i}"), &shared, move |shared| {
                    if std::mem::take(&mut cold) {
                        shared.warm_up(model, replica);
                    }
                    worker::run(shared, model, replica);
                }));
            }
        }
        let handle = |index| ModelHandle { shared: Arc::clone(&shared), index };
        let models = (0..shared.models.len()).map(handle).collect();
        Self { inner: Arc::new(Inner { models, shared, threads: Mutex::new(threads) }) }
    }

    /// Every model, in the order they were given.
    pub fn models(&self) -> &[ModelHandle] {
        &self.inner.models
    }

    /// The model of that name; the first one for `None`.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`] with the names there are.
    pub fn model(&self, name: Option<&str>) -> Result<&ModelHandle, EngineError> {
        let models = self.models();
        let found = match name {
            Some(name) => models.iter().find(|model| model.name() == name),
            None => models.first(),
        };
        found.ok_or_else(|| EngineError::UnknownModel {
            name: name.unwrap_or_default().to_owned(),
            known: models.iter().map(|model| model.name().to_owned()).collect(),
        })
    }

    /// Whether requests should be sent here: every model is warm and works, and the engine is not draining.
    pub fn ready(&self) -> bool {
        let shared = &self.inner.shared;
        let warm = shared.warm.borrow();
        let warm = warm.missing == 0 && warm.error.is_none();
        warm && !self.failing() && *shared.phase.borrow() == Phase::Running
    }

    /// Whether a model fails on every batch, on inputs known to be good too: its device is lost, or out of memory for
    /// good. Such a model is tried again every few seconds.
    pub fn failing(&self) -> bool {
        self.inner.shared.models.iter().any(ModelEntry::is_failing)
    }

    /// Waits until every model is warm.
    ///
    /// # Errors
    /// [`EngineError::Worker`] with the first error of a warm-up batch,
    /// [`EngineError::ShuttingDown`] if the engine was stopped before.
    pub async fn warmed_up(&self) -> Result<(), EngineError> {
        let shared = &self.inner.shared;
        let (mut warm, mut phase) = (shared.warm.subscribe(), shared.phase.subscribe());
        tokio::select! {
            biased;
            warm = warm.wait_for(|warm| warm.missing == 0 || warm.error.is_some()) => {
                // The sender lives as long as `self`.
                warm.ok().and_then(|warm| warm.error.clone()).map_or(Ok(()), Err)
            }
            _ = phase.wait_for(|&phase| phase != Phase::Running) => Err(EngineError::ShuttingDown),
        }
    }

    /// What is in the engine now.
    pub fn load(&self) -> Load {
        let shared = &self.inner.shared;
        let (items, bytes) = shared.admission.load();
        Load { items, bytes, decode_bytes: shared.scheduler.decode_bytes() }
    }

    /// Refuses new requests, waits until everything admitted is answered, then ends the threads.
    /// What is left after `timeout` is answered with [`EngineError::ShuttingDown`].
    pub async fn drain(&self, timeout: Duration) -> DrainReport {
        let (start, shared) = (Instant::now(), &self.inner.shared);
        shared.admission.close();
        shared.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Draining;
            }
            running
        });
        let held = shared.admission.unanswered();
        // Whether the time was up is seen by what is left.
        let _ = tokio::time::timeout(timeout, shared.admission.idle()).await;
        let abandoned = shared.admission.unanswered();
        shared.close();
        if abandoned == 0 {
            // Every thread is idle or about to be; a device is best left by a process without them.
            let threads = std::mem::take(&mut *self.inner.threads());
            let joined = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|t| drop(t.join())));
            let _ = tokio::time::timeout(timeout.saturating_sub(start.elapsed()), joined).await;
        }
        DrainReport { finished: held - abandoned.min(held), abandoned, waited: start.elapsed() }
    }
}

impl Inner {
    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Starts a thread that goes on after a panic of its own: batches and preparations catch theirs,
/// so that this would be a fault of the engine, and the tickets that it held answer for themselves.
fn spawn(
    name: String,
    shared: &Arc<Shared>,
    mut run: impl FnMut(&Shared) + Send + 'static,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    let body = move || {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&shared))) {
            let message = panic_message(panic.as_ref());
            tracing::error!(panic = %message, "a thread of the engine panicked; it goes on");
        }
    };
    std::thread::Builder::new().name(name).spawn(body).expect("the system gives a thread")
}

impl Shared {
    fn close(&self) {
        self.admission.close();
        self.phase.send_replace(Phase::Closed);
        self.scheduler.close();
    }

    fn warm_up(&self, model: usize, replica: usize) {
        let entry = &self.models[model];
        let start = Instant::now();
        let result = worker::warm_up(entry, replica);
        let seconds = start.elapsed().as_secs_f64();
        match &result {
            Ok(()) => tracing::info!(model = %entry.name, replica, seconds, "the model is warm"),
            Err(error) => tracing::error!(model = %entry.name, replica, %error, "the warm-up batch failed"),
        }
        self.warm.send_modify(|warm| match result {
            Ok(()) => warm.missing -= 1,
            Err(error) => {
                let text = format!("{}: {error}", entry.name);
                warm.error.get_or_insert(EngineError::Worker(text));
            }
        });
    }
}

impl ModelHandle {
    /// The name that requests use.
    pub fn name(&self) -> &str {
        &self.entry().name
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        self.entry().model.info()
    }

    /// Embeds the inputs of one request; the results are in their order. Dropping the future drops
    /// its inputs wherever they wait. Polled inside a tokio runtime with its clock on.
    ///
    /// A result is an error in its place when the input is bad ([`Error::Image`], [`Error::Text`],
    /// [`Error::Request`]) or when the model failed on it ([`EngineError::Worker`] inside
    /// [`Error::Engine`], or [`Error::Compute`]).
    ///
    /// # Errors
    /// For the request as a whole: [`EngineError::Overloaded`], [`EngineError::TooLarge`],
    /// [`EngineError::Deadline`], [`EngineError::ShuttingDown`].
    pub async fn embed(&self, inputs: Vec<Input>, options: EmbedOptions) -> Result<Output, EngineError> {
        let (started, deadline) = (Instant::now(), options.deadline);
        if deadline.is_some_and(|deadline| deadline <= started) {
            return Err(self.reject("deadline", EngineError::Deadline(Duration::ZERO)));
        }
        let Sorted { results, mut jobs } = self.sort(inputs, &options).await;
        if jobs.is_empty() {
            let results = results.into_iter().flatten().collect();
            return Ok(Output { results, timings: Timings::default() });
        }

        let now = Instant::now();
        let costs: Vec<usize> = jobs.iter().map(|job| job.bytes).collect();
        let admitted = self.shared.admission.admit(&costs, options.client, now);
        let permits = admitted.map_err(|Refused { reason, error }| self.reject(reason, error))?;
        let (request, output) = Request::new(options.client, started, deadline, results);
        // From here on, leaving this function early drops what is queued.
        let mut presence = Presence { handle: self, request: &request, end: Some("gone") };
        let items = jobs.drain(..).zip(permits).map(|(job, permit)| {
            let Job { index, lane, work, tokens, decode_bytes, .. } = job;
            let ticket = Ticket::new(&request, index, permit, self.entry().lane(lane), now);
            (lane, Waiting { ticket, work, tokens, decode_bytes })
        });
        if let Err(tickets) = self.shared.scheduler.enqueue(self.index, items.collect()) {
            tickets.into_iter().for_each(Ticket::stop);
        }
        let result = self.wait(output, deadline, &request).await;
        presence.end = match &result {
            Ok(_) => None,
            Err(EngineError::Deadline(_)) => Some("deadline"),
            Err(_) => Some("stopping"),
        };
        result
    }

    fn reject(&self, reason: &'static str, error: EngineError) -> EngineError {
        metrics::counter!(telemetry::REJECTED, "reason" => reason).increment(1);
        error
    }

    async fn wait(
        &self,
        output: oneshot::Receiver<Output>,
        deadline: Option<Instant>,
        request: &Request,
    ) -> Result<Output, EngineError> {
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let mut phase = self.shared.phase.subscribe();
        let output = tokio::select! {
            biased;
            output = output => output.map_err(|_| EngineError::Worker("the request was lost".to_owned()))?,
            () = late => return Err(EngineError::Deadline(request.allowed())),
            _ = phase.wait_for(|&phase| phase == Phase::Closed) => return Err(EngineError::ShuttingDown),
        };
        // These are about the request, wherever they were noticed.
        let whole = output.results.iter().find_map(|result| match result {
            Err(Error::Engine(error @ (EngineError::Deadline(_) | EngineError::ShuttingDown))) => Some(error),
            _ => None,
        });
        whole.cloned().map_or(Ok(output), Err)
    }

    /// Answers what needs no work, and says what the rest will cost.
    async fn sort(&self, inputs: Vec<Input>, options: &EmbedOptions) -> Sorted {
        let entry = self.entry();
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
                            let patch = entry.model.info().image.as_ref().map_or(0, |spec| spec.patch);
                            let prepared = tokens.saturating_mul(patch * patch * 3);
                            sorted.jobs.push(Job {
                                index,
                                lane: Lane::Images,
                                tokens,
                                decode_bytes: decoded_bytes,
                                bytes: bytes.len().saturating_add(prepared),
                                work: Work::Image { bytes, max_num_patches },
                            });
                            None
                        });
                    (Lane::Images, known)
                }
                Input::Text(text) => {
                    let own = || entry.model.info().text.as_ref().map(|spec| spec.canonicalization);
                    let source = TextSource::Text(text, options.canonicalization.or_else(own));
                    (Lane::Texts, Ok(self.look_up(index, source, &mut sorted.jobs)))
                }
                Input::TokenIds(ids) => {
                    (Lane::Texts, Ok(self.look_up(index, TextSource::Ids(ids), &mut sorted.jobs)))
                }
            };
            sorted.results.push(match known {
                Ok(Some(embedding)) => {
                    entry.lane(lane).ended(Outcome::Cached);
                    Some(Ok(embedding))
                }
                Ok(None) => None,
                Err(error) => {
                    entry.lane(lane).ended(Outcome::Invalid);
                    Some(Err(error))
                }
            });
        }
        sorted
    }

    fn probe(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost> {
        let model = self.entry().model.as_ref();
        // Unwind safety: the model keeps its invariants, as in a batch.
        catch_unwind(AssertUnwindSafe(|| model.probe_image(bytes, max_num_patches))).unwrap_or_else(|panic| {
            let message = panic_message(panic.as_ref());
            self.entry().lane(Lane::Images).prepare_panics.increment(1);
            tracing::error!(model = self.name(), panic = %message, "reading a header panicked");
            Err(EngineError::Worker(format!("reading the header panicked: {message}")).into())
        })
    }

    /// The cached embedding of a text, or a job for it.
    fn look_up(&self, index: usize, text: TextSource, jobs: &mut Vec<Job>) -> Option<Embedding> {
        let entry = self.entry();
        let key = Arc::new(TextKey { model: self.index, text });
        if let Some(embedding) = self.shared.cache.get(&key) {
            entry.lane(Lane::Texts).cache_hits.increment(1);
            return Some(embedding);
        }
        let tokens = entry.model.info().text.as_ref().map_or(0, |spec| spec.context);
        let bytes = key.text.bytes().saturating_add(tokens * size_of::<u32>());
        jobs.push(Job { index, lane: Lane::Texts, tokens, decode_bytes: 0, bytes, work: Work::Text(key) });
        None
    }

    fn entry(&self) -> &ModelEntry {
        &self.shared.models[self.index]
    }
}

/// The inputs of a request before admission.
struct Sorted {
    /// What is known already, in the order of the inputs.
    results: Vec<Option<Result<Embedding>>>,
    /// The others.
    jobs: Vec<Job>,
}

struct Job {
    index: usize,
    lane: Lane,
    work: Work,
    tokens: usize,
    decode_bytes: usize,
    /// What it holds while it waits.
    bytes: usize,
}

/// Somebody waits for a request. Unless it was answered, it is forgotten when this is dropped.
struct Presence<'a> {
    handle: &'a ModelHandle,
    request: &'a Arc<Request>,
    /// Why it ends without an answer.
    end: Option<&'static str>,
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.end {
            metrics::counter!(telemetry::CANCELLED, "reason" => reason).increment(1);
            self.request.leave();
            self.handle.shared.scheduler.forget(self.handle.index, self.request);
        }
    }
}
