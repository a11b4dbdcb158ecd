//! Where one item of a packed batch ends and the next begins.

use std::ops::Range;

/// The lengths of the items of a packed batch, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// `offsets[i]..offsets[i + 1]` are the rows of item `i`.
    offsets: Vec<usize>,
}

impl Segments {
    /// From the number of rows of each item; an item of no rows is allowed to no operation.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        for length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        Self { offsets }
    }

    /// `count` items of `length` rows each.
    pub fn uniform(count: usize, length: usize) -> Self {
        Self::new(std::iter::repeat_n(length, count))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of rows of all items.
    pub fn rows(&self) -> usize {
        self.offsets[self.offsets.len() - 1]
    }

    /// The rows of each item.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Neighbouring items of the same length, as `(first row, items, rows of each)`, no more than
    /// `limit` items in a group (a limit of 0 counts as 1).
    pub fn groups(&self, limit: usize) -> Vec<(usize, usize, usize)> {
        let mut groups: Vec<(usize, usize, usize)> = Vec::new();
        for rows in self.iter() {
            match groups.last_mut() {
                Some((_, count, length)) if *length == rows.len() && *count < limit => *count += 1,
                _ => groups.push((rows.start, 1, rows.len())),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_join_neighbours_of_one_length() {
        let segments = Segments::new([4, 4, 4, 2, 4]);
        assert_eq!(segments.rows(), 18);
        assert_eq!(segments.groups(2), [(0, 2, 4), (8, 1, 4), (12, 1, 2), (14, 1, 4)]);
        assert_eq!(segments.groups(usize::MAX), [(0, 3, 4), (12, 1, 2), (14, 1, 4)]);
        assert_eq!(segments.iter().collect::<Vec<_>>()[3], 12..14);
    }

    #[test]
    fn no_items_have_no_rows() {
        let none = Segments::new([]);
        assert!(none.is_empty());
        assert_eq!(none.rows(), 0);
        assert!(none.groups(8).is_empty());
    }
}
