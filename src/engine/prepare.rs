//! Preparation threads: pictures to patches, texts to token ids.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::EngineError;
use super::batch::panic_message;
use super::cache::TextSource;
use super::error::Result;
use super::job::Lane;
use super::lane::{Prepared, Ready, Waiting, Work};
use super::model::Model;
use super::preparation::Preparing;
use super::request::Ticket;
use super::shared::Shared;
use super::views::{Found, vectors_bytes, wanted_of};
use crate::image::{Patches, Views};
use crate::model::PatchVectors;

/// Prepares inputs of one lane until the engine ends.
pub(super) fn run(shared: &Arc<Shared>, lane: Lane) {
    while let Some((item, preparing)) = shared.preparation.next(lane) {
        let model = Arc::clone(&preparing.model);
        prepare(shared, lane, item, preparing);
        // The towers may have failed to come back meanwhile, and everything that waited then been told so.
        if !model.queues.is_idle() {
            shared.want_towers(&model);
        }
        shared.residency.idle();
        shared.free_if_done(&model);
    }
}

fn prepare(shared: &Shared, lane: Lane, item: Waiting, preparing: Preparing<'_>) {
    let Waiting { mut ticket, mut others, work, .. } = item;
    let start = Instant::now();
    ticket.leave(start);
    others.iter_mut().for_each(|ticket| ticket.leave(start));
    if ticket.is_dead(start) {
        drop((work, preparing));
        others.into_iter().for_each(Ticket::answer_dead);
        return ticket.answer_dead();
    }
    let runtime = Arc::clone(&preparing.model);
    let metrics = runtime.lane(lane);
    if let Work::Text(key) = &work
        && let Some(embedding) = shared.cache.get(key)
    {
        metrics.cache_hits.increment(1);
        drop(preparing);
        return ticket.answer(Ok(embedding));
    }

    // Unwind safety: as in a batch, the model is shared between threads and keeps its invariants.
    let result = catch_unwind(AssertUnwindSafe(|| -> Result<_> {
        let cancelled = || ticket.is_dead(Instant::now());
        let Some(prepared) = prepare_one(runtime.model.as_ref(), work, &cancelled)? else { return Ok(None) };
        match (prepared.len(), 1 + others.len()) {
            (found, wanted) if found == wanted => Ok(Some(prepared)),
            (found, wanted) => Err(EngineError::Worker(format!("{found} views instead of {wanted}")).into()),
        }
    }));
    let result = result.unwrap_or_else(|panic| {
        metrics.prepare_panics.increment(1);
        let message = panic_message(panic.as_ref());
        tracing::error!(model = %runtime.name, lane = lane.label(), panic = %message, "preparation panicked");
        Err(EngineError::Worker(format!("preparing the input panicked: {message}")).into())
    });

    let end = Instant::now();
    let took = end - start;
    metrics.prepare.record(took);
    match lane {
        Lane::Images => ticket.timings().decode = took,
        Lane::Texts => ticket.timings().tokenize = took,
    }
    match result {
        // Nobody waits any more.
        Ok(None) => {
            drop(preparing);
            others.into_iter().for_each(Ticket::answer_dead);
            ticket.answer_dead();
        }
        Ok(Some(prepared)) => {
            let ready = |(mut ticket, (prepared, bytes)): (Ticket, (Prepared, usize))| {
                ticket.resize(bytes);
                ticket.enter(end);
                Ready { ticket, prepared }
            };
            let tickets = std::iter::once(ticket).chain(others);
            preparing.done(tickets.zip(prepared).map(ready).collect());
        }
        Err(error) => {
            drop(preparing);
            others.into_iter().for_each(|ticket| ticket.answer(Err(error.copy())));
            ticket.answer(Err(error));
        }
    }
}

/// What the model takes, and the bytes that each holds; nothing where it was cancelled. The file is freed here.
fn prepare_one(
    model: &dyn Model,
    work: Work,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Vec<(Prepared, usize)>>> {
    let width = model.info().embedding_dim;
    let picture = |patches: Patches, wanted: Option<PatchVectors>| {
        let held = patches.pixels.len() + vectors_bytes(wanted, patches.grid.len(), width);
        (Prepared::Image(patches, wanted), held)
    };
    Ok(Some(match work {
        Work::Image { bytes, max_num_patches, patches } => {
            vec![picture(model.prepare_image(&bytes, max_num_patches)?, patches)]
        }
        Work::Views { bytes, views, max_num_patches, found } => {
            let prepared = model.prepare_views(&bytes, max_num_patches, &views, cancelled)?;
            let Some(Views { patches, cover, preview }) = prepared else { return Ok(None) };
            // It is empty: an input is prepared once.
            let _ = found.set(Found { cover, preview });
            patches.into_iter().map(|patches| picture(patches, wanted_of(views.method))).collect()
        }
        Work::Text(key) => {
            let ids = match &key.text {
                TextSource::Text(text, canonicalization) => model.prepare_text(text, *canonicalization)?,
                TextSource::Ids(ids) => model.prepare_ids(ids)?,
            };
            let held = size_of_val(ids.ids.as_slice());
            vec![(Prepared::Text(ids, key), held)]
        }
    }))
}
