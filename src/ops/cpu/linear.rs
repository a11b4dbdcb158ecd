//! Matrix products over packed weights, with bias, activation or residual applied while the result is in registers'
//! reach.

use candle_core::Result;
use half::bf16;
use rayon::prelude::*;

use super::buffer::with_scratch;
use super::kernel::{Kernel, Session};
use super::math;
use super::panels::{Element, Matrix, Panels, Quantum, a_panel, b_panel, steps};
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
        || finish.residual.is_some_and(|r| r.len() != rows * out)
    {
        candle_core::bail!("linear: {} inputs do not fit {rows} rows, a weight [{out}, {inner}]", x.len());
    }
    if rows == 0 || out == 0 {
        return Ok(());
    }
    let job = Job { x: Matrix { data: x, stride: inner, columns: inner }, rows, weight, finish, y };
    let panel = a_panel::<M>(inner);
    let row_panels = rows.div_ceil(M::ROWS);
    let threads = rayon::current_num_threads();
    let fit = (M::BLOCK_BYTES / (panel * size_of::<M::A>()).max(1)).max(1);
    if row_panels.div_ceil(fit) >= 2 * threads {
        // Tall: each task packs a block of rows that stays in its cache, and takes every column.
        let tasks = row_panels.div_ceil(fit).next_multiple_of(threads);
        let block = row_panels.div_ceil(tasks);
        (0..row_panels.div_ceil(block)).into_par_iter().for_each(|i| {
            let panels = i * block..row_panels.min((i + 1) * block);
            with_scratch(panels.len() * panel, |a| {
                with_scratch::<Quantum, _>(panels.len() * M::ROWS, |quanta| {
                    for (j, a) in a.chunks_exact_mut(panel.max(1)).enumerate() {
                        job.pack(panels.start + j, a, &mut quanta[j * M::ROWS..]);
                    }
                    job.products(a, quanta, panels, 0..weight.count());
                });
            });
        });
    } else {
        // Flat: all rows are packed once, and each task takes some of the columns.
        with_scratch(row_panels * panel, |a: &mut [M::A]| {
            with_scratch::<Quantum, _>(row_panels * M::ROWS, |quanta| {
                let packing = a.par_chunks_exact_mut(panel.max(1)).zip(quanta.par_chunks_exact_mut(M::ROWS));
                packing.enumerate().for_each(|(i, (a, quanta))| job.pack(i, a, quanta));
                let (a, quanta) = (&*a, &*quanta);
                let chunk = weight.count().div_ceil(4 * threads);
                (0..weight.count().div_ceil(chunk)).into_par_iter().for_each(|i| {
                    let columns = i * chunk..weight.count().min((i + 1) * chunk);
                    job.products(a, quanta, 0..row_panels, columns);
                });
            });
        });
    }
    Ok(())
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
        row_panels: std::ops::Range<usize>,
        column_panels: std::ops::Range<usize>,
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
        // Sums leave the registers only where B comes in several pieces.
        let group = if steps <= M::RUN { 1 } else { (GROUP_BYTES / (tile * size_of::<M::C>())).max(1) };
        let group = group.min(row_panels.len());
        with_scratch::<M::C, _>(group * tile, |sums| {
            for column_panel in column_panels {
                let b = &weight.data[column_panel * b_size..][..b_size];
                for first in row_panels.clone().step_by(group) {
                    let rows = first..row_panels.end.min(first + group);
                    let at = first - row_panels.start;
                    for step in (0..steps).step_by(M::RUN) {
                        for (a, sums) in a[at * a_size..]
                            .chunks_exact(a_size)
                            .zip(sums.chunks_exact_mut(tile))
                            .take(rows.len())
                        {
                            let (from, run) = (step * M::STEP, M::RUN.min(steps - step));
                            // SAFETY: the processor has the instructions (`linear`), the session is open, `a` and `b`
                            // are one panel each, of which `run` steps from `step` on lie within; B's panels lie on 64
                            // bytes as `Buffer`, their sizes and these pieces do, and `sums` holds a whole block.
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
                    for (row_panel, sums) in rows.zip(sums.chunks_exact(tile)) {
                        let quanta = &quanta[(row_panel - row_panels.start) * M::ROWS..];
                        self.finish(sums, quanta, row_panel, column_panel);
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
