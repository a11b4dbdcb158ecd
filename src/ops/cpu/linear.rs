//! Matrix products over packed weights, with bias, activation or residual applied while the result is in registers'
//! reach.

use std::ops::Range;

use candle_core::Result;
use half::bf16;
use rayon::prelude::*;

use super::buffer::with_scratch;
use super::cache::block_bytes;
use super::kernel::{Kernel, Session};
use super::math;
use super::panels::{Element, Matrix, Panels, a_panel, b_panel, steps};
use super::plan::{Plan, part};
use super::quantize::Quantum;
use crate::ops::Activation;

/// Sums of a group of blocks that wait for the rest of K: with a piece of B, about what the first-level cache holds.
const GROUP_BYTES: usize = 12 << 10;

/// What a linear layer does to its sums, and where they go.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    /// `[out]`.
    pub bias: Option<&'a [f32]>,
    /// After the bias.
    pub activation: Option<Activation>,
    /// `[out]`: taken off after that.
    pub centre: Option<&'a [f32]>,
    /// `[rows, out]`, added last.
    pub residual: Option<&'a [f32]>,
}

/// A result that tasks write to, each to its own columns of its own rows.
#[derive(Debug, Clone, Copy)]
pub enum Output {
    /// f32.
    F32(*mut f32),
    /// Rounded to bf16.
    Bf16(*mut bf16),
}

// SAFETY: the users of this type write disjoint parts.
unsafe impl Send for Output {}
// SAFETY: the users of this type write disjoint parts.
unsafe impl Sync for Output {}

/// `x` `[rows, inner]` times a packed weight `[out, inner]` → `[rows, out]`.
///
/// # Errors
/// If the slices do not have these shapes.
///
/// # Safety
/// The processor must have the kernel's instructions, and `y` must point to `rows · out` values that nothing else uses
/// meanwhile.
pub unsafe fn linear<M: Kernel, T: Element>(
    x: &[T],
    rows: usize,
    weight: &Panels<M>,
    finish: Finish<'_>,
    y: Output,
) -> Result<()> {
    let (out, inner) = (weight.out, weight.inner);
    if inner == 0
        || x.len() != rows * inner
        || finish.bias.is_some_and(|b| b.len() != out)
        || finish.centre.is_some_and(|c| c.len() != out)
        || finish.residual.is_some_and(|r| r.len() != rows * out)
    {
        candle_core::bail!("linear: {} inputs do not fit {rows} rows, a weight [{out}, {inner}]", x.len());
    }
    if rows == 0 || out == 0 {
        return Ok(());
    }
    let job = Job { x: Matrix { data: x, stride: inner, columns: inner }, rows, weight, finish, y };
    let panel = a_panel::<M>(inner);
    let (row_panels, column_panels) = (rows.div_ceil(M::ROWS), weight.count());
    let plan = Plan::new(row_panels, column_panels, Pieces::of::<M>(inner).fit, rayon::current_num_threads());
    // Tasks are taken one by one: a thread that is slow for a while keeps none back.
    let tasks = (0..plan.tasks()).into_par_iter().with_max_len(1);
    if plan.column_blocks == 1 {
        tasks.for_each(|i| {
            let [panels, columns] = plan.task(i, row_panels, column_panels);
            with_scratch(panels.len() * panel, |a| {
                with_scratch::<Quantum, _>(panels.len() * M::ROWS, |quanta| {
                    for (j, a) in a.chunks_exact_mut(panel.max(1)).enumerate() {
                        job.pack(panels.start + j, a, &mut quanta[j * M::ROWS..]);
                    }
                    job.products(a, quanta, panels, columns);
                });
            });
        });
    } else {
        with_scratch(row_panels * panel, |a: &mut [M::A]| {
            with_scratch::<Quantum, _>(row_panels * M::ROWS, |quanta| {
                let packing = a.par_chunks_exact_mut(panel.max(1)).zip(quanta.par_chunks_exact_mut(M::ROWS));
                packing.enumerate().for_each(|(i, (a, quanta))| job.pack(i, a, quanta));
                let (a, quanta) = (&*a, &*quanta);
                tasks.for_each(|i| {
                    let [panels, columns] = plan.task(i, row_panels, column_panels);
                    let (a, quanta) = (&a[panels.start * panel..], &quanta[panels.start * M::ROWS..]);
                    job.products(a, quanta, panels, columns);
                });
            });
        });
    }
    Ok(())
}

/// How K is cut for blocks of rows that stay in a core's cache while all columns of a task pass by: a long K would leave
/// room for so few rows that the weight is streamed all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pieces {
    /// Number of pieces of K.
    count: usize,
    /// Panels of A of which one piece each stays in the cache.
    fit: usize,
}

impl Pieces {
    fn of<M: Kernel>(inner: usize) -> Self {
        Self::new(a_panel::<M>(inner) * size_of::<M::A>(), steps::<M>(inner).div_ceil(M::RUN), block_bytes())
    }

    /// For a panel of so many bytes, whose K can be cut in `runs`.
    fn new(panel_bytes: usize, runs: usize, block_bytes: usize) -> Self {
        // No piece is more than an eighth of the block.
        let count = panel_bytes.div_ceil((block_bytes / 8).max(1)).clamp(1, runs.max(1));
        Self { count, fit: (block_bytes * count / panel_bytes.max(1)).max(1) }
    }

    /// The steps along K of one piece: whole runs, so that no sum depends on where K is cut.
    fn steps<M: Kernel>(self, index: usize, steps: usize) -> Range<usize> {
        let runs = part(steps.div_ceil(M::RUN), index, self.count);
        runs.start * M::RUN..steps.min(runs.end * M::RUN)
    }
}

struct Job<'a, M: Kernel, T> {
    x: Matrix<'a, T>,
    rows: usize,
    weight: &'a Panels<M>,
    finish: Finish<'a>,
    y: Output,
}

impl<M: Kernel, T: Element> Job<'_, M, T> {
    /// Packs one panel of rows.
    fn pack(&self, panel: usize, a: &mut [M::A], quanta: &mut [Quantum]) {
        let first = panel * M::ROWS;
        M::pack(self.x, first, M::ROWS.min(self.rows - first), a, quanta);
    }

    /// Computes and finishes the given rows and columns; `a` and `quanta` begin at the first of these rows.
    fn products(
        &self,
        a: &[M::A],
        quanta: &[Quantum],
        row_panels: Range<usize>,
        column_panels: Range<usize>,
    ) {
        let Self { weight, .. } = self;
        let inner = weight.inner;
        let (a_size, b_size) = (a_panel::<M>(inner), b_panel::<M>(inner));
        assert!(a.len() >= row_panels.len() * a_size && quanta.len() >= row_panels.len() * M::ROWS);
        assert!(
            weight.data.len() >= column_panels.end * b_size && row_panels.end <= self.rows.div_ceil(M::ROWS)
        );
        // SAFETY: `linear`, the only maker of jobs, is promised that the processor has the instructions.
        let _session = unsafe { Session::<M>::new() };
        let tile = M::ROWS * M::COLUMNS;
        let steps = steps::<M>(inner);
        let pieces = Pieces::of::<M>(inner);
        // Sums leave the registers only where B comes in several runs, and the group's only where K comes in pieces.
        let group = if steps <= M::RUN { 1 } else { (GROUP_BYTES / (tile * size_of::<M::C>())).max(1) };
        let fit = row_panels.len().div_ceil(row_panels.len().div_ceil(pieces.fit).max(1));
        let group = group.min(fit);
        let waiting = if pieces.count == 1 { group } else { fit * column_panels.len() };
        with_scratch::<M::C, _>(waiting * tile, |sums| {
            for block in row_panels.clone().step_by(fit.max(1)) {
                let block = block..row_panels.end.min(block + fit);
                for piece in 0..pieces.count {
                    let steps = pieces.steps::<M>(piece, steps);
                    for column_panel in column_panels.clone() {
                        let b = &weight.data[column_panel * b_size..][..b_size];
                        for first in block.clone().step_by(group) {
                            let rows = first..block.end.min(first + group);
                            let at = first - row_panels.start;
                            let sums = match pieces.count {
                                1 => &mut *sums,
                                _ => {
                                    let before =
                                        (column_panel - column_panels.start) * fit + first - block.start;
                                    &mut sums[before * tile..]
                                }
                            };
                            for step in steps.clone().step_by(M::RUN) {
                                let (from, run) = (step * M::STEP, M::RUN.min(steps.end - step));
                                for (a, sums) in a[at * a_size..]
                                    .chunks_exact(a_size)
                                    .zip(sums.chunks_exact_mut(tile))
                                    .take(rows.len())
                                {
                                    // SAFETY: the processor has the instructions (`linear`), the session is open, `a`
                                    // and `b` are one panel each, of which `run` steps from `step` on lie within; B's
                                    // panels begin on 64 bytes as `Buffer` does or, as these steps do, on as many as a
                                    // step of B has; and `sums` holds a whole block.
                                    unsafe {
                                        M::product(
                                            a.as_ptr().add(from * M::ROWS),
                                            b.as_ptr().add(from * M::COLUMNS),
                                            run,
                                            sums.as_mut_ptr(),
                                            M::COLUMNS,
                                            step > 0,
                                        );
                                    }
                                }
                            }
                            if piece + 1 == pieces.count {
                                for (row_panel, sums) in rows.zip(sums.chunks_exact(tile)) {
                                    let quanta = &quanta[(row_panel - row_panels.start) * M::ROWS..];
                                    self.finish(sums, quanta, row_panel, column_panel);
                                }
                            }
                        }
                    }
                }
            }
        });
    }

    /// Writes one block of the result.
    fn finish(&self, sums: &[M::C], quanta: &[Quantum], row_panel: usize, column_panel: usize) {
        let Self { weight, finish, .. } = self;
        let (first_row, first_column) = (row_panel * M::ROWS, column_panel * M::COLUMNS);
        let columns = M::COLUMNS.min(weight.out - first_column);
        let at = first_row * weight.out + first_column;
        let block = math::Block {
            rows: M::ROWS.min(self.rows - first_row),
            columns,
            bias: finish.bias.map(|bias| &bias[first_column..][..columns]),
            activation: finish.activation,
            centre: finish.centre.map(|centre| &centre[first_column..][..columns]),
            residual: finish.residual.map(|residual| &residual[at..]),
            stride: weight.out,
        };
        let sums = M::sums(sums, quanta, weight, first_column);
        // SAFETY: the block lies within the `rows · out` values of the result, and no other task has these rows and
        // columns.
        unsafe {
            match self.y {
                Output::F32(y) => math::finish(sums, block, y.add(at)),
                Output::Bf16(y) => math::finish(sums, block, y.add(at)),
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::micro::{Micro, avx2};
    use super::*;

    #[test]
    fn a_long_k_is_cut_so_that_rows_stay_in_the_cache() {
        let block = 256 << 10;
        // fc1 and fc2 of base/16 and so400m in panels of six rows of f32, in runs of 256.
        assert_eq!(Pieces::new(768 * 24, 3, block), Pieces { count: 1, fit: 14 });
        assert_eq!(Pieces::new(3072 * 24, 12, block), Pieces { count: 3, fit: 10 });
        assert_eq!(Pieces::new(1152 * 24, 5, block), Pieces { count: 1, fit: 9 });
        assert_eq!(Pieces::new(4304 * 24, 17, block), Pieces { count: 4, fit: 10 });
        // Never more pieces than runs, whatever the sizes.
        assert_eq!(Pieces::new(1 << 30, 5, block), Pieces { count: 5, fit: 1 });
        assert_eq!(Pieces::new(0, 0, 0), Pieces { count: 1, fit: 1 });
        for (pieces, steps) in [(3, 3072), (4, 4304), (5, 1100), (1, 7)] {
            let pieces = Pieces { count: pieces, fit: 1 };
            let all: Vec<_> = (0..pieces.count).map(|i| pieces.steps::<avx2::F32>(i, steps)).collect();
            assert!(all.iter().cloned().flatten().eq(0..steps), "{all:?}");
            assert!(all.iter().all(|piece| piece.start.is_multiple_of(avx2::F32::RUN)), "{all:?}");
        }
    }
}
