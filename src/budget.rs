//! The memory that requests make the process hold: one limit, a share for each client, counted by kind.
//!
//! Whoever creates bytes charges them before it does, and the [`Charge`] travels with the bytes: dropping it gives them
//! back. So the process holds at most its base and the limit, whatever is sent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One client may hold one part in this many of the limit.
const SHARE: usize = 2;
/// The last part in this many of the limit is kept for clients that hold little.
const RESERVE: usize = 4;
/// A client holds little up to one part in this many of the limit.
const LITTLE: usize = 16;

/// What the bytes are, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// The body of a request as it was sent.
    Body,
    /// What parsing made of it: lists, strings, expanded prompts, pictures out of base64.
    Parsed,
    /// Pictures that are fetched by URL.
    Fetch,
    /// Patches and token ids that wait for a batch.
    Queue,
    /// Decoded pixels.
    Decode,
    /// An answer under construction.
    Answer,
    /// Label sets that are stored.
    Labels,
}

impl MemoryKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Body, Self::Parsed, Self::Fetch, Self::Queue, Self::Decode, Self::Answer, Self::Labels];

    /// The label in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Parsed => "parsed",
            Self::Fetch => "fetch",
            Self::Queue => "queue",
            Self::Decode => "decode",
            Self::Answer => "answer",
            Self::Labels => "labels",
        }
    }
}

/// The budget; clones share it.
///
/// A client may hold half of the limit. The last quarter of the limit is for clients that hold at most a sixteenth:
/// two clients that hold all they may cannot shut out a third.
#[derive(Clone)]
pub struct MemoryBudget {
    inner: Arc<Inner>,
    /// Of the request that charges are made for through this clone.
    tally: Option<Tally>,
}

/// The bytes that all charges of one request hold together. A request that needs more than a client may hold can never be
/// answered, even where each of its charges alone would fit.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<AtomicUsize>);

impl Tally {
    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Inner {
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    total: usize,
    kinds: [usize; MemoryKind::ALL.len()],
    /// Bytes of each client that holds any.
    clients: HashMap<u64, usize>,
}

/// There is no room for so many bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} bytes of memory are needed, {}",
    if *never_fits { format!("one client may hold {share}") } else { format!("{held} of {limit} are held") }
)]
pub struct Exceeded {
    /// Whether they would not fit either if nothing else were held: trying again is of no use.
    pub never_fits: bool,
    /// The bytes asked for, with what the charge, or all charges of its request, held already.
    pub wanted: usize,
    /// What one client may hold.
    pub share: usize,
    /// Bytes held by all clients.
    pub held: usize,
    /// The limit of the whole budget.
    pub limit: usize,
}

/// Bytes that are held. Dropping it gives them back.
pub struct Charge {
    budget: MemoryBudget,
    client: u64,
    kind: MemoryKind,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { inner: Arc::new(Inner { limit, held: Mutex::default() }), tally: None }
    }

    /// The same budget for the charges of one request.
    #[must_use]
    pub fn of_request(&self, tally: &Tally) -> Self {
        Self { inner: Arc::clone(&self.inner), tally: Some(tally.clone()) }
    }

    /// The whole limit in bytes.
    pub fn limit(&self) -> usize {
        self.inner.limit
    }

    /// What one client may hold, in bytes.
    pub fn share(&self) -> usize {
        share_of(self.inner.limit)
    }

    /// Bytes held now.
    pub fn total(&self) -> usize {
        self.held().total
    }

    /// Bytes held now, unless they are just being counted: an allocator may ask, which must not wait.
    pub fn try_total(&self) -> Option<usize> {
        self.inner.held.try_lock().ok().map(|held| held.total)
    }

    /// Bytes of one kind held now.
    pub fn of_kind(&self, kind: MemoryKind) -> usize {
        self.held().kinds[kind as usize]
    }

    /// Charges a client for `bytes`, which may be none.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn charge(&self, client: u64, kind: MemoryKind, bytes: usize) -> Result<Charge, Exceeded> {
        let mut charge = Charge { budget: self.clone(), client, kind, bytes: 0 };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Whether a client could be charged for `bytes` more now.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn check(&self, client: u64, bytes: usize) -> Result<(), Exceeded> {
        self.fits(&self.held(), client, 0, bytes)
    }

    fn fits(&self, held: &Held, client: u64, before: usize, more: usize) -> Result<(), Exceeded> {
        let Inner { limit, .. } = *self.inner;
        let share = self.share();
        let own = held.clients.get(&client).copied().unwrap_or(0).saturating_add(more);
        let open = if own <= limit / LITTLE { limit } else { limit - limit / RESERVE };
        if more == 0 || (own <= share && held.total.saturating_add(more) <= open) {
            return Ok(());
        }
        let before = self.tally.as_ref().map_or(before, Tally::bytes);
        let wanted = before.saturating_add(more);
        Err(Exceeded { never_fits: wanted > share, wanted, share, held: held.total, limit })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one client may hold of a budget.
pub fn share_of(limit: usize) -> usize {
    limit / SHARE
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBudget({} of {} bytes)", self.total(), self.limit())
    }
}

impl Held {
    fn add(&mut self, client: u64, kind: MemoryKind, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.total += bytes;
        self.kinds[kind as usize] += bytes;
        *self.clients.entry(client).or_default() += bytes;
    }

    fn remove(&mut self, client: u64, kind: MemoryKind, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.total -= bytes;
        self.kinds[kind as usize] -= bytes;
        if let Entry::Occupied(mut own) = self.clients.entry(client) {
            *own.get_mut() -= bytes;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

impl Charge {
    /// Bytes held by this charge.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The client that is charged.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// Charges `more` bytes; where there is no room nothing changes.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn grow(&mut self, more: usize) -> Result<(), Exceeded> {
        let mut held = self.budget.held();
        self.budget.fits(&held, self.client, self.bytes, more)?;
        held.add(self.client, self.kind, more);
        self.bytes += more;
        if let Some(Tally(bytes)) = &self.budget.tally {
            bytes.fetch_add(more, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Holds `bytes` from now on: gives back the rest, or charges what is missing.
    ///
    /// # Errors
    /// If there is no room for what is missing; then nothing changes.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Exceeded> {
        match self.bytes.checked_sub(bytes) {
            Some(less) => self.shrink(less),
            None => self.grow(bytes - self.bytes)?,
        }
        Ok(())
    }

    /// Gives back `less` bytes, at most all.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.bytes);
        self.budget.held().remove(self.client, self.kind, less);
        self.bytes -= less;
        if let Some(Tally(bytes)) = &self.budget.tally {
            bytes.fetch_sub(less, Ordering::Relaxed);
        }
    }

    /// Takes `bytes`, at most all, into a charge of their own.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), client: self.client, kind: self.kind, bytes }
    }

    /// Takes over the bytes of another charge of the same request, and counts them as its own kind.
    pub fn merge(&mut self, other: Self) {
        let mut other = other.into_kind(self.kind);
        debug_assert!(self.client == other.client, "a charge belongs to one client");
        let tally = |of: &Self| of.budget.tally.as_ref().map(|tally| Arc::as_ptr(&tally.0));
        debug_assert!(tally(self) == tally(&other), "a charge belongs to one request");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// The same bytes, counted as another kind.
    pub fn into_kind(mut self, kind: MemoryKind) -> Self {
        let mut held = self.budget.held();
        held.remove(self.client, self.kind, self.bytes);
        held.add(self.client, kind, self.bytes);
        drop(held);
        self.kind = kind;
        self
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({} bytes of {})", self.bytes, self.kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryKind::{Answer, Body, Parsed};
    use super::*;

    #[test]
    fn what_is_dropped_is_free_again() {
        let budget = MemoryBudget::new(1000);
        let mut body = budget.charge(1, Body, 300).unwrap();
        body.grow(200).unwrap();
        assert_eq!((budget.total(), budget.of_kind(Body)), (500, 500));
        assert_eq!(body.grow(1).unwrap_err().wanted, 501);
        assert_eq!(body.bytes(), 500, "a refused growth changes nothing");
        body.shrink(400);
        let half = body.split(50);
        assert_eq!((body.bytes(), half.bytes(), budget.total()), (50, 50, 100));
        let parsed = half.into_kind(Parsed);
        assert_eq!((budget.of_kind(Body), budget.of_kind(Parsed)), (50, 50));
        body.merge(parsed);
        assert_eq!((budget.of_kind(Body), budget.of_kind(Parsed), body.bytes()), (100, 0, 100));
        drop(body);
        assert_eq!(budget.total(), 0);
        assert!(budget.held().clients.is_empty());
    }

    #[test]
    fn no_client_holds_more_than_its_share() {
        let budget = MemoryBudget::new(1600);
        let refused = budget.charge(1, Body, 801).unwrap_err();
        assert!(refused.never_fits, "{refused}");
        assert_eq!(refused.to_string(), "801 bytes of memory are needed, one client may hold 800");
        let first = budget.charge(1, Body, 800).unwrap();
        assert!(!budget.charge(1, Body, 1).unwrap_err().never_fits);
        let second = budget.charge(2, Body, 400).unwrap();
        // Three quarters are taken: the rest is for those who hold little.
        let refused = budget.charge(2, Body, 1).unwrap_err();
        assert_eq!(refused.to_string(), "1 bytes of memory are needed, 1200 of 1600 are held");
        assert!(budget.charge(3, Body, 101).is_err());
        let little: Vec<Charge> = (3..7).map(|client| budget.charge(client, Answer, 100).unwrap()).collect();
        assert!(budget.charge(7, Body, 1).is_err(), "full is full");
        assert!(budget.charge(7, Body, 0).is_ok(), "nothing is always there");
        drop((first, second, little));
        assert!(budget.check(1, 800).is_ok() && budget.check(1, 801).is_err());
    }

    #[test]
    fn charges_of_one_request_are_one_sum() {
        let budget = MemoryBudget::new(1000);
        let tally = Tally::default();
        let request = budget.of_request(&tally);
        let body = request.charge(1, Body, 300).unwrap();
        // Alone each would fit, together they never do: whoever comes again is refused again.
        let refused = request.charge(1, Parsed, 201).unwrap_err();
        assert!(refused.never_fits && refused.wanted == 501, "{refused}");
        let mut parsed = request.charge(1, Parsed, 200).unwrap();
        assert_eq!(tally.bytes(), 500);
        // Another request of the same client fits later.
        assert!(!budget.of_request(&Tally::default()).charge(1, Body, 1).unwrap_err().never_fits);
        parsed.shrink(150);
        let answer = parsed.split(25).into_kind(Answer);
        drop(body);
        assert_eq!(tally.bytes(), 50);
        parsed.merge(answer.into_kind(Parsed));
        drop(parsed);
        assert_eq!((tally.bytes(), budget.total()), (0, 0));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        let budget = MemoryBudget::new(1000);
        let mut some = budget.charge(1, Body, 10).unwrap();
        assert!(some.grow(usize::MAX).unwrap_err().never_fits);
        assert!(budget.charge(1, Body, usize::MAX).unwrap_err().never_fits);
        some.shrink(usize::MAX);
        assert_eq!(budget.total(), 0);
    }
}
