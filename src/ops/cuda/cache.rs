//! Which graphs are kept.

use std::collections::VecDeque;

/// Values of the keys that were used last, within bounds, and the keys that were met once.
pub(super) struct Cache<K, V> {
    /// Key, value and its bytes, the latest used at the back.
    entries: VecDeque<(K, V, usize)>,
    met: VecDeque<K>,
    bounds: Bounds,
}

/// What a [`Cache`] may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    /// Keys that are remembered after they were met.
    pub(super) met: usize,
}

impl<K: PartialEq + Clone, V> Cache<K, V> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { entries: VecDeque::new(), met: VecDeque::new(), bounds }
    }

    /// The value of a key, which becomes the latest used.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        let at = self.entries.iter().position(|(known, ..)| known == key)?;
        let entry = self.entries.remove(at)?;
        self.entries.push_back(entry);
        self.entries.back().map(|(_, value, _)| value)
    }

    /// Whether the key was met before: making a value costs several runs, which pays only for what comes again.
    pub(super) fn comes_again(&mut self, key: &K) -> bool {
        if let Some(at) = self.met.iter().position(|known| known == key) {
            self.met.remove(at);
            return true;
        }
        while self.met.len() >= self.bounds.met.max(1) {
            self.met.pop_front();
        }
        self.met.push_back(key.clone());
        false
    }

    /// Keeps a value; those that were not used for longest make room.
    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.entries.push_back((key, value, bytes));
        let held = |entries: &VecDeque<(K, V, usize)>| entries.iter().map(|entry| entry.2).sum::<usize>();
        while self.entries.len() > self.bounds.entries || held(&self.entries) > self.bounds.bytes {
            self.entries.pop_front();
        }
    }

    /// Gives every value up.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.met.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: usize, bytes: usize) -> Cache<u32, &'static str> {
        Cache::new(Bounds { entries, bytes, met: 2 })
    }

    #[test]
    fn the_least_used_makes_room() {
        let mut cache = cache(2, 100);
        cache.insert(1, "one", 10);
        cache.insert(2, "two", 10);
        assert_eq!(cache.get(&1).copied(), Some("one"));
        cache.insert(3, "three", 10);
        assert_eq!((cache.get(&1).copied(), cache.get(&2).copied(), cache.len()), (Some("one"), None, 2));
    }

    #[test]
    fn bytes_are_bounded() {
        let mut cache = cache(10, 100);
        cache.insert(1, "one", 60);
        cache.insert(2, "two", 60);
        assert_eq!((cache.get(&1).copied(), cache.get(&2).copied()), (None, Some("two")));
        cache.insert(3, "too large", 101);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn a_key_is_worth_it_the_second_time() {
        let mut cache = cache(2, 100);
        assert!(!cache.comes_again(&1));
        assert!(cache.comes_again(&1));
        assert!(!cache.comes_again(&1));
        // Two others, and it is forgotten.
        assert!(!cache.comes_again(&2));
        assert!(!cache.comes_again(&3));
        assert!(!cache.comes_again(&1));
    }

    #[test]
    fn nothing_is_left_after_clearing() {
        let mut cache = cache(2, 100);
        cache.insert(1, "one", 1);
        cache.clear();
        assert_eq!((cache.get(&1).copied(), cache.len()), (None, 0));
    }
}
