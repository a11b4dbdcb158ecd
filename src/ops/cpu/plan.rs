//! How a matrix product is cut into tasks.

use std::ops::Range;

/// Tasks that a thread gets on average where a product is cut along its columns: some may be slower than others.
const TASKS_A_THREAD: usize = 4;

/// Blocks of rows times blocks of columns, each a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Blocks of panels of rows.
    pub row_blocks: usize,
    /// Blocks of panels of columns. If there is one, each task packs its own rows.
    pub column_blocks: usize,
}

impl Plan {
    /// For so many panels, of which `fit` panels of rows stay in a core's cache.
    ///
    /// Tall products are cut along their rows alone: each task packs rows that stay in its cache, and takes every column.
    /// Others are packed once and cut along their columns, and along their rows too if there are too few columns for the
    /// threads: 16 panels of columns keep 16 threads busy and no more.
    pub fn new(row_panels: usize, column_panels: usize, fit: usize, threads: usize) -> Self {
        let (threads, blocks) = (threads.max(1), row_panels.div_ceil(fit.max(1)));
        if row_panels > 0 && blocks >= 2 * threads {
            return Self { row_blocks: blocks.next_multiple_of(threads).min(row_panels), column_blocks: 1 };
        }
        let (row_panels, column_panels) = (row_panels.max(1), column_panels.max(1));
        let wanted = TASKS_A_THREAD * threads;
        // The time of the threads together is that of the rounds in which they take the largest tasks.
        let time = |plan: &Self| {
            let tile = row_panels.div_ceil(plan.row_blocks) * column_panels.div_ceil(plan.column_blocks);
            (plan.row_blocks * plan.column_blocks).div_ceil(threads) * tile
        };
        let fewest = wanted.div_ceil(column_panels).min(row_panels);
        let mut best = Self { row_blocks: fewest, column_blocks: wanted.div_ceil(fewest).min(column_panels) };
        for row_blocks in fewest..=(2 * fewest).min(row_panels) {
            let columns = wanted.div_ceil(row_blocks).min(column_panels);
            for column_blocks in columns..=(2 * columns).min(column_panels) {
                let plan = Self { row_blocks, column_blocks };
                if time(&plan) < time(&best) {
                    best = plan;
                }
            }
        }
        best
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.row_blocks * self.column_blocks
    }

    /// The rows and columns of one task.
    pub fn task(&self, index: usize, row_panels: usize, column_panels: usize) -> [Range<usize>; 2] {
        // Neighbouring tasks have the same columns, so that the weight is read by several threads at about one time.
        let (column, row) = (index / self.row_blocks, index % self.row_blocks);
        [part(row_panels, row, self.row_blocks), part(column_panels, column, self.column_blocks)]
    }
}

/// One of `parts` parts of `count` things that differ by at most one.
pub fn part(count: usize, index: usize, parts: usize) -> Range<usize> {
    index * count / parts..(index + 1) * count / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What share of the threads' time is used, if each takes one task after the other.
    fn share(rows: usize, columns: usize, fit: usize, threads: usize) -> f64 {
        let plan = Plan::new(rows, columns, fit, threads);
        let mut busy = vec![0; threads];
        for index in 0..plan.tasks() {
            let [rows, columns] = plan.task(index, rows, columns);
            let least = busy.iter_mut().min().expect("a thread");
            *least += rows.len() * columns.len();
        }
        let longest = busy.iter().max().copied().unwrap_or(0);
        (rows * columns) as f64 / (threads * longest) as f64
    }

    #[test]
    fn parts_are_even_and_leave_nothing_out() {
        for (count, parts) in [(131, 10), (33, 8), (5, 5), (7, 3), (3, 7)] {
            let all: Vec<_> = (0..parts).map(|i| part(count, i, parts)).collect();
            assert!(all.iter().cloned().flatten().eq(0..count));
            let (least, most) =
                (all.iter().map(Range::len).min().unwrap(), all.iter().map(Range::len).max().unwrap());
            assert!(most - least <= 1, "{count} in {parts}: {all:?}");
        }
    }

    #[test]
    fn tasks_cover_every_block_once() {
        for (rows, columns, fit, threads) in
            [(1, 1, 14, 2), (131, 144, 14, 2), (11, 48, 14, 2), (25, 16, 30, 32), (7, 3, 1, 64), (0, 5, 3, 4)]
        {
            let plan = Plan::new(rows, columns, fit, threads);
            let mut seen = vec![0; rows * columns];
            for index in 0..plan.tasks() {
                let [r, c] = plan.task(index, rows, columns);
                for r in r {
                    for c in c.clone() {
                        seen[r * columns + c] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{plan:?}");
        }
    }

    /// The four products of a block of base/16 over a pass, for panels of 6 × 16 (AVX2), 8 × 48 (AVX-512) and 32 × 32
    /// (AMX): every thread has work, whatever their number.
    #[test]
    fn every_thread_has_work() {
        for (rows, columns, fit) in [(6, 16, 14), (8, 48, 21), (32, 32, 16)] {
            for threads in [1, 2, 8, 16, 32, 64] {
                let tokens = 1024.max(256 * threads);
                for out in [2304, 768, 3072] {
                    let (row_panels, column_panels) = (tokens / rows, out / columns);
                    let plan = Plan::new(row_panels, column_panels, fit, threads);
                    let share = share(row_panels, column_panels, fit, threads);
                    assert!(
                        plan.tasks() >= 2 * threads && share >= 0.85,
                        "{rows} × {columns}, {threads} threads, out {out}: {plan:?}, {share:.2}"
                    );
                }
            }
            // One picture of 196 tokens on many cores: there is little work, but it is spread over all of them.
            for threads in [2, 8, 16, 32] {
                for out in [2304, 768, 3072] {
                    let share = share(196usize.div_ceil(rows), out / columns, fit, threads);
                    assert!(share >= 0.7, "{rows} × {columns}, {threads} threads, out {out}: {share:.2}");
                }
            }
        }
    }
}
