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
use super::shared::Shared;

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
    let Waiting { mut ticket, work, .. } = item;
    let start = Instant::now();
    ticket.leave(start);
    if ticket.is_dead(start) {
        drop((work, preparing));
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
    let result = catch_unwind(AssertUnwindSafe(|| prepare_one(runtime.model.as_ref(), work)));
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
        Ok((prepared, bytes)) => {
            ticket.resize(bytes);
            ticket.enter(end);
            preparing.done(Ready { ticket, prepared });
        }
        Err(error) => {
            drop(preparing);
            ticket.answer(Err(error));
        }
    }
}

/// What the model takes, and the bytes that it holds. The file is freed here.
fn prepare_one(model: &dyn Model, work: Work) -> Result<(Prepared, usize)> {
    match work {
        Work::Image { bytes, max_num_patches } => {
            let patches = model.prepare_image(&bytes, max_num_patches)?;
            let held = patches.pixels.len();
            Ok((Prepared::Image(patches), held))
        }
        Work::Text(key) => {
            let ids = match &key.text {
                TextSource::Text(text, canonicalization) => model.prepare_text(text, *canonicalization)?,
                TextSource::Ids(ids) => model.prepare_ids(ids)?,
            };
            let held = size_of_val(ids.ids.as_slice());
            Ok((Prepared::Text(ids, key), held))
        }
    }
}
