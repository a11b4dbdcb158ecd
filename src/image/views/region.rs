//! The largest connected region of a mask.

use super::Area;
use crate::image::Grid;

/// The rectangle around the largest connected region of the patches that are `inside`, and how many patches the region
/// has; of equally large ones the first. Patches are connected by their sides. `None` if none is inside.
///
/// The box of a map: Zhou et al. 2016 (arXiv 1512.04150), section 3.2.
#[must_use]
pub fn largest_region(grid: Grid, inside: &[bool]) -> Option<(Area, usize)> {
    let mut seen = vec![false; grid.len()];
    let mut best: Option<(Area, usize)> = None;
    for start in 0..grid.len().min(inside.len()) {
        if !inside[start] || seen[start] {
            continue;
        }
        seen[start] = true;
        let (mut waiting, mut patches) = (vec![start], 0);
        let (mut top, mut bottom, mut left, mut right) = (usize::MAX, 0, usize::MAX, 0);
        while let Some(at) = waiting.pop() {
            patches += 1;
            let (row, col) = (at / grid.cols, at % grid.cols);
            (top, bottom) = (top.min(row), bottom.max(row));
            (left, right) = (left.min(col), right.max(col));
            let neighbours = [
                (row > 0).then(|| at - grid.cols),
                (row + 1 < grid.rows).then_some(at + grid.cols),
                (col > 0).then(|| at - 1),
                (col + 1 < grid.cols).then_some(at + 1),
            ];
            for next in neighbours.into_iter().flatten() {
                if inside.get(next).copied().unwrap_or(false) && !seen[next] {
                    seen[next] = true;
                    waiting.push(next);
                }
            }
        }
        if best.is_none_or(|(_, most)| patches > most) {
            best = Some((Area { top, left, rows: bottom - top + 1, cols: right - left + 1 }, patches));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Every patch takes the least number of its neighbours until nothing changes.
    fn by_labels(grid: Grid, inside: &[bool]) -> Option<usize> {
        let mut labels: Vec<usize> = (0..grid.len()).collect();
        loop {
            let before = labels.clone();
            for a in (0..grid.len()).filter(|&a| inside[a]) {
                for b in (0..grid.len()).filter(|&b| inside[b]) {
                    let distance =
                        (a / grid.cols).abs_diff(b / grid.cols) + (a % grid.cols).abs_diff(b % grid.cols);
                    if distance == 1 {
                        labels[a] = labels[a].min(labels[b]);
                    }
                }
            }
            if labels == before {
                break;
            }
        }
        let mut counts: HashMap<usize, usize> = HashMap::new();
        (0..grid.len()).filter(|&at| inside[at]).for_each(|at| *counts.entry(labels[at]).or_default() += 1);
        counts.into_values().max()
    }

    #[test]
    fn the_box_is_around_the_whole_region() {
        let grid = Grid { rows: 3, cols: 5 };
        let mask = |text: &str| text.bytes().filter(|b| *b != b' ').map(|b| b == b'x').collect::<Vec<_>>();
        let found = largest_region(grid, &mask("x...x ..xxx x.x.."));
        assert_eq!(found, Some((Area { top: 0, left: 2, rows: 3, cols: 3 }, 5)));
        assert_eq!(largest_region(grid, &mask("..... ..... .....")), None);
    }

    proptest! {
        #[test]
        fn as_large_as_by_brute_force((rows, cols, inside) in (1usize..6, 1usize..6).prop_flat_map(|(rows, cols)| {
            (Just(rows), Just(cols), prop::collection::vec(any::<bool>(), rows * cols))
        })) {
            let grid = Grid { rows, cols };
            prop_assert_eq!(largest_region(grid, &inside).map(|(_, patches)| patches), by_labels(grid, &inside));
        }
    }
}
