//! Who gets in: bounds on the inputs and the bytes that the engine holds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::EngineError;
use super::job::Class;
use super::reservation::Reservations;
use crate::budget::{Charge, MemoryBudget, MemoryKind, Tally};

/// How long to wait where nothing has been measured yet.
const UNMEASURED: Duration = Duration::from_secs(1);
/// Nobody is told to come back sooner or later than this.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// How often whoever waits looks for room that nobody told of.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One place in this many is kept for clients who hold little.
const RESERVE: usize = 8;
/// A client holds little up to one place in this many.
const LITTLE: usize = 4;
/// A request is large if it asks for more than one place in this many: then room is kept for it where it is refused.
const LARGE: usize = 2;

/// Counts what the engine holds. A request is admitted whole or not at all, and at once.
///
/// The last eighth of the places is for those who hold at most a quarter of them: a client with a
/// thousand inputs in the queue cannot shut out one that sends its first. A large request that is refused is kept room for
/// when it comes again: many small ones cannot shut it out either.
pub(super) struct Admission {
    max_items: usize,
    max_bytes: usize,
    /// What all memory of requests is charged to.
    memory: MemoryBudget,
    held: Mutex<Held>,
    /// Told when the last item is answered.
    idle: Notify,
    /// Told when there is more room.
    freed: Notify,
    /// Whoever waits for room has the turn of their class.
    turns: [tokio::sync::Mutex<()>; 2],
}

struct Held {
    open: bool,
    items: usize,
    bytes: usize,
    /// Items of each client that holds any.
    clients: HashMap<u64, usize>,
    /// Items whose answer is not out yet. An item's place is released before: a client that reacts to the answer must
    /// find the place free.
    unanswered: usize,
    rate: DrainRate,
    reservations: Reservations,
}

/// Who asks for places.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) client: u64,
    pub(super) class: Class,
    /// What the memory of the request sums up to, where it holds any already.
    pub(super) tally: Option<Tally>,
}

/// A refusal and its label in the metrics.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: &'static str,
    pub(super) error: EngineError,
}

/// The place of one admitted item. Drop it when the item is answered.
pub(super) struct Permit {
    admission: Arc<Admission>,
    client: u64,
    bytes: usize,
    /// The same bytes in the budget of all requests.
    charge: Option<Charge>,
    released: bool,
}

impl Admission {
    /// Bounds of the engine alone.
    #[cfg(test)]
    pub(super) fn new(max_items: usize, max_bytes: usize) -> Arc<Self> {
        Self::within(max_items, max_bytes, MemoryBudget::new(usize::MAX))
    }

    /// Bounds of the engine, within the memory of all requests.
    pub(super) fn within(max_items: usize, max_bytes: usize, memory: MemoryBudget) -> Arc<Self> {
        let held = Held {
            open: true,
            items: 0,
            bytes: 0,
            clients: HashMap::new(),
            unanswered: 0,
            rate: DrainRate::default(),
            reservations: Reservations::default(),
        };
        Arc::new(Self {
            max_items,
            max_bytes,
            memory,
            held: Mutex::new(held),
            idle: Notify::new(),
            freed: Notify::new(),
            turns: Default::default(),
        })
    }

    /// [`Self::admit_for`] a client of whose request nothing else is known.
    #[cfg(test)]
    pub(super) fn admit(
        self: &Arc<Self>,
        costs: &[usize],
        client: u64,
        class: Class,
        now: Instant,
    ) -> Result<Vec<Permit>, Refused> {
        self.admit_for(costs, &Asker { client, class, tally: None }, now)
    }

    /// A permit for each of `costs` (bytes of an item) of a client's request, or none at all.
    pub(super) fn admit_for(
        self: &Arc<Self>,
        costs: &[usize],
        &Asker { client, class, ref tally }: &Asker,
        now: Instant,
    ) -> Result<Vec<Permit>, Refused> {
        let (items, bytes) = (costs.len(), costs.iter().fold(0usize, |sum, &cost| sum.saturating_add(cost)));
        let mut held = self.held();
        if !held.open {
            return Err(Refused { reason: "stopping", error: EngineError::ShuttingDown });
        }
        let (max_items, max_bytes) = self.room_of(class);
        if items > max_items {
            let text = format!("{items} inputs, at most {max_items} are queued");
            return Err(Refused { reason: "too_large", error: EngineError::TooLarge(text) });
        }
        if bytes > max_bytes {
            let text = format!("{bytes} bytes, at most {max_bytes} are queued");
            return Err(Refused { reason: "too_large", error: EngineError::TooLarge(text) });
        }
        let own = held.clients.get(&client).copied().unwrap_or(0) + items;
        let reserved = held.reservations.is_for(client, items);
        let kept = held.reservations.kept_from(client, now);
        let places =
            if reserved { self.max_items } else { self.places_for(own, held.items, kept) }.min(max_items);
        let items_over = (held.items + items).saturating_sub(places);
        let bytes_over = held.bytes.saturating_add(bytes).saturating_sub(max_bytes);
        if items_over > 0 || bytes_over > 0 {
            let mean = held.bytes / held.items.max(1);
            let retry_after = held.rate.time_for(items_over.max(bytes_over.div_ceil(mean.max(1))), now);
            let (reason, text) = if items_over > 0 {
                let kept = match self.max_items - places {
                    0 => String::new(),
                    kept => format!(", the last {kept} places are kept for other clients"),
                };
                if items > self.max_items / LARGE {
                    held.reservations.refused(client, items, retry_after, now);
                }
                ("queue_items", format!("{} of {} inputs queued{kept}", held.items, self.max_items))
            } else {
                ("queue_bytes", format!("{} of {} bytes queued", held.bytes, self.max_bytes))
            };
            return Err(Refused { reason, error: EngineError::Overloaded { reason: text, retry_after } });
        }
        let of_request = tally.as_ref().map(|tally| self.memory.of_request(tally));
        let memory = of_request.as_ref().unwrap_or(&self.memory);
        let mut charge = memory.charge(client, MemoryKind::Queue, bytes).map_err(|exceeded| {
            let text = exceeded.to_string();
            if exceeded.never_fits {
                return Refused { reason: "too_large", error: EngineError::TooLarge(text) };
            }
            let retry_after = held.rate.time_for(items.max(1), now);
            Refused { reason: "queue_bytes", error: EngineError::Overloaded { reason: text, retry_after } }
        })?;
        held.reservations.admitted(client, items);
        held.rate.busy(now);
        held.items += items;
        held.bytes += bytes;
        held.unanswered += items;
        if items > 0 {
            *held.clients.entry(client).or_default() += items;
        }
        Ok(costs
            .iter()
            .map(|&bytes| {
                let charge = Some(charge.split(bytes));
                Permit { admission: Arc::clone(self), client, bytes, charge, released: false }
            })
            .collect())
    }

    /// [`Self::admit_for`] that waits until there is room: first come, first served within a class.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        costs: &[usize],
        asker: &Asker,
    ) -> Result<Vec<Permit>, Refused> {
        let _turn = self.turns[asker.class as usize].lock().await;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Listening begins before the look, or room could be made in between.
            freed.as_mut().enable();
            match self.admit_for(costs, asker, Instant::now()) {
                Err(Refused { error: EngineError::Overloaded { retry_after, .. }, .. }) => {
                    // Memory may be held outside of the engine, which does not tell when it is given back.
                    let _ = tokio::time::timeout(retry_after.min(LOOK_AGAIN), freed).await;
                }
                other => return other,
            }
        }
    }

    /// Items and bytes that a class may fill: background work leaves half to whoever waits for an answer.
    fn room_of(&self, class: Class) -> (usize, usize) {
        match class {
            Class::Interactive => (self.max_items, self.max_bytes),
            Class::Background => (self.max_items.div_ceil(2), self.max_bytes.div_ceil(2)),
        }
    }

    /// Places open to a client that would then hold `own` items, where `held` are taken and `kept` are reserved for
    /// another client.
    fn places_for(&self, own: usize, held: usize, kept: usize) -> usize {
        let reserve = self.max_items / RESERVE;
        // Into an empty engine goes whatever fits at all.
        let all = held == 0 || own <= self.max_items / LITTLE;
        let open = if all { self.max_items } else { self.max_items - reserve };
        // Some are left to the others, or whoever asks for everything would stop the service.
        open.min((self.max_items - kept.min(self.max_items)).max(reserve))
    }

    /// Admits nothing from now on.
    pub(super) fn close(&self) {
        self.held().open = false;
        self.freed.notify_waiters();
    }

    /// Items and bytes held now.
    pub(super) fn load(&self) -> (usize, usize) {
        let held = self.held();
        (held.items, held.bytes)
    }

    /// Items whose answer is not out yet.
    pub(super) fn unanswered(&self) -> usize {
        self.held().unanswered
    }

    /// Waits until everything is answered.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Listening begins before the look, or the last item could leave in between.
            idle.as_mut().enable();
            if self.unanswered() == 0 {
                return;
            }
            idle.await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Says that the item holds another number of bytes now.
    pub(super) fn resize(&mut self, bytes: usize) {
        let mut held = self.admission.held();
        held.bytes = held.bytes - self.bytes + bytes;
        drop(held);
        if let Some(charge) = &mut self.charge {
            // What was admitted is an upper bound; more than that is held all the same.
            charge.shrink(self.bytes.saturating_sub(bytes));
        }
        if bytes < self.bytes {
            self.admission.freed.notify_waiters();
        }
        self.bytes = bytes;
    }

    /// Gives the place back; with a time, after work, which counts for the measured rate.
    pub(super) fn release(&mut self, finished: Option<Instant>) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        let mut held = self.admission.held();
        self.charge = None;
        held.items -= 1;
        held.bytes -= self.bytes;
        if let Entry::Occupied(mut own) = held.clients.entry(self.client) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
        if let Some(now) = finished {
            held.rate.finished(now);
        }
        if held.items == 0 {
            held.rate.idle();
        }
        drop(held);
        self.admission.freed.notify_waiters();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release(None);
        let mut held = self.admission.held();
        held.unanswered -= 1;
        if held.unanswered == 0 {
            self.admission.idle.notify_waiters();
        }
    }
}

/// Items a second that leave the engine while it is busy.
#[derive(Debug, Default)]
struct DrainRate {
    /// Start of the current window and what finished in it; none while the engine is idle.
    window: Option<(Instant, usize)>,
    /// Of the windows before, the last ones most.
    per_second: Option<f64>,
}

impl DrainRate {
    const WINDOW: Duration = Duration::from_secs(1);

    fn busy(&mut self, now: Instant) {
        self.window.get_or_insert((now, 0));
    }

    fn idle(&mut self) {
        self.window = None;
    }

    fn finished(&mut self, now: Instant) {
        let Some((since, count)) = &mut self.window else { return };
        *count += 1;
        let elapsed = now.saturating_duration_since(*since);
        if elapsed >= Self::WINDOW {
            let measured = *count as f64 / elapsed.as_secs_f64();
            self.per_second = Some(self.per_second.map_or(measured, |before| (before + measured) / 2.0));
            self.window = Some((now, 0));
        }
    }

    /// How long it takes until so many items have left.
    fn time_for(&self, items: usize, now: Instant) -> Duration {
        let current = || {
            let (since, count) = self.window.filter(|&(_, count)| count > 0)?;
            Some(count as f64 / now.saturating_duration_since(since).as_secs_f64().max(1e-3))
        };
        let time = self.per_second.or_else(current).map_or(UNMEASURED, |rate| {
            Duration::try_from_secs_f64(items as f64 / rate).unwrap_or(RETRY_AFTER.1)
        });
        time.clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: u64 = 1;
    const OTHER: u64 = 2;

    fn refused(result: Result<Vec<Permit>, Refused>) -> EngineError {
        result.err().expect("it is full").error
    }

    #[test]
    fn a_request_is_admitted_whole_or_not_at_all() {
        let (admission, now) = (Admission::new(10, 1000), Instant::now());
        let eight = admission.admit(&[10; 8], ONE, Class::Interactive, now).expect("room");
        assert_eq!(admission.load(), (8, 80));
        assert!(matches!(
            refused(admission.admit(&[10; 3], ONE, Class::Interactive, now)),
            EngineError::Overloaded { .. }
        ));
        assert_eq!(admission.load(), (8, 80), "a refused request holds nothing");
        let two = admission.admit(&[10; 2], OTHER, Class::Interactive, now).expect("room for exactly two");
        // Full is full, for one and for many.
        for n in [1, 2, 10] {
            let error = refused(admission.admit(&vec![1; n], OTHER, Class::Interactive, now));
            let EngineError::Overloaded { reason, .. } = &error else { panic!("{error}") };
            assert!(reason.starts_with("10 of 10 inputs queued"), "{reason}");
        }
        drop((eight, two));
        assert_eq!(admission.load(), (0, 0));
    }

    #[test]
    fn the_last_places_are_for_those_who_hold_little() {
        let (admission, now) = (Admission::new(80, usize::MAX), Instant::now());
        let mut many = admission.admit(&[0; 60], ONE, Class::Interactive, now).expect("room");
        let EngineError::Overloaded { reason, .. } =
            refused(admission.admit(&[0; 11], ONE, Class::Interactive, now))
        else {
            panic!("the queue is not too small")
        };
        assert_eq!(reason, "60 of 80 inputs queued, the last 10 places are kept for other clients");
        many.extend(
            admission.admit(&[0; 10], ONE, Class::Interactive, now).expect("room before the last eighth"),
        );
        assert!(admission.admit(&[0], ONE, Class::Interactive, now).is_err());
        let few = admission.admit(&[0; 10], OTHER, Class::Interactive, now).expect("kept for such as this");
        assert!(admission.admit(&[0], OTHER, Class::Interactive, now).is_err(), "full is full");
        drop((many, few));
        assert!(admission.held().clients.is_empty());
        // Alone and first, a client may have all of it.
        assert!(admission.admit(&[0; 80], ONE, Class::Interactive, now).is_ok());
    }

    #[test]
    fn a_large_request_is_not_kept_out_by_small_ones() {
        let (admission, start) = (Admission::new(2048, usize::MAX), Instant::now());
        let mut held = std::collections::VecDeque::new();
        let mut next = 100;
        let (mut retry_at, mut large) = (start + Duration::from_secs(1), None);
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            if large.is_none() && retry_at <= now {
                match admission.admit(&[0; 1500], ONE, Class::Interactive, now) {
                    Ok(permits) => large = Some((second, permits)),
                    Err(Refused { error: EngineError::Overloaded { retry_after, .. }, .. }) => {
                        retry_at = now + Duration::from_secs(retry_after.as_secs() + 1);
                    }
                    Err(refused) => panic!("{refused:?}"),
                }
            }
            // Clients that never were here fill whatever they may.
            while let Ok(permits) = admission.admit(&[0; 10], next, Class::Interactive, now) {
                next += 1;
                held.push_back(permits);
            }
            for mut permits in held.drain(..10) {
                permits.iter_mut().for_each(|permit| permit.release(Some(now)));
            }
        }
        let (second, _) = large.expect("admitted in the end");
        assert!((1..60).contains(&second), "after {second} s");
        // Small ones go on meanwhile.
        assert!(next > 100 + 600, "{next}");
    }

    #[test]
    fn what_never_fits_is_too_large() {
        let (admission, now) = (Admission::new(10, 1000), Instant::now());
        for costs in [vec![1; 11], vec![1001], vec![usize::MAX, usize::MAX]] {
            assert!(matches!(
                refused(admission.admit(&costs, ONE, Class::Interactive, now)),
                EngineError::TooLarge(_)
            ));
        }
        assert!(admission.admit(&[1000], ONE, Class::Interactive, now).is_ok());
    }

    #[test]
    fn bytes_are_a_bound_of_their_own_and_follow_the_item() {
        let (admission, now) = (Admission::new(10, 1000), Instant::now());
        let mut held = admission.admit(&[900], ONE, Class::Interactive, now).expect("room");
        assert_eq!(
            admission.admit(&[200], ONE, Class::Interactive, now).err().expect("full").reason,
            "queue_bytes"
        );
        held[0].resize(100);
        assert_eq!(admission.load(), (1, 100));
        let more = admission.admit(&[900], ONE, Class::Interactive, now).expect("room now");
        drop((held, more));
        assert_eq!(admission.load(), (0, 0));
    }

    #[test]
    fn bytes_are_charged_to_their_client() {
        let memory = MemoryBudget::new(1600);
        let (admission, now) = (Admission::within(100, usize::MAX, memory.clone()), Instant::now());
        let Refused { reason, error } =
            admission.admit(&[801], ONE, Class::Interactive, now).err().expect("half is for one");
        assert!(matches!((reason, &error), ("too_large", EngineError::TooLarge(_))), "{error}");
        let mut many = admission.admit(&[400, 400], ONE, Class::Interactive, now).expect("all of it");
        let Refused { reason, error } =
            admission.admit(&[1], ONE, Class::Interactive, now).err().expect("no more");
        assert!(matches!((reason, &error), ("queue_bytes", EngineError::Overloaded { .. })), "{error}");
        // What the request holds elsewhere counts: this one never fits.
        let tally = Tally::default();
        let held = memory.of_request(&tally).charge(OTHER, MemoryKind::Answer, 300).expect("room");
        let asker = Asker { client: OTHER, class: Class::Interactive, tally: Some(tally) };
        let Refused { reason, error } = admission.admit_for(&[501], &asker, now).err().expect("no more");
        assert!(matches!((reason, &error), ("too_large", EngineError::TooLarge(_))), "{error}");
        drop(held);
        let other = admission.admit(&[100], OTHER, Class::Interactive, now).expect("its own share");
        assert_eq!(memory.of_kind(MemoryKind::Queue), 900);
        many[0].resize(100);
        many[1].release(None);
        assert_eq!((memory.total(), admission.load()), (200, (2, 200)));
        drop((many, other));
        assert_eq!(memory.total(), 0);
    }

    #[test]
    fn retry_after_follows_the_measured_rate() {
        let (admission, start) = (Admission::new(100, usize::MAX), Instant::now());
        let mut permits = admission.admit(&[0; 100], ONE, Class::Interactive, start).expect("room");
        let retry = |n: usize, now| match refused(admission.admit(&vec![0; n], ONE, Class::Interactive, now))
        {
            EngineError::Overloaded { retry_after, .. } => retry_after,
            error => panic!("{error}"),
        };
        assert_eq!(retry(1, start), UNMEASURED);
        // 20 items in two seconds: ten a second.
        for i in 1..=20 {
            permits.pop().expect("held").release(Some(start + Duration::from_millis(100 * i)));
        }
        let now = start + Duration::from_secs(2);
        assert_eq!(retry(30, now).as_millis(), 2200, "80 held, 88 places: 22 must leave");
        // Those who left without work say nothing about the rate.
        permits.truncate(60);
        assert_eq!(retry(60, now).as_millis(), 3200);
        assert_eq!(retry(100, now).as_millis(), 7200);
    }

    #[tokio::test]
    async fn idle_is_told_when_the_last_item_leaves() {
        let admission = Admission::new(4, 100);
        admission.idle().await;
        let mut permits = admission.admit(&[1, 1], ONE, Class::Interactive, Instant::now()).expect("room");
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        admission.close();
        assert_eq!(
            refused(admission.admit(&[1], ONE, Class::Interactive, Instant::now())),
            EngineError::ShuttingDown
        );
        permits.iter_mut().for_each(|permit| permit.release(None));
        assert_eq!(admission.load(), (0, 0));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the answers are not out");
        drop(permits);
        waiting.await.expect("told");
    }
}
