//! Which towers are in memory: brought back when a request wants them, dropped when nobody has asked for a while or when
//! others need the room.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::panic_message;
use super::error::Result;
use super::model::Towers;
use super::runtime::ModelRuntime;
use super::shared::{Phase, Shared};
use super::state::{ModelState, Progress};
use super::sync::{self, Condvar, Mutex, lock, wait_for};
use super::{EngineError, allocator};
use crate::Error;

/// Towers that work are left in memory for so long before others may take their room.
const MIN_RESIDENCE: Duration = Duration::from_secs(5);
/// How often to look for room while every model works: some may have had their time by then.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The memory that towers may take together.
pub(super) struct Residency {
    max_bytes: Option<u64>,
    /// Held while room is made and filled: one model is loaded at a time where memory is bounded.
    loading: Mutex<()>,
    changes: Mutex<Changes>,
    /// Told when [`Changes`] changes.
    changed: Condvar,
}

struct Changes {
    /// How often a model became idle.
    idle: u64,
    closed: bool,
}

impl Residency {
    pub(super) fn new(max_bytes: Option<u64>) -> Self {
        let changes = Changes { idle: 0, closed: false };
        Self { max_bytes, loading: Mutex::default(), changes: Mutex::new(changes), changed: Condvar::new() }
    }

    /// A model may have become idle: there may be room for another.
    pub(super) fn idle(&self) {
        if self.max_bytes.is_some() {
            lock(&self.changes).idle += 1;
            self.changed.notify_all();
        }
    }

    /// Ends the waits.
    pub(super) fn close(&self) {
        lock(&self.changes).closed = true;
        self.changed.notify_all();
    }

    /// How often a model became idle so far.
    fn seen(&self) -> u64 {
        lock(&self.changes).idle
    }

    /// Waits for `time`, or, where `seen` is given, until a model became idle after that; `false` if the engine is
    /// closed.
    fn pause(&self, time: Duration, seen: Option<u64>) -> bool {
        let until = Instant::now() + time;
        let mut changes = lock(&self.changes);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let news = seen.is_some_and(|seen| changes.idle != seen);
            if changes.closed || news || left.is_zero() {
                return !changes.closed;
            }
            changes = wait_for(&self.changed, changes, left);
        }
    }
}

impl Shared {
    /// Brings towers into memory, after others made room for them where memory is bounded, and hands them to `place`
    /// before the next model may ask for room.
    pub(super) fn bring_in<T>(
        self: &Arc<Self>,
        model: &Arc<dyn super::Model>,
        progress: &Progress,
        place: impl FnOnce(Vec<Arc<dyn Towers>>) -> Result<T>,
    ) -> Result<T> {
        let bounded = self.residency.max_bytes.is_some();
        let _one_at_a_time = bounded.then(|| lock(&self.residency.loading));
        self.make_room(model.memory_bytes())?;
        let load = || Arc::clone(model).load_towers(progress);
        let towers = catch_unwind(AssertUnwindSafe(load)).map_err(|panic| {
            EngineError::Worker(format!("loading it panicked: {}", panic_message(panic.as_ref())))
        })??;
        if towers.is_empty() {
            return Err(Error::Config("no device was named".into()).into());
        }
        place(towers)
    }

    /// Sees to it that the towers of a model are in memory, or on their way.
    pub(super) fn want_towers(self: &Arc<Self>, model: &Arc<ModelRuntime>) {
        // Whoever closes the engine says so before it lets towers go: they are not brought back.
        if *self.phase.borrow() == Phase::Closed || !model.begin_reload() {
            return;
        }
        self.registry.notify();
        let (shared, model) = (Arc::clone(self), Arc::clone(model));
        sync::spawn("load".to_owned(), move || shared.reload(&model));
    }

    fn reload(self: &Arc<Self>, model: &Arc<ModelRuntime>) {
        let start = Instant::now();
        let result = self.bring_in(&model.model, &Progress::unwatched(), |towers| {
            self.start_workers(model, towers);
            Ok(())
        });
        match result {
            Ok(()) => {
                let seconds = start.elapsed().as_secs_f64();
                tracing::info!(model = %model.name, seconds, "the towers are back in memory");
            }
            Err(error) => {
                tracing::error!(model = %model.name, %error, "the towers did not come back");
                model.reload_failed(error.to_string());
                let failed =
                    || EngineError::loading(&model.name, ModelState::Failed { reason: error.to_string() });
                let waiting = model.queues.clear();
                waiting.into_iter().for_each(|ticket| ticket.answer(Err(failed().into())));
                model.queues.clear_scores().into_iter().for_each(|job| job.fail(failed()));
            }
        }
        self.registry.notify();
        // Whoever closed the engine or let the model go meanwhile has not seen these towers.
        if *self.phase.borrow() == Phase::Closed {
            model.drop_towers();
        }
        self.free_if_done(model);
    }

    /// Drops towers until `bytes` more fit: those that have been idle longest first, and busy ones only where there is no
    /// other way and they have had their time. Waits for it.
    fn make_room(self: &Arc<Self>, bytes: u64) -> Result<()> {
        let Some(max_bytes) = self.residency.max_bytes else { return Ok(()) };
        if bytes > max_bytes {
            let message = format!("its towers take {bytes} bytes, --max-model-memory is {max_bytes}");
            return Err(Error::Config(message).into());
        }
        loop {
            let seen = self.residency.seen();
            let mut resident: Vec<_> = self
                .preparation
                .models()
                .into_iter()
                .filter_map(|model| model.residence().map(|(loaded, used)| (model, loaded, used)))
                .collect();
            let held: u64 = resident.iter().map(|(model, ..)| model.model.memory_bytes()).sum();
            if held.saturating_add(bytes) <= max_bytes {
                return Ok(());
            }
            resident.sort_by_key(|&(.., used)| used);
            let now = Instant::now();
            let idle = resident.iter().find(|(model, ..)| model.is_idle());
            let busy =
                || resident.iter().find(|&&(_, loaded, _)| now.duration_since(loaded) >= MIN_RESIDENCE);
            match idle.or_else(busy) {
                Some((model, ..)) => {
                    if self.unload(model, "to make room for another model") {
                        model.metrics.evicted.increment(1);
                    }
                }
                None => {
                    if !self.residency.pause(LOOK_AGAIN, Some(seen)) {
                        return Err(EngineError::ShuttingDown.into());
                    }
                }
            }
        }
    }

    /// Drops the towers of a model and waits until their memory is free. Requests that wait bring them back.
    fn unload(self: &Arc<Self>, model: &Arc<ModelRuntime>, why: &str) -> bool {
        let Some(towers) = model.drop_towers() else { return false };
        // A request that came before they were dropped has not asked for them.
        if !model.queues.is_idle() {
            self.want_towers(model);
        }
        model.wait_until_gone(&towers);
        allocator::give_back();
        tracing::info!(model = %model.name, "unloaded {why}");
        self.registry.notify();
        true
    }

    /// Drops towers that nobody has used for `limit`, until the engine ends.
    pub(super) fn unload_idle(self: &Arc<Self>, limit: Duration) {
        let look = (limit / 8).clamp(Duration::from_millis(10), Duration::from_secs(10));
        while self.residency.pause(look, None) {
            for model in self.preparation.models() {
                let Some((_, used)) = model.residence() else { continue };
                let idle = used.elapsed() >= limit && model.is_idle();
                if idle && self.unload(&model, "since nobody asked for a while") {
                    model.metrics.idle.increment(1);
                }
            }
        }
    }
}
