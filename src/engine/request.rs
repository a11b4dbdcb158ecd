//! A request in the engine, and the ticket of each of its inputs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::Span;

use super::admission::Permit;
use super::error::{Result, WorkError};
use super::job::Class;
use super::metrics::{LaneMetrics, Outcome};
use super::{EmbedOptions, Embedding, EngineError, Output, Timings};
use crate::Error;

/// What the inputs of a request have in common: where their results are gathered.
pub(super) struct Request {
    pub(super) client: u64,
    pub(super) class: Class,
    /// See [`EmbedOptions::transient`].
    transient: bool,
    started: Instant,
    deadline: Option<Instant>,
    gone: AtomicBool,
    /// Where the request is traced.
    span: Span,
    progress: Mutex<Progress>,
}

struct Progress {
    results: Vec<Option<Result<Embedding>>>,
    missing: usize,
    timings: Timings,
    done: Option<oneshot::Sender<Output>>,
}

impl Request {
    /// A request of which `results` are known already where they are `Some`. The channel gets the
    /// output when the last of the others is in; at least one must be missing.
    pub(super) fn new(
        &EmbedOptions { client, class, transient, deadline, .. }: &EmbedOptions,
        started: Instant,
        results: Vec<Option<Result<Embedding>>>,
    ) -> (Arc<Self>, oneshot::Receiver<Output>) {
        let (done, output) = oneshot::channel();
        let missing = results.iter().filter(|result| result.is_none()).count();
        let progress = Progress { results, missing, timings: Timings::default(), done: Some(done) };
        let progress = Mutex::new(progress);
        let (gone, span) = (AtomicBool::new(false), Span::current());
        let request = Self { client, class, transient, started, deadline, gone, span, progress };
        (Arc::new(request), output)
    }

    /// Nobody waits for the answer any more.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// How long a request with a deadline was given.
    pub(super) fn allowed(&self) -> Duration {
        self.deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(self.started))
    }

    /// What is done at the deadline, the rest being an error in its place; `None` if nothing is done. Later results find
    /// nobody.
    pub(super) fn done_by_deadline(&self) -> Option<Output> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.done = None;
        if !progress.results.iter().any(|result| matches!(result, Some(Ok(_)))) {
            return None;
        }
        let late = || Err(EngineError::Deadline(self.allowed()).into());
        // A result that is still to come finds its place taken.
        let results =
            progress.results.iter_mut().map(|result| result.replace(late()).unwrap_or_else(late)).collect();
        Some(Output { results, timings: progress.timings })
    }

    fn put(&self, index: usize, result: Result<Embedding>, timings: Timings) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let Progress { results, missing, timings: all, done } = &mut *progress;
        all.decode = all.decode.max(timings.decode);
        all.tokenize = all.tokenize.max(timings.tokenize);
        all.queue = all.queue.max(timings.queue);
        all.inference = all.inference.max(timings.inference);
        if results[index].replace(result).is_none() {
            *missing -= 1;
        }
        if *missing == 0
            && let Some(done) = done.take()
        {
            let results = std::mem::take(results).into_iter().flatten().collect();
            // An error means that nobody waits any more.
            let _ = done.send(Output { results, timings: *all });
        }
    }
}

/// One admitted input. It is answered exactly once: dropped unanswered, it answers that it was
/// cancelled or lost. Its permit is released before the answer is sent: a client that reacts to it finds the room free.
pub(super) struct Ticket {
    request: Arc<Request>,
    index: usize,
    permit: Option<Permit>,
    metrics: Arc<LaneMetrics>,
    timings: Timings,
    /// When it entered the queue it is in.
    since: Instant,
}

impl Ticket {
    pub(super) fn new(
        request: &Arc<Request>,
        index: usize,
        permit: Permit,
        metrics: &Arc<LaneMetrics>,
        now: Instant,
    ) -> Self {
        Self {
            request: Arc::clone(request),
            index,
            permit: Some(permit),
            metrics: Arc::clone(metrics),
            timings: Timings::default(),
            since: now,
        }
    }

    pub(super) fn client(&self) -> u64 {
        self.request.client
    }

    pub(super) fn class(&self) -> Class {
        self.request.class
    }

    /// Whether its text is not to be kept, see [`EmbedOptions::transient`].
    pub(super) fn is_transient(&self) -> bool {
        self.request.transient
    }

    /// Where its request is traced.
    pub(super) fn span(&self) -> &Span {
        &self.request.span
    }

    pub(super) fn belongs_to(&self, request: &Arc<Request>) -> bool {
        Arc::ptr_eq(&self.request, request)
    }

    /// Whether there is no point in working on it any more.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.death(now).is_some()
    }

    fn death(&self, now: Instant) -> Option<Outcome> {
        // The deadline first: who has missed it leaves for that reason.
        if self.request.deadline.is_some_and(|deadline| deadline <= now) {
            Some(Outcome::Expired)
        } else {
            self.request.gone.load(Ordering::Acquire).then_some(Outcome::Cancelled)
        }
    }

    /// It entered a queue.
    pub(super) fn enter(&mut self, now: Instant) {
        self.since = now;
    }

    /// It left a queue.
    pub(super) fn leave(&mut self, now: Instant) {
        self.timings.queue += now.saturating_duration_since(self.since);
    }

    pub(super) fn timings(&mut self) -> &mut Timings {
        &mut self.timings
    }

    /// What it holds now, for the bound by bytes.
    pub(super) fn resize(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            permit.resize(bytes);
        }
    }

    /// The answer.
    pub(super) fn answer(mut self, result: Result<Embedding>) {
        let outcome = match &result {
            Ok(embedding) if embedding.cached => Outcome::Cached,
            Ok(_) => Outcome::Ok,
            Err(WorkError::Model(Error::Image(_) | Error::Text(_) | Error::Request(_))) => Outcome::Invalid,
            Err(_) => Outcome::Failed,
        };
        self.end(outcome, result);
    }

    /// The answer where [`Ticket::is_dead`] was true.
    pub(super) fn answer_dead(mut self) {
        // `now` may be earlier than the caller's: count it as expired.
        let outcome = self.death(Instant::now()).unwrap_or(Outcome::Expired);
        let error = EngineError::Deadline(self.request.allowed());
        self.end(outcome, Err(error.into()));
    }

    /// The answer when the engine stops.
    pub(super) fn stop(mut self) {
        self.end(Outcome::Stopped, Err(EngineError::ShuttingDown.into()));
    }

    fn end(&mut self, outcome: Outcome, result: Result<Embedding>) {
        let Some(mut permit) = self.permit.take() else { return };
        let worked = matches!(outcome, Outcome::Ok | Outcome::Cached | Outcome::Invalid | Outcome::Failed);
        permit.release(worked.then(Instant::now));
        self.metrics.ended(outcome);
        self.metrics.queue_wait.record(self.timings.queue);
        self.request.put(self.index, result, self.timings);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let outcome = self.death(Instant::now()).unwrap_or(Outcome::Failed);
        self.end(outcome, Err(EngineError::Worker("the input was lost".to_owned()).into()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::Admission;
    use super::super::job::Lane;
    use super::*;

    fn tickets(
        n: usize,
        deadline: Option<Instant>,
    ) -> (Arc<Admission>, Vec<Ticket>, oneshot::Receiver<Output>, Arc<Request>) {
        let now = Instant::now();
        let admission = Admission::new(n, n);
        let metrics = Arc::new(LaneMetrics::new("m", Lane::Images.label()));
        let options = EmbedOptions { client: 1, deadline, ..EmbedOptions::default() };
        let (request, output) = Request::new(&options, now, (0..n).map(|_| None).collect());
        let permits = admission.admit(&vec![1; n], 0, Class::Interactive, now).expect("room");
        let ticket = |(index, permit)| Ticket::new(&request, index, permit, &metrics, now);
        let tickets = permits.into_iter().enumerate().map(ticket).collect();
        (admission, tickets, output, request)
    }

    fn embedding(value: f32) -> Embedding {
        Embedding {
            vector: vec![value].into(),
            tokens: 1,
            size: None,
            grid: None,
            truncated: false,
            cached: false,
        }
    }

    #[test]
    fn results_come_in_the_order_of_the_inputs_and_once_all_are_in() {
        let (admission, mut tickets, mut output, _) = tickets(3, None);
        for (value, at) in [(2.0, 2), (0.0, 0)] {
            let mut ticket = tickets.remove(at);
            ticket.timings().inference = Duration::from_millis(value as u64 + 1);
            ticket.answer(Ok(embedding(value)));
        }
        assert!(output.try_recv().is_err(), "one is missing");
        tickets.remove(0).answer(Ok(embedding(1.0)));
        assert_eq!(admission.load(), (0, 0));
        let output = output.try_recv().expect("complete");
        let values: Vec<f32> = output.results.into_iter().map(|r| r.expect("ok").vector[0]).collect();
        assert_eq!(values, [0.0, 1.0, 2.0]);
        assert_eq!(output.timings.inference, Duration::from_millis(3));
    }

    #[test]
    fn a_lost_ticket_answers_all_the_same() {
        let (admission, tickets, mut output, _) = tickets(1, None);
        drop(tickets);
        assert_eq!(admission.load(), (0, 0));
        let results = output.try_recv().expect("complete").results;
        assert!(matches!(&results[..], [Err(WorkError::Engine(EngineError::Worker(_)))]));
    }

    #[test]
    fn a_ticket_dies_with_its_client_and_its_deadline() {
        let now = Instant::now();
        let (_, mut waiting, _output, request) = tickets(1, Some(now + Duration::from_secs(5)));
        let ticket = waiting.remove(0);
        assert!(!ticket.is_dead(now));
        assert!(ticket.is_dead(now + Duration::from_secs(5)));
        request.leave();
        assert!(ticket.is_dead(now));
    }
}
