//! Worker threads: one batch after the other on the towers of one replica.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use super::batch::{self, Embed};
use super::cache::TextKey;
use super::error::{Result, WorkError};
use super::job::Lane;
use super::lane::{Prepared, Ready};
use super::queues::{ModelQueues, Work};
use super::request::Ticket;
use super::runtime::{ModelRuntime, Replica, ReplicaSet};
use super::shared::Shared;
use super::turns::Kind;
use super::{Embedding, EngineError, warmup};
use crate::image::Patches;
use crate::telemetry;
use crate::text::TokenIds;

/// Runs batches of a model on one replica of its towers until the towers are to go.
pub(super) fn run(shared: &Shared, model: &Arc<ModelRuntime>, set: &ReplicaSet, index: usize, cold: bool) {
    let worker = Worker { shared, model, replica: &set.replicas[index] };
    let retry = shared.config.retry;
    if cold {
        worker.warm_up();
    }
    loop {
        let failing = worker.replica.health.is_failing();
        // A failing replica leaves batches to the ones that work.
        if failing && set.another_works(index) {
            if !model.queues.pause(set.generation, retry) {
                return;
            }
            worker.probe();
            continue;
        }
        // A text that is cached by now, or in this batch already, costs nothing.
        let mut texts: HashSet<Arc<TextKey>> = HashSet::new();
        let mut cost = |item: &Ready| match &item.prepared {
            Prepared::Text(_, key) if shared.cache.contains(key) || !texts.insert(Arc::clone(key)) => 0,
            _ => item.tokens(),
        };
        let patience = failing.then_some(retry);
        let Some(work) = model.queues.next(set.generation, &mut cost, patience) else { return };
        match work {
            None => worker.probe(),
            Some(Work::Batch(lane, items)) => {
                // There is room among what is ready.
                shared.preparation.wake(lane);
                let _running = Running::new(&model.queues, lane.into());
                worker.run_batch(lane, items);
            }
            Some(Work::Scores(job)) => {
                let _running = Running::new(&model.queues, Kind::Scores);
                job.run();
            }
        }
        shared.free_if_done(model);
    }
}

/// Work on this worker, until it is dropped.
struct Running<'a> {
    queues: &'a ModelQueues,
    kind: Kind,
    since: Instant,
}

impl<'a> Running<'a> {
    fn new(queues: &'a ModelQueues, kind: Kind) -> Self {
        Self { queues, kind, since: Instant::now() }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.queues.finished(self.kind, self.since.elapsed());
    }
}

/// A thread on one replica of a model.
struct Worker<'a> {
    shared: &'a Shared,
    model: &'a ModelRuntime,
    replica: &'a Replica,
}

/// One text and everybody in the batch who asked for it.
struct Text {
    tickets: Vec<Ticket>,
    ids: TokenIds,
    key: Arc<TextKey>,
}

impl Worker<'_> {
    fn warm_up(&self) {
        let start = Instant::now();
        self.probe();
        if !self.replica.health.is_failing() {
            let seconds = start.elapsed().as_secs_f64();
            tracing::info!(model = %self.model.name, seconds, "the model is warm");
        }
    }

    /// Finds out by known inputs whether the replica works.
    fn probe(&self) {
        let known_inputs = || warmup::run(self.model.model.as_ref(), self.replica.towers.as_ref());
        if self.replica.health.probe(&self.model.name, known_inputs) {
            self.shared.registry.notify();
        }
    }

    fn run_batch(&self, lane: Lane, items: Vec<Ready>) {
        let now = Instant::now();
        let (mut images, mut texts): (Vec<(Ticket, Patches)>, Vec<Text>) = (Vec::new(), Vec::new());
        let mut seen: HashMap<Arc<TextKey>, usize> = HashMap::new();
        let metrics = self.model.lane(lane);
        for Ready { mut ticket, prepared } in items {
            ticket.leave(now);
            if ticket.is_dead(now) {
                ticket.answer_dead();
                continue;
            }
            match prepared {
                Prepared::Image(patches) => images.push((ticket, patches)),
                Prepared::Text(ids, key) => {
                    if let Some(embedding) = self.shared.cache.get(&key) {
                        metrics.cache_hits.increment(1);
                        ticket.answer(Ok(embedding));
                        continue;
                    }
                    match seen.entry(Arc::clone(&key)) {
                        Entry::Occupied(first) => {
                            metrics.cache_hits.increment(1);
                            texts[*first.get()].tickets.push(ticket);
                        }
                        Entry::Vacant(first) => {
                            metrics.cache_misses.increment(1);
                            first.insert(texts.len());
                            texts.push(Text { tickets: vec![ticket], ids, key });
                        }
                    }
                }
            }
        }
        if !images.is_empty() {
            self.embed_images(images);
        }
        if !texts.is_empty() {
            self.embed_texts(texts);
        }
    }

    fn embed_images(&self, items: Vec<(Ticket, Patches)>) {
        let batch: Vec<&Patches> = items.iter().map(|(_, patches)| patches).collect();
        let tokens = batch.iter().map(|patches| patches.grid.len()).sum();
        let requests = items.iter().map(|(ticket, _)| ticket.span());
        let (results, took) = self.compute(Lane::Images, &batch, tokens, requests, &|part: &[&Patches]| {
            self.replica.towers.embed_images(part)
        });
        for ((mut ticket, patches), result) in items.into_iter().zip(results) {
            ticket.timings().inference = took;
            ticket.answer(result.map(|vector| Embedding {
                vector: vector.into(),
                tokens: patches.grid.len(),
                size: Some(patches.source),
                truncated: false,
                cached: false,
            }));
        }
    }

    fn embed_texts(&self, items: Vec<Text>) {
        let batch: Vec<&TokenIds> = items.iter().map(|text| &text.ids).collect();
        let tokens = batch.iter().map(|ids| ids.ids.len()).sum();
        let requests = items.iter().flat_map(|text| text.tickets.iter().map(Ticket::span));
        let (results, took) = self.compute(Lane::Texts, &batch, tokens, requests, &|part: &[&TokenIds]| {
            self.replica.towers.embed_texts(part)
        });
        for (Text { tickets, ids, key }, result) in items.into_iter().zip(results) {
            let result = result.map(|vector| Embedding {
                vector: vector.into(),
                tokens: ids.used,
                size: None,
                truncated: ids.truncated,
                cached: false,
            });
            if let Ok(embedding) = &result {
                self.shared.cache.insert(key, embedding.clone());
            }
            let mut results = copies(result, tickets.len()).into_iter();
            for mut ticket in tickets {
                ticket.timings().inference = took;
                if let Some(result) = results.next() {
                    ticket.answer(result);
                }
            }
        }
    }

    /// A result for each of `batch`, and how long it took. `requests` are the spans of those who asked.
    fn compute<'s, T>(
        &self,
        lane: Lane,
        batch: &[&T],
        tokens: usize,
        requests: impl Iterator<Item = &'s Span>,
        embed: &Embed<'_, T>,
    ) -> (Vec<Result<Vec<f32>>>, Duration) {
        let model = self.model;
        let metrics = model.lane(lane);
        metrics.batch_items.record(batch.len() as f64);
        metrics.batch_tokens.record(tokens as f64);
        let span = telemetry::batch_span(&model.name, lane.label(), batch.len(), tokens, requests);
        let _entered = span.enter();

        let start = Instant::now();
        let outcome = batch::run(batch, model.model.info().embedding_dim, embed);
        let took = start.elapsed();
        metrics.inference.record(took);
        if outcome.panics > 0 {
            metrics.batch_panics.increment(outcome.panics as u64);
            tracing::error!(panics = outcome.panics, "the model panicked on a batch");
        }
        if outcome.unusable > 0 {
            metrics.unusable_vectors.increment(outcome.unusable as u64);
            tracing::error!(
                vectors = outcome.unusable,
                "the model gave vectors that are not finite or too wide"
            );
        }
        if let Some(items) = outcome.out_of_memory_at {
            metrics.out_of_memory.increment(1);
            let too_many = (tokens * items).div_ceil(batch.len());
            model.queues.shrink(lane, too_many);
            tracing::warn!(items, too_many, "the device ran out of memory: smaller batches for a while");
        }
        let known_inputs = || warmup::run(model.model.as_ref(), self.replica.towers.as_ref());
        if self.replica.health.after_batch(&model.name, outcome.worked(), known_inputs) {
            self.shared.registry.notify();
        }
        (outcome.results, took)
    }
}

/// The same result for several tickets. Errors cannot be cloned: the copies carry the text.
fn copies(result: Result<Embedding>, count: usize) -> Vec<Result<Embedding>> {
    let copy = |result: &Result<Embedding>| match result {
        Ok(embedding) => Ok(embedding.clone()),
        Err(WorkError::Engine(error)) => Err(error.clone().into()),
        Err(error) => Err(EngineError::Worker(error.to_string()).into()),
    };
    let mut all: Vec<_> = (1..count).map(|_| copy(&result)).collect();
    all.push(result);
    all
}
