//! Which algorithm computes a product.

use std::collections::HashMap;
use std::hash::Hash;

/// The choices made so far, within bounds.
pub(super) struct Choices<K, A> {
    /// The algorithm of each product met, or that there is none.
    known: HashMap<K, Option<A>>,
    most: usize,
    /// Products that may still be timed.
    timings_left: usize,
}

impl<K: Eq + Hash, A: Copy> Choices<K, A> {
    /// Remembers at most `most` products and times at most `timings`.
    pub(super) fn new(most: usize, timings: usize) -> Self {
        Self { known: HashMap::new(), most, timings_left: timings }
    }

    /// What was chosen for a product; `None` if it was not met yet.
    pub(super) fn get(&self, product: &K) -> Option<Option<A>> {
        self.known.get(product).copied()
    }

    /// Whether another product may be timed.
    pub(super) fn may_time(&self) -> bool {
        self.timings_left > 0
    }

    /// Remembers a choice; `timed`: that it was timed.
    pub(super) fn insert(&mut self, product: K, chosen: Option<A>, timed: bool) {
        if self.known.len() >= self.most {
            self.known.clear();
        }
        self.known.insert(product, chosen);
        self.timings_left -= usize::from(timed).min(self.timings_left);
    }
}

/// The candidate of the least time, the first of several; those without a time have failed.
pub(super) fn fastest<A: Copy>(candidates: &[A], mut time: impl FnMut(&A) -> Option<f32>) -> Option<A> {
    let mut best: Option<(f32, A)> = None;
    for candidate in candidates {
        if let Some(took) = time(candidate)
            && best.is_none_or(|(least, _)| took < least)
        {
            best = Some((took, *candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_that_works_is_kept() {
        let times = [None, Some(3.0), Some(1.0), Some(f32::NAN), Some(1.0)];
        assert_eq!(fastest(&[0, 1, 2, 3, 4], |&i: &usize| times[i]), Some(2));
        assert_eq!(fastest(&[0], |_| None), None);
        assert_eq!(fastest::<usize>(&[], |_| Some(1.0)), None);
    }

    #[test]
    fn choices_are_remembered_within_bounds() {
        let mut choices: Choices<u32, char> = Choices::new(2, 2);
        assert_eq!(choices.get(&1), None);
        choices.insert(1, Some('a'), true);
        choices.insert(2, None, false);
        assert_eq!((choices.get(&1), choices.get(&2)), (Some(Some('a')), Some(None)));
        assert!(choices.may_time());
        choices.insert(3, Some('c'), true);
        assert_eq!((choices.get(&1), choices.get(&3)), (None, Some(Some('c'))));
        assert!(!choices.may_time());
    }
}
