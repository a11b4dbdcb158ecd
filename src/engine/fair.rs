//! A queue that is fair between clients.

use std::collections::{HashMap, VecDeque};

/// One first-in-first-out queue a client; the clients take turns, one item each. Whoever sends
/// 1,000 items delays whoever sends one by a single item, not by 1,000.
pub(super) struct FairQueue<T> {
    queues: HashMap<u64, VecDeque<T>>,
    /// Clients with something queued, next first; each is in here once.
    turns: VecDeque<u64>,
    len: usize,
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self { queues: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, client: u64, item: T) {
        let queue = self.queues.entry(client).or_default();
        if queue.is_empty() {
            self.turns.push_back(client);
        }
        queue.push_back(item);
        self.len += 1;
    }

    /// What [`FairQueue::pop`] would give.
    pub(super) fn peek(&self) -> Option<&T> {
        self.queues.get(self.turns.front()?)?.front()
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&client)?;
        let item = queue.pop_front()?;
        self.len -= 1;
        if queue.is_empty() {
            self.queues.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        Some(item)
    }

    /// Takes out those items of one client that `unwanted` picks.
    pub(super) fn remove(&mut self, client: u64, mut unwanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let Some(queue) = self.queues.get_mut(&client) else { return Vec::new() };
        let (removed, kept): (VecDeque<T>, VecDeque<T>) =
            std::mem::take(queue).into_iter().partition(|item| unwanted(item));
        self.len -= removed.len();
        if kept.is_empty() {
            self.queues.remove(&client);
            self.turns.retain(|&turn| turn != client);
        } else {
            *queue = kept;
        }
        removed.into()
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.turns.clear();
        self.len = 0;
        self.queues.drain().flat_map(|(_, queue)| queue).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FairQueue<(u64, usize)>) -> Vec<(u64, usize)> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn clients_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::new();
        (0..4).for_each(|i| queue.push(1, (1, i)));
        (0..2).for_each(|i| queue.push(2, (2, i)));
        queue.push(3, (3, 0));
        assert_eq!(queue.len(), 7);
        assert_eq!(queue.peek(), Some(&(1, 0)));
        assert_eq!(drain(&mut queue), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (1, 3)]);
        assert!(queue.is_empty() && queue.queues.is_empty());
    }

    #[test]
    fn one_item_waits_behind_one_not_a_thousand() {
        let mut queue = FairQueue::new();
        (0..1000).for_each(|i| queue.push(1, (1, i)));
        queue.push(2, (2, 0));
        let order = drain(&mut queue);
        assert_eq!(order.iter().position(|&(client, _)| client == 2), Some(1));
    }

    #[test]
    fn removing_leaves_the_turns_of_the_others() {
        let mut queue = FairQueue::new();
        (0..3).for_each(|i| queue.push(1, (1, i)));
        (0..3).for_each(|i| queue.push(2, (2, i)));
        assert_eq!(queue.remove(1, |&(_, i)| i != 1), [(1, 0), (1, 2)]);
        assert_eq!(queue.remove(9, |_| true), []);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.remove(1, |_| true), [(1, 1)]);
        queue.push(1, (1, 7));
        assert_eq!(drain(&mut queue), [(2, 0), (1, 7), (2, 1), (2, 2)]);
    }

    #[test]
    fn clearing_gives_everything_back() {
        let mut queue = FairQueue::new();
        (0..5).for_each(|i| queue.push(i % 2, (i % 2, 0)));
        assert_eq!(queue.clear().len(), 5);
        assert!(queue.is_empty() && queue.pop().is_none() && queue.peek().is_none());
    }
}
