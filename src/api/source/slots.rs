//! Slots for fetches: so many at once, shared among clients.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Slots that clients take turns at.
///
/// A client may hold at most half of what the others leave free. So there is always a slot for one more client, until
/// there are many of them; then slots go around in turn.
#[derive(Debug)]
pub struct Slots {
    total: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    clients: HashMap<u64, Own>,
    /// Clients that wait, in the order of their turns.
    turns: VecDeque<u64>,
}

#[derive(Debug, Default)]
struct Own {
    used: usize,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// A slot, given back when this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    client: u64,
}

impl Slots {
    /// So many slots.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total: total.max(1), state: Mutex::default() })
    }

    /// Waits for a slot. Dropping the future gives up the place in the queue.
    pub async fn take(self: &Arc<Self>, client: u64) -> Slot {
        let given = {
            let mut state = self.state();
            let (send, given) = oneshot::channel();
            let own = state.clients.entry(client).or_default();
            own.waiting.push_back(send);
            if own.waiting.len() == 1 {
                state.turns.push_back(client);
            }
            let ready = self.next(&mut state);
            drop(state);
            self.hand_out(ready);
            given
        };
        given.await.expect("a sender is dropped only after a slot was sent")
    }

    /// Takes the clients that get slots now out of the queue.
    fn next(&self, state: &mut State) -> Vec<(u64, oneshot::Sender<Slot>)> {
        let mut ready = Vec::new();
        let mut passed = 0;
        while passed < state.turns.len() && state.used < self.total {
            let Some(client) = state.turns.pop_front() else { break };
            let used = state.used;
            let own = state.clients.entry(client).or_default();
            // Those who have given up are no one's turn.
            while own.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                own.waiting.pop_front();
            }
            let left_by_others = self.total - (used - own.used);
            let may = own.used < left_by_others.div_ceil(2);
            if may && let Some(waiting) = own.waiting.pop_front() {
                own.used += 1;
                ready.push((client, waiting));
                if !own.waiting.is_empty() {
                    state.turns.push_back(client);
                }
                state.used += 1;
                passed = 0;
            } else if own.waiting.is_empty() {
                if own.used == 0 {
                    state.clients.remove(&client);
                }
            } else {
                state.turns.push_back(client);
                passed += 1;
            }
        }
        ready
    }

    /// Sends slots. One whose receiver has gone comes back by its drop.
    fn hand_out(self: &Arc<Self>, ready: Vec<(u64, oneshot::Sender<Slot>)>) {
        for (client, waiting) in ready {
            let _ = waiting.send(Slot { slots: Arc::clone(self), client });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.used -= 1;
        if let Some(own) = state.clients.get_mut(&self.client) {
            own.used -= 1;
            if own.used == 0 && own.waiting.is_empty() {
                state.clients.remove(&self.client);
            }
        }
        let ready = self.slots.next(&mut state);
        drop(state);
        self.slots.hand_out(ready);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_client_leaves_slots_for_the_next() {
        let slots = Slots::new(8);
        let mut greedy: Vec<Slot> = Vec::new();
        while let Some(slot) = slots.take(1).now_or_never() {
            greedy.push(slot);
        }
        assert_eq!(greedy.len(), 4);
        let second = slots.take(2).now_or_never().expect("half of what is left");
        let third = slots.take(3).now_or_never().expect("and again");
        drop((second, third));
        assert_eq!(slots.state().clients.len(), 1);
    }

    #[tokio::test]
    async fn those_who_wait_take_turns_and_those_who_left_take_none() {
        let slots = Slots::new(2);
        let (a, b) = (slots.take(1).await, slots.take(2).await);
        let wait = |client| {
            tokio::spawn({
                let slots = Arc::clone(&slots);
                async move { (client, slots.take(client).await) }
            })
        };
        let (many, other) = ([wait(1), wait(1), wait(1)], wait(3));
        tokio::task::yield_now().await;
        many[0].abort();
        tokio::task::yield_now().await;
        drop(b);
        let (client, slot) = other.await.expect("a slot");
        assert_eq!(client, 3, "client 1 holds its share");
        drop((a, slot));
        for waiting in many.into_iter().skip(1) {
            waiting.await.expect("a slot");
        }
        let state = slots.state();
        assert!(state.clients.is_empty() && state.turns.is_empty() && state.used == 0, "{state:?}");
    }
}
