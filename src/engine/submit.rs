//! Inputs into the engine: the inputs of a request together, one input with a ticket, or a bounded stream of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{Stream, StreamExt};
use tokio::sync::oneshot;

use super::admission::{Asker, Refused};
use super::error::{Result, WorkError};
use super::handle::{Job, Sorted};
use super::job::{Lane, Order, WhenFull};
use super::lane::Waiting;
use super::pace::Outlook;
use super::request::{Request, Ticket};
use super::state::ModelState;
use super::{EmbedOptions, Embedding, EngineError, Input, ModelHandle, Output, Timings};
use crate::telemetry;

/// An input that was admitted: a future of its embedding. Dropping it takes the input out of the engine.
pub struct Pending(BoxFuture<'static, Result<Embedding>>);

impl Future for Pending {
    type Output = Result<Embedding>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl ModelHandle {
    /// Embeds the inputs of one request; the results are in their order. Dropping the future drops its inputs wherever
    /// they wait. Polled inside a tokio runtime with its clock on.
    ///
    /// A result is an error in its place when the input cannot be used or the model failed on it
    /// ([`WorkError::Model`], [`EngineError::Worker`]).
    ///
    /// # Errors
    /// For the request as a whole: [`EngineError::Overloaded`], unless [`EmbedOptions::when_full`] is to wait;
    /// [`EngineError::TooLarge`], [`EngineError::Deadline`], [`EngineError::ShuttingDown`].
    pub async fn embed(&self, inputs: Vec<Input>, options: EmbedOptions) -> Result<Output, EngineError> {
        self.begin(inputs, options).await?.output().await
    }

    /// Admits one input and gives a future of its embedding.
    ///
    /// # Errors
    /// As [`Self::embed`], for the admission.
    pub async fn submit(&self, input: Input, options: EmbedOptions) -> Result<Pending, EngineError> {
        let begun = self.begin(vec![input], options).await?;
        Ok(Pending(Box::pin(async move {
            let result = begun.output().await?.results.pop();
            result.unwrap_or_else(|| Err(EngineError::Worker("the input was lost".to_owned()).into()))
        })))
    }

    /// Embeds a stream of inputs, each with a tag that comes back with its result. At most `window` inputs are in the
    /// engine at once, and no more are taken from the stream. An input that is an error passes through.
    pub fn embed_stream<T, E>(
        self,
        inputs: impl Stream<Item = (T, Result<Input, E>)>,
        options: EmbedOptions,
        order: Order,
        window: usize,
    ) -> impl Stream<Item = (T, Result<Embedding, E>)>
    where
        E: From<EngineError> + From<WorkError>,
    {
        let admitted = inputs.then(move |(tag, input)| {
            let (model, options) = (self.clone(), options.clone());
            async move {
                let pending = match input {
                    Ok(input) => model.submit(input, options).await.map_err(E::from),
                    Err(error) => Err(error),
                };
                (tag, pending)
            }
        });
        let results = admitted.map(|(tag, pending)| async move {
            match pending {
                Ok(pending) => (tag, pending.await.map_err(E::from)),
                Err(error) => (tag, Err(error)),
            }
        });
        match order {
            Order::AsSent => results.buffered(window.max(1)).left_stream(),
            Order::AsCompleted => results.buffer_unordered(window.max(1)).right_stream(),
        }
    }

    /// Answers what is known and admits the rest.
    async fn begin(&self, inputs: Vec<Input>, options: EmbedOptions) -> Result<Begun, EngineError> {
        let started = Instant::now();
        self.check_deadline(&options, started)?;
        let sorted = self.sort(inputs, &options).await;
        self.admit(sorted, options, started).await
    }

    /// Refuses a request that comes too late.
    pub(super) fn check_deadline(&self, options: &EmbedOptions, now: Instant) -> Result<(), EngineError> {
        match options.deadline {
            Some(deadline) if deadline <= now => {
                Err(self.reject("deadline", EngineError::Deadline(Duration::ZERO)))
            }
            _ => Ok(()),
        }
    }

    /// Admits what is to be computed, all of it or nothing.
    pub(super) async fn admit(
        &self,
        Sorted { results, mut jobs }: Sorted,
        options: EmbedOptions,
        started: Instant,
    ) -> Result<Begun, EngineError> {
        let (deadline, client) = (options.deadline, options.client);
        if jobs.is_empty() {
            let results = results.into_iter().flatten().collect();
            return Ok(Begun::Known(Output { results, timings: Timings::default() }));
        }

        if let (WhenFull::Refuse, Some(deadline), false) = (options.when_full, deadline, options.partial) {
            self.check_time(&jobs, client, started, deadline)?;
        }
        let costs = jobs.iter().flat_map(|job| std::iter::repeat_n(job.bytes, job.results));
        let costs: Vec<usize> = costs.collect();
        let admission = &self.shared.admission;
        let asker = Asker { client, class: options.class, tally: options.tally.clone() };
        let admitted = match options.when_full {
            WhenFull::Refuse => admission.admit_for(&costs, &asker, Instant::now()),
            WhenFull::Wait => {
                let allowed = || deadline.map_or(Duration::ZERO, |deadline| deadline - started);
                self.in_time(admission.acquire(&costs, &asker), deadline, allowed).await?
            }
        };
        let permits = admitted.map_err(|Refused { reason, error }| self.reject(reason, error))?;
        let (request, output) = Request::new(&options, started, results);
        // From here on, dropping this drops what is queued.
        let partial = options.partial;
        let queued =
            Queued { handle: self.clone(), request, output, deadline, partial, reason: Some("gone") };
        let now = Instant::now();
        let mut permits = permits.into_iter();
        let items = jobs.drain(..).filter_map(|job| {
            let Job { index, results, lane, work, tokens, decode_bytes, .. } = job;
            let permits = (index..).zip(permits.by_ref().take(results));
            let mut tickets = permits.map(|(index, permit)| {
                Ticket::new(&queued.request, index, permit, self.runtime.lane(lane), now)
            });
            let ticket = tickets.next()?;
            Some((lane, Waiting { ticket, others: tickets.collect(), work, tokens, decode_bytes }))
        });
        self.enqueue(items.collect());
        Ok(Begun::Queued(queued))
    }

    /// Refuses what cannot be finished before its deadline, with the number of inputs that could.
    fn check_time(
        &self,
        jobs: &[Job],
        client: u64,
        started: Instant,
        deadline: Instant,
    ) -> Result<(), EngineError> {
        let allowed = deadline - started;
        let left = deadline.saturating_duration_since(Instant::now());
        for lane in Lane::ALL {
            let own = jobs.iter().filter(|job| job.lane == lane).map(|job| job.tokens as u64);
            let own = own.fold((0, 0), |(inputs, tokens), more| (inputs + 1, tokens + more));
            let error = match self.runtime.queues.outlook(lane, client, own, left, allowed) {
                Outlook::InTime => continue,
                Outlook::Never { fits } => {
                    let seconds = allowed.as_secs_f64();
                    let text = format!(
                        "{} inputs would not be finished within {seconds:.0} s, about {fits} would",
                        own.0
                    );
                    EngineError::TooLarge(text)
                }
                Outlook::Busy { fits, wait } => {
                    let seconds = left.as_secs_f64();
                    let reason = format!(
                        "{} inputs would not be finished within {seconds:.0} s behind what is queued, about {fits} would",
                        own.0
                    );
                    EngineError::Overloaded { reason, retry_after: wait }
                }
            };
            return Err(self.reject("too_slow", error));
        }
        Ok(())
    }

    fn enqueue(&self, items: Vec<(Lane, Waiting)>) {
        match self.runtime.queues.enqueue(items) {
            Ok(lanes) => {
                self.runtime.used();
                self.shared.want_towers(&self.runtime);
                let filled = Lane::ALL.into_iter().filter(|&lane| lanes[lane as usize]);
                filled.for_each(|lane| self.shared.preparation.wake(lane));
            }
            // It was replaced or removed since the handle was taken, and has finished.
            Err(tickets) if self.runtime.is_retired() => {
                let gone = || EngineError::loading(&self.runtime.name, ModelState::Unloaded);
                tickets.into_iter().for_each(|ticket| ticket.answer(Err(gone().into())));
            }
            Err(tickets) => tickets.into_iter().for_each(Ticket::stop),
        }
    }
}

/// A request that was let in.
pub(super) enum Begun {
    /// Nothing of it had to be computed.
    Known(Output),
    Queued(Queued),
}

impl Begun {
    pub(super) async fn output(self) -> Result<Output, EngineError> {
        match self {
            Self::Known(output) => Ok(output),
            Self::Queued(queued) => queued.output().await,
        }
    }
}

/// A request in the engine. It is forgotten when this is dropped, unless it was answered.
pub(super) struct Queued {
    handle: ModelHandle,
    request: Arc<Request>,
    output: oneshot::Receiver<Output>,
    deadline: Option<Instant>,
    /// See [`EmbedOptions::partial`].
    partial: bool,
    /// Why it ends without an answer.
    reason: Option<&'static str>,
}

impl Queued {
    async fn output(mut self) -> Result<Output, EngineError> {
        let Self { handle, request, output, deadline, .. } = &mut self;
        let result = handle.in_time(output, *deadline, || request.allowed()).await;
        let result = result.and_then(|output| {
            let output = output.map_err(|_| EngineError::Worker("the request was lost".to_owned()))?;
            whole(&output).map_or(Ok(output), Err)
        });
        if let (Err(EngineError::Deadline(_)), true) = (&result, self.partial)
            && let Some(output) = self.request.done_by_deadline()
        {
            self.reason = Some("deadline");
            return Ok(output);
        }
        self.reason = match &result {
            Ok(_) => None,
            Err(EngineError::Deadline(_)) => Some("deadline"),
            Err(_) => Some("stopping"),
        };
        result
    }
}

/// The error of an input that is about the whole request, wherever it was noticed.
fn whole(output: &Output) -> Option<EngineError> {
    output.results.iter().find_map(|result| match result {
        Err(WorkError::Engine(
            error @ (EngineError::Deadline(_) | EngineError::ShuttingDown | EngineError::Loading { .. }),
        )) => Some(error.clone()),
        _ => None,
    })
}

impl Drop for Queued {
    fn drop(&mut self) {
        let Some(reason) = self.reason else { return };
        metrics::counter!(telemetry::CANCELLED, "reason" => reason).increment(1);
        self.request.leave();
        let ModelHandle { shared, runtime } = &self.handle;
        let tickets = runtime.queues.forget(&self.request);
        if !tickets.is_empty() {
            // There may be room among what is ready.
            Lane::ALL.into_iter().for_each(|lane| shared.preparation.wake(lane));
        }
        tickets.into_iter().for_each(Ticket::answer_dead);
        shared.residency.idle();
        shared.free_if_done(runtime);
    }
}
