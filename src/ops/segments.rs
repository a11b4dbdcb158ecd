//! Where one item of a packed batch ends and the next begins.

use std::ops::Range;
#[cfg(feature = "cuda")]
use std::sync::OnceLock;

/// The lengths of the items of a packed batch, in order.
#[derive(Debug, Clone)]
pub struct Segments {
    /// `offsets[i]..offsets[i + 1]` are the rows of item `i`.
    offsets: Vec<usize>,
    /// Offsets and tiles on the GPU that asked first: every layer of a tower needs them.
    #[cfg(feature = "cuda")]
    on_device: OnceLock<candle_core::Tensor>,
}

impl PartialEq for Segments {
    fn eq(&self, other: &Self) -> bool {
        self.offsets == other.offsets
    }
}

impl Eq for Segments {}

impl Segments {
    /// From the number of rows of each item; an item of no rows is allowed to no operation.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        for length in lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        Self {
            offsets,
            #[cfg(feature = "cuda")]
            on_device: OnceLock::new(),
        }
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

    /// The items cut into tiles of at most `rows` rows, `(first row of the item, its rows, first row of the tile within
    /// it)`, item by item.
    pub fn tiles(&self, rows: usize) -> impl Iterator<Item = [usize; 3]> + '_ {
        self.iter().flat_map(move |item| {
            (0..item.len()).step_by(rows.max(1)).map(move |first| [item.start, item.len(), first])
        })
    }

    /// All offsets, then the [`Self::tiles`] of GPU kernels, as u32 on a GPU.
    #[cfg(feature = "cuda")]
    pub(super) fn on_device(&self, device: &candle_core::Device) -> candle_core::Result<candle_core::Tensor> {
        if let Some(table) = self.on_device.get()
            && table.device().same_device(device)
        {
            return Ok(table.clone());
        }
        let tiles = self.tiles(super::cuda::attention::TILE).flatten();
        let numbers = self.offsets.iter().copied().chain(tiles).map(u32::try_from);
        let numbers: Vec<u32> = numbers.collect::<Result<_, _>>().map_err(candle_core::Error::wrap)?;
        let count = numbers.len();
        let table = candle_core::Tensor::from_vec(numbers, count, device)?;
        // Where there is one of another device it stays: no batch is computed on two.
        let _ = self.on_device.set(table.clone());
        Ok(table)
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
    fn tiles_cover_every_row_once() {
        let segments = Segments::new([1, 64, 65, 130]);
        let tiles: Vec<_> = segments.tiles(64).collect();
        assert_eq!(
            tiles,
            [
                [0, 1, 0],
                [1, 64, 0],
                [65, 65, 0],
                [65, 65, 64],
                [130, 130, 0],
                [130, 130, 64],
                [130, 130, 128]
            ]
        );
        let rows =
            tiles.iter().flat_map(|[start, length, first]| start + first..start + length.min(&(first + 64)));
        assert!(rows.eq(0..segments.rows()));
    }

    #[test]
    fn no_items_have_no_rows() {
        let none = Segments::new([]);
        assert!(none.is_empty());
        assert_eq!(none.rows(), 0);
        assert!(none.groups(8).is_empty());
    }
}
