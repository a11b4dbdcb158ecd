//! A queue that is fair between clients.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// One first-in-first-out queue for each client; the clients take turns by what their items cost. Whoever sends 1,000
/// items delays whoever sends one by a single item, not by 1,000; whoever sends items that cost 16 times as much has a
/// sixteenth of the turns.
///
/// Start-time fair queueing (Goyal et al. 1996) with one flow for each client: the client that was served least goes
/// first, and a client that comes anew is treated as if it had been served as much as the one whose turn it is.
pub(super) struct FairQueue<T> {
    clients: HashMap<u64, Client<T>>,
    /// What each client was served, and when it came; least first. A client whose queue is empty stays until its turn
    /// has come: what it was served is remembered as long as it matters.
    turns: BTreeSet<Turn>,
    /// What the client served last had been served before.
    clock: u64,
    arrivals: u64,
    len: usize,
}

/// What can be queued.
pub(super) trait Cost {
    /// How much of the machine it takes, in tokens. Nothing is free: 0 counts as 1.
    fn cost(&self) -> usize;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    served: u64,
    arrival: u64,
    client: u64,
}

struct Client<T> {
    items: VecDeque<(u64, T)>,
    /// Of all items.
    cost: u64,
    turn: Turn,
}

impl<T: Cost> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self { clients: HashMap::new(), turns: BTreeSet::new(), clock: 0, arrivals: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, client: u64, item: T) {
        let cost = (item.cost() as u64).max(1);
        let (clock, arrivals) = (self.clock, &mut self.arrivals);
        let queue = self.clients.entry(client).or_insert_with(|| {
            *arrivals += 1;
            let turn = Turn { served: clock, arrival: *arrivals, client };
            self.turns.insert(turn);
            Client { items: VecDeque::new(), cost: 0, turn }
        });
        queue.items.push_back((cost, item));
        queue.cost += cost;
        self.len += 1;
    }

    /// What [`FairQueue::pop`] would give.
    pub(super) fn peek(&self) -> Option<&T> {
        let mut queues = self.turns.iter().filter_map(|turn| self.clients.get(&turn.client));
        queues.find_map(|queue| queue.items.front()).map(|(_, item)| item)
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        while let Some(turn) = self.turns.pop_first() {
            let queue = self.clients.get_mut(&turn.client)?;
            let Some((cost, item)) = queue.items.pop_front() else {
                self.clients.remove(&turn.client);
                continue;
            };
            queue.cost -= cost;
            self.clock = turn.served;
            queue.turn.served += cost;
            self.turns.insert(queue.turn);
            self.len -= 1;
            self.rest();
            return Some(item);
        }
        None
    }

    /// Takes out those items of one client that `unwanted` picks. They cost it nothing.
    pub(super) fn remove(&mut self, client: u64, mut unwanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let Some(queue) = self.clients.get_mut(&client) else { return Vec::new() };
        let (removed, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut queue.items).into_iter().partition(|(_, item)| unwanted(item));
        queue.items = kept;
        queue.cost -= removed.iter().map(|(cost, _)| cost).sum::<u64>();
        self.len -= removed.len();
        self.rest();
        removed.into_iter().map(|(_, item)| item).collect()
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.len = 0;
        self.turns.clear();
        self.clients.drain().flat_map(|(_, queue)| queue.items).map(|(_, item)| item).collect()
    }

    /// What is served, at most, before the last of items that cost `own` is served, if a client queues them now: what it
    /// has queued already, and of each other client as much as itself.
    pub(super) fn ahead_of(&self, client: u64, own: u64) -> u64 {
        let mine = self.clients.get(&client).map_or(0, |queue| queue.cost);
        let others = self.clients.iter().filter(|&(&other, _)| other != client);
        mine + others.map(|(_, queue)| queue.cost.min(mine + own)).sum::<u64>()
    }

    /// With nothing queued there is nothing to be fair about.
    fn rest(&mut self) {
        if self.len == 0 {
            self.turns.clear();
            self.clients.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client, number, cost.
    type Item = (u64, usize, usize);

    impl Cost for Item {
        fn cost(&self) -> usize {
            self.2
        }
    }

    fn queue(items: impl IntoIterator<Item = Item>) -> FairQueue<Item> {
        let mut queue = FairQueue::new();
        items.into_iter().for_each(|item| queue.push(item.0, item));
        queue
    }

    /// Client and number of everything, in the order it is served.
    fn drain(queue: &mut FairQueue<Item>) -> Vec<(u64, usize)> {
        std::iter::from_fn(|| queue.pop()).map(|(client, number, _)| (client, number)).collect()
    }

    #[test]
    fn clients_take_turns_and_each_keeps_its_order() {
        let mut queue = queue((0..4).map(|i| (1, i, 5)).chain((0..2).map(|i| (2, i, 5))).chain([(3, 0, 5)]));
        assert_eq!(queue.len(), 7);
        assert_eq!(queue.peek(), Some(&(1, 0, 5)));
        assert_eq!(drain(&mut queue), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (1, 3)]);
        assert!(queue.is_empty() && queue.clients.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn one_item_waits_behind_one_not_a_thousand() {
        let mut queue = queue((0..1000).map(|i| (1, i, 1)));
        (0..500).for_each(|i| assert_eq!(queue.pop(), Some((1, i, 1))));
        queue.push(2, (2, 0, 1));
        let order = drain(&mut queue);
        assert!(order.iter().position(|&(client, _)| client == 2) <= Some(1));
    }

    #[test]
    fn turns_are_by_cost() {
        let mut queue = queue((0..200).map(|i| (1, i, 16)).chain((0..1000).map(|i| (2, i, 1))));
        let mut served = [0usize; 2];
        for _ in 0..600 {
            let next = queue.peek().copied();
            let (client, number, cost) = queue.pop().expect("queued");
            assert_eq!(next, Some((client, number, cost)));
            served[client as usize - 1] += cost;
            assert!(served[0].abs_diff(served[1]) <= 16, "{served:?}");
        }
    }

    #[test]
    fn who_sends_one_at_a_time_has_no_more_turns() {
        let mut queue = queue((0..100).map(|i| (1, i, 1)));
        let mut large = 0;
        for _ in 0..50 {
            // The other one always has a single item of ten queued, and sends the next once it is served.
            if queue.clients.get(&2).is_none_or(|client| client.items.is_empty()) {
                queue.push(2, (2, 0, 10));
            }
            large += usize::from(queue.pop().expect("queued").0 == 2);
        }
        assert!((4..=6).contains(&large), "{large} of 50 turns, each ten times as long");
    }

    #[test]
    fn removing_leaves_the_turns_of_the_others() {
        let mut queue = queue((0..3).map(|i| (1, i, 1)).chain((0..3).map(|i| (2, i, 1))));
        assert_eq!(queue.remove(1, |&(_, i, _)| i != 1), [(1, 0, 1), (1, 2, 1)]);
        assert_eq!(queue.remove(9, |_| true), []);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.remove(1, |_| true), [(1, 1, 1)]);
        queue.push(1, (1, 7, 1));
        assert_eq!(drain(&mut queue), [(1, 7), (2, 0), (2, 1), (2, 2)]);
        queue.push(1, (1, 8, 1));
        assert_eq!(queue.remove(1, |_| true), [(1, 8, 1)]);
        assert!(queue.clients.is_empty());
    }

    #[test]
    fn what_is_ahead_is_bounded_by_turns() {
        let queue = queue([(1, 0, 1000), (2, 0, 10)]);
        assert_eq!(queue.ahead_of(3, 50), 50 + 10);
        assert_eq!(queue.ahead_of(2, 50), 10 + 60);
        assert_eq!(queue.ahead_of(1, 50), 1000 + 10);
    }

    #[test]
    fn clearing_gives_everything_back() {
        let mut queue = queue((0..5).map(|i| (i % 2, 0, 1)));
        assert_eq!(queue.clear().len(), 5);
        assert!(queue.is_empty() && queue.pop().is_none() && queue.peek().is_none());
    }
}
