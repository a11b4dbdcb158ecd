//! Worker threads: one batch after the other on one model.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use super::batch::{self, Embed, Outcome};
use super::cache::TextKey;
use super::handle::{ModelEntry, Shared};
use super::health;
use super::lane::{Lane, Prepared, Ready};
use super::model::Model;
use super::request::Ticket;
use super::scheduler::Batch;
use super::{Embedding, EngineError};
use crate::image::{ImageSpec, Patches};
use crate::text::{TextSpec, TokenIds};
use crate::{Error, Result, telemetry};

/// Runs batches of one model on one of its replicas until the engine ends.
pub(super) fn run(shared: &Shared, model: usize, replica: usize) {
    let entry = &shared.models[model];
    let health = &entry.health[replica];
    loop {
        // What others can compute is not for a replica that fails.
        if health.is_failing() && !entry.is_failing() {
            if !shared.scheduler.pause(health::RETRY) {
                return;
            }
            health.probe(&entry.name, || warm_up(entry, replica));
            continue;
        }
        // A text that is cached by now, or in this batch already, costs nothing.
        let mut texts: HashSet<Arc<TextKey>> = HashSet::new();
        let mut cost = |item: &Ready| match &item.prepared {
            Prepared::Text(_, key) if shared.cache.contains(key) || !texts.insert(Arc::clone(key)) => 0,
            _ => item.tokens(),
        };
        let patience = health.is_failing().then_some(health::RETRY);
        let Some(Batch { lane, items }) = shared.scheduler.next_batch(model, &mut cost, patience) else {
            return;
        };
        if items.is_empty() {
            health.probe(&entry.name, || warm_up(entry, replica));
        } else {
            run_batch(shared, model, replica, lane, items);
        }
    }
}

fn run_batch(shared: &Shared, model: usize, replica: usize, lane: Lane, items: Vec<Ready>) {
    let now = Instant::now();
    let (mut images, mut texts): (Vec<(Ticket, Patches)>, Vec<Text>) = (Vec::new(), Vec::new());
    let mut seen: HashMap<Arc<TextKey>, usize> = HashMap::new();
    let entry = &shared.models[model];
    let metrics = entry.lane(lane);
    for Ready { mut ticket, prepared } in items {
        ticket.leave(now);
        if ticket.is_dead(now) {
            ticket.bury();
            continue;
        }
        match prepared {
            Prepared::Image(patches) => images.push((ticket, patches)),
            Prepared::Text(ids, key) => {
                if let Some(embedding) = shared.cache.get(&key) {
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
        embed_images(Place { shared, model, replica, lane: Lane::Images }, images);
    }
    if !texts.is_empty() {
        embed_texts(Place { shared, model, replica, lane: Lane::Texts }, texts);
    }
}

/// One text and everybody in the batch who asked for it.
struct Text {
    tickets: Vec<Ticket>,
    ids: TokenIds,
    key: Arc<TextKey>,
}

fn embed_images(place: Place<'_>, items: Vec<(Ticket, Patches)>) {
    let batch: Vec<&Patches> = items.iter().map(|(_, patches)| patches).collect();
    let tokens = batch.iter().map(|patches| patches.grid.len()).sum();
    let requests = items.iter().map(|(ticket, _)| ticket.span());
    let (results, took) = place.compute(&batch, tokens, requests, &|part: &[&Patches]| {
        place.entry().model.embed_images_on(place.replica, part)
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

fn embed_texts(place: Place<'_>, items: Vec<Text>) {
    let batch: Vec<&TokenIds> = items.iter().map(|text| &text.ids).collect();
    let tokens = batch.iter().map(|ids| ids.ids.len()).sum();
    let requests = items.iter().flat_map(|text| text.tickets.iter().map(Ticket::span));
    let (results, took) = place.compute(&batch, tokens, requests, &|part: &[&TokenIds]| {
        place.entry().model.embed_texts_on(place.replica, part)
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
            place.shared.cache.insert(key, embedding.clone());
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

/// The same result for several tickets. Errors cannot be cloned: the copies carry the text.
fn copies(result: Result<Embedding>, count: usize) -> Vec<Result<Embedding>> {
    let copy = |result: &Result<Embedding>| match result {
        Ok(embedding) => Ok(embedding.clone()),
        Err(Error::Engine(error)) => Err(error.clone().into()),
        Err(error) => Err(EngineError::Worker(error.to_string()).into()),
    };
    let mut all: Vec<_> = (1..count).map(|_| copy(&result)).collect();
    all.push(result);
    all
}

/// Where a batch is computed.
struct Place<'a> {
    shared: &'a Shared,
    model: usize,
    replica: usize,
    lane: Lane,
}

impl Place<'_> {
    fn entry(&self) -> &ModelEntry {
        &self.shared.models[self.model]
    }

    /// A result for each of `batch`, and how long it took. `requests` are the spans of those who asked.
    fn compute<'s, T>(
        &self,
        batch: &[&T],
        tokens: usize,
        requests: impl Iterator<Item = &'s Span>,
        embed: &Embed<'_, T>,
    ) -> (Vec<Result<Vec<f32>>>, Duration) {
        let Self { shared, model, replica, lane } = *self;
        let entry = self.entry();
        let metrics = entry.lane(lane);
        metrics.batch_items.record(batch.len() as f64);
        metrics.batch_tokens.record(tokens as f64);
        let span = telemetry::batch_span(&entry.name, lane.label(), batch.len(), tokens, requests);
        let _entered = span.enter();

        let start = Instant::now();
        let Outcome { results, out_of_memory_at, panics } = batch::run(batch, embed);
        let took = start.elapsed();
        metrics.inference.record(took);
        if panics > 0 {
            metrics.batch_panics.increment(panics as u64);
            tracing::error!(panics, "the model panicked on a batch");
        }
        if let Some(items) = out_of_memory_at {
            metrics.out_of_memory.increment(1);
            let too_many = (tokens * items).div_ceil(batch.len());
            shared.scheduler.shrink(model, lane, too_many);
            tracing::warn!(items, too_many, "the device ran out of memory: smaller batches for a while");
        }
        let worked = results.iter().any(Result::is_ok);
        entry.health[replica].after_batch(&entry.name, worked, || warm_up(entry, replica));
        (results, took)
    }
}

/// One picture and one text through the towers that a replica has.
pub(super) fn warm_up(entry: &ModelEntry, replica: usize) -> Result<()> {
    let model = entry.model.as_ref();
    if let Some(spec) = &model.info().image {
        let patches = gray(spec);
        first(batch::run(&[&patches], &|batch: &[&Patches]| model.embed_images_on(replica, batch)))?;
    }
    if let Some(spec) = &model.info().text {
        let ids = some_text(model, spec);
        first(batch::run(&[&ids], &|batch: &[&TokenIds]| model.embed_texts_on(replica, batch)))?;
    }
    Ok(())
}

fn first(outcome: Outcome) -> Result<()> {
    outcome.results.into_iter().try_for_each(|result| result.map(drop))
}

/// A gray picture of the size that the model sees.
fn gray(spec: &ImageSpec) -> Patches {
    let (patch, grid) = (spec.patch.max(1), spec.grid());
    let source = ((grid.rows * patch) as u32, (grid.cols * patch) as u32);
    Patches { pixels: vec![127; grid.len() * patch * patch * 3], grid, source }
}

/// Warms the tokenizer too, where there is one.
fn some_text(model: &dyn Model, spec: &TextSpec) -> TokenIds {
    model.prepare_text("a photo of a cat", None).unwrap_or_else(|_| TokenIds {
        ids: vec![0; spec.context],
        used: 1,
        truncated: false,
    })
}
