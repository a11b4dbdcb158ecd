//! Worker threads: one batch after the other on the towers of one replica.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use super::batch::{self, Embed};
use super::cache::TextKey;
use super::error::Result;
use super::job::{Class, Lane};
use super::lane::{Prepared, Ready};
use super::queues::{Batch, Taker, Work};
use super::request::Ticket;
use super::runtime::{ModelRuntime, Replica, ReplicaSet};
use super::shared::Shared;
use super::sync::{Mutex, lock};
use super::turns::Kind;
use super::{Embedding, warmup};
use crate::image::Patches;
use crate::model::PatchVectors;
use crate::telemetry;
use crate::text::TokenIds;

/// Runs batches of a model on one replica of its towers until the towers are to go.
pub(super) fn run(shared: &Shared, model: &Arc<ModelRuntime>, set: &ReplicaSet, index: usize, cold: bool) {
    let worker = Worker { shared, model, set, index };
    let another_works = || set.another_works(index);
    let taker = Taker { generation: set.generation, replica: index, another_works: &another_works };
    let retry = shared.config.retry;
    if cold {
        worker.warm_up();
    }
    loop {
        let failing = worker.is_failing();
        // A failing replica leaves batches to the ones that work.
        if failing && another_works() {
            if !model.queues.pause(&taker, retry) {
                return;
            }
            worker.probe();
            continue;
        }
        let patience = failing.then_some(retry);
        let Some(work) = model.queues.next(&taker, &mut worker.cost(), patience) else { return };
        match work {
            None => worker.probe(),
            // Another worker of this replica found out while this one waited.
            Some(Work::Batch(batch)) if !failing && worker.is_failing() && another_works() => {
                let _running = Running::new(&worker, batch.lane.into(), batch.class);
                model.queues.hand_on(index, batch);
            }
            Some(work) => worker.run(work),
        }
        model.used();
        shared.residency.idle();
        shared.free_if_done(model);
    }
}

/// Work on this worker, until it is dropped.
struct Running<'a> {
    worker: &'a Worker<'a>,
    kind: Kind,
    class: Class,
    /// Until when its time is accounted for, and for how long it has waited for other work.
    clock: Mutex<(Instant, Duration)>,
}

impl<'a> Running<'a> {
    fn new(worker: &'a Worker<'a>, kind: Kind, class: Class) -> Self {
        Self { worker, kind, class, clock: Mutex::new((Instant::now(), Duration::ZERO)) }
    }

    /// Does what is to be done before this goes on.
    fn pause(&self) {
        let mut clock = lock(&self.clock);
        let asked = Instant::now();
        let mut busy = asked - clock.0;
        let Worker { model, set, .. } = self.worker;
        // Each time the turns decide anew.
        while let Some(work) =
            model.queues.between(set.generation, (self.kind, self.class), busy, &mut self.worker.cost())
        {
            busy = Duration::ZERO;
            self.worker.run(work);
        }
        *clock = (Instant::now(), clock.1 + asked.elapsed());
    }

    /// For how long it has waited for other work.
    fn waited(&self) -> Duration {
        lock(&self.clock).1
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let busy = lock(&self.clock).0.elapsed();
        self.worker.model.queues.finished(self.kind, self.class, busy);
    }
}

/// A thread on one replica of a model.
struct Worker<'a> {
    shared: &'a Shared,
    model: &'a ModelRuntime,
    set: &'a ReplicaSet,
    /// Of the replica.
    index: usize,
}

/// What became of the items of a batch, in their order.
struct Computed {
    results: Vec<Result<Vec<f32>>>,
    took: Duration,
    /// See [`batch::Outcome::worked`].
    worked: bool,
}

impl Computed {
    fn failed_whole(&self) -> bool {
        self.results.iter().all(Result::is_err)
    }
}

/// A picture and who asked for it.
type Picture = (Ticket, Patches);

/// One text and everybody in the batch who asked for it.
struct Text {
    tickets: Vec<Ticket>,
    ids: TokenIds,
    key: Arc<TextKey>,
}

impl Worker<'_> {
    fn replica(&self) -> &Replica {
        &self.set.replicas[self.index]
    }

    fn is_failing(&self) -> bool {
        self.replica().health.is_failing()
    }

    fn warm_up(&self) {
        let start = Instant::now();
        self.probe();
        self.model.used();
        self.shared.residency.idle();
        if !self.is_failing() {
            if self.model.queues.is_unmeasured() {
                // The first batch shall not be one of many seconds.
                let (model, towers) = (self.model.model.as_ref(), self.replica().towers.as_ref());
                for (lane, tokens, took) in warmup::measure(model, towers) {
                    self.model.queues.measured(lane, tokens, took);
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            tracing::info!(model = %self.model.name, replica = self.index, seconds, "the model is warm");
        }
    }

    /// Finds out by known inputs whether the replica works.
    fn probe(&self) {
        let changed = self.replica().health.probe(&self.model.name, || self.known_inputs());
        self.tell(changed);
    }

    fn known_inputs(&self) -> Result<()> {
        warmup::run(self.model.model.as_ref(), self.replica().towers.as_ref())
    }

    /// Takes note of how a batch went.
    fn judge(&self, worked: bool) {
        let (health, spare) = (&self.replica().health, self.set.another_works(self.index));
        let changed = health.after_batch(&self.model.name, worked, spare, || self.known_inputs());
        self.tell(changed);
    }

    /// Tells those who look at it that the health may have changed.
    fn tell(&self, changed: bool) {
        if changed {
            self.model.queues.wake_workers();
            self.shared.registry.notify();
        }
    }

    /// Counts the tokens of what is taken into one batch: a text that is cached by now, or in it already, costs nothing.
    fn cost(&self) -> impl FnMut(&Ready) -> usize {
        let mut texts: HashSet<Arc<TextKey>> = HashSet::new();
        move |item| match &item.prepared {
            Prepared::Text(_, key) if self.shared.cache.contains(key) || !texts.insert(Arc::clone(key)) => 0,
            _ => item.tokens(),
        }
    }

    fn run(&self, work: Work) {
        match work {
            Work::Batch(batch) => {
                // There is room among what is ready.
                self.shared.preparation.wake(batch.lane);
                let running = Running::new(self, batch.lane.into(), batch.class);
                self.run_batch(batch, &running);
            }
            Work::Scores(job) => {
                let _running = Running::new(self, Kind::Scores, Class::Interactive);
                job.run();
            }
        }
    }

    fn run_batch(&self, batch: Batch, running: &Running<'_>) {
        let now = Instant::now();
        // Pictures, by what is wanted of each.
        let mut images: Vec<(Option<PatchVectors>, Vec<Picture>)> = Vec::new();
        let mut texts: Vec<Text> = Vec::new();
        let mut seen: HashMap<Arc<TextKey>, usize> = HashMap::new();
        let metrics = self.model.lane(batch.lane);
        for Ready { mut ticket, prepared } in batch.items {
            ticket.leave(now);
            if ticket.is_dead(now) {
                ticket.answer_dead();
                continue;
            }
            match prepared {
                Prepared::Image(patches, wanted) => {
                    let item = (ticket, patches);
                    match images.iter_mut().find(|(kind, _)| *kind == wanted) {
                        Some((_, items)) => items.push(item),
                        None => images.push((wanted, vec![item])),
                    }
                }
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
        for (wanted, items) in images {
            self.embed_images(items, wanted, batch.retried, running);
        }
        if !texts.is_empty() {
            self.embed_texts(texts, batch.retried, running);
        }
    }

    fn embed_images(
        &self,
        items: Vec<Picture>,
        wanted: Option<PatchVectors>,
        retried: bool,
        running: &Running<'_>,
    ) {
        let batch: Vec<&Patches> = items.iter().map(|(_, patches)| patches).collect();
        let tokens = batch.iter().map(|patches| patches.grid.len()).sum();
        let requests = items.iter().map(|(ticket, _)| ticket.span());
        let dim = self.model.model.info().embedding_dim;
        let width = |patches: &Patches| wanted.map_or(dim, |wanted| dim * wanted.count(patches.grid.len()));
        let work = (Lane::Images, tokens, running);
        let computed = self.compute(work, &batch, requests, &width, &|part: &[&Patches]| {
            let (towers, pause) = (&self.replica().towers, || running.pause());
            match wanted {
                None => towers.embed_images(part, &pause),
                Some(wanted) => towers.embed_patches(part, wanted, &pause),
            }
        });
        if self.is_for_another(&computed, retried) {
            let ready = |(ticket, patches)| Ready { ticket, prepared: Prepared::Image(patches, wanted) };
            self.hand_on(Lane::Images, items.into_iter().map(ready).collect());
        } else {
            for ((mut ticket, patches), result) in items.into_iter().zip(computed.results) {
                ticket.timings().inference = computed.took;
                ticket.answer(result.map(|vector| Embedding {
                    vector: vector.into(),
                    tokens: patches.grid.len(),
                    size: Some(patches.source),
                    grid: Some(patches.grid),
                    truncated: false,
                    cached: false,
                }));
            }
        }
        self.judge(computed.worked);
    }

    fn embed_texts(&self, items: Vec<Text>, retried: bool, running: &Running<'_>) {
        let batch: Vec<&TokenIds> = items.iter().map(|text| &text.ids).collect();
        let tokens = batch.iter().map(|ids| ids.ids.len()).sum();
        let requests = items.iter().flat_map(|text| text.tickets.iter().map(Ticket::span));
        let dim = self.model.model.info().embedding_dim;
        let work = (Lane::Texts, tokens, running);
        let computed = self.compute(work, &batch, requests, &|_| dim, &|part: &[&TokenIds]| {
            self.replica().towers.embed_texts(part)
        });
        if self.is_for_another(&computed, retried) {
            let ready = |Text { tickets, ids, key }| {
                let prepared = move || Prepared::Text(ids.clone(), Arc::clone(&key));
                tickets.into_iter().map(move |ticket| Ready { ticket, prepared: prepared() })
            };
            self.hand_on(Lane::Texts, items.into_iter().flat_map(ready).collect());
        } else {
            for (Text { tickets, ids, key }, result) in items.into_iter().zip(computed.results) {
                let result = result.map(|vector| Embedding {
                    vector: vector.into(),
                    tokens: ids.used,
                    size: None,
                    grid: None,
                    truncated: ids.truncated,
                    cached: false,
                });
                if let Ok(embedding) = &result
                    && !tickets.iter().all(Ticket::is_transient)
                {
                    self.shared.cache.insert(key, embedding.clone());
                }
                let mut results = copies(result, tickets.len()).into_iter();
                for mut ticket in tickets {
                    ticket.timings().inference = computed.took;
                    if let Some(result) = results.next() {
                        ticket.answer(result);
                    }
                }
            }
        }
        self.judge(computed.worked);
    }

    /// Whether a batch is to be tried by another replica: once, and only if this one could do nothing with it.
    fn is_for_another(&self, computed: &Computed, retried: bool) -> bool {
        !retried && computed.failed_whole() && self.set.another_works(self.index)
    }

    fn hand_on(&self, lane: Lane, mut items: Vec<Ready>) {
        let model = &self.model.name;
        tracing::warn!(%model, replica = self.index, items = items.len(), "a batch failed: another replica tries it");
        self.model.lane(lane).handed_on.increment(1);
        let now = Instant::now();
        items.iter_mut().for_each(|item| item.ticket.enter(now));
        let class = items.first().map_or(Class::Interactive, |item| item.ticket.class());
        self.model.queues.hand_on(self.index, Batch { lane, class, items, retried: true });
    }

    /// A result for each of `batch`, of so many tokens, and how long it took. `requests` are the spans of those who asked,
    /// `width` says how many numbers an item gives.
    fn compute<'s, T>(
        &self,
        (lane, tokens, running): (Lane, usize, &Running<'_>),
        batch: &[&T],
        requests: impl Iterator<Item = &'s Span>,
        width: &dyn Fn(&T) -> usize,
        embed: &Embed<'_, T>,
    ) -> Computed {
        let model = self.model;
        let metrics = model.lane(lane);
        metrics.batch_items.record(batch.len() as f64);
        metrics.batch_tokens.record(tokens as f64);
        let span = telemetry::batch_span(&model.name, lane.label(), batch.len(), tokens, requests);
        let _entered = span.enter();

        let (start, waited) = (Instant::now(), running.waited());
        let outcome = batch::run(batch, width, embed);
        let took = start.elapsed().saturating_sub(running.waited() - waited);
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
        if outcome.worked() && outcome.out_of_memory_at.is_none() {
            model.queues.measured(lane, tokens, took);
        }
        Computed { worked: outcome.worked(), results: outcome.results, took }
    }
}

/// The same result for several tickets. Errors cannot be cloned: the copies carry the text.
fn copies(result: Result<Embedding>, count: usize) -> Vec<Result<Embedding>> {
    let copy = |result: &Result<Embedding>| match result {
        Ok(embedding) => Ok(embedding.clone()),
        Err(error) => Err(error.copy()),
    };
    let mut all: Vec<_> = (1..count).map(|_| copy(&result)).collect();
    all.push(result);
    all
}
