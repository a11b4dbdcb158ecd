//! Packing: operands in the order in which the kernels of [`super::micro`] read them.

use half::bf16;
use rayon::prelude::*;

use super::buffer::{Buffer, Plain, as_words, as_words_mut, same_type, with_scratch};
use super::micro::{Float, Micro, Operand, Quantized, round_all, round_bf16, round_bits, widen_bf16};
use super::quantize::quantize_weight;
use super::vectorised::vectorised;
use super::words;

/// What activations are kept in between operations.
pub trait Element: Plain {
    /// Whether it is bf16.
    const NARROW: bool;
    /// As a kernel multiplies it.
    fn operand<P: Operand>(self) -> P;
    /// Widened.
    fn wide(self) -> f32;
    /// Narrowed.
    fn of(x: f32) -> Self;
    /// Narrowed, all at once: see [`round_all`].
    fn of_all<const N: usize>(x: [f32; N]) -> [Self; N];
    /// The bits of the nearest bf16 to each, all at once: see [`round_all`].
    fn bf16_bits<const N: usize>(x: &[Self; N]) -> [u32; N];
}

impl Element for f32 {
    const NARROW: bool = false;

    #[inline(always)]
    fn operand<P: Operand>(self) -> P {
        P::of_f32(self)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn of_all<const N: usize>(x: [f32; N]) -> [Self; N] {
        x
    }

    #[inline(always)]
    fn bf16_bits<const N: usize>(x: &[Self; N]) -> [u32; N] {
        round_bits(*x)
    }
}

impl Element for bf16 {
    const NARROW: bool = true;

    #[inline(always)]
    fn operand<P: Operand>(self) -> P {
        P::of_bf16(self)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        widen_bf16(self)
    }

    #[inline(always)]
    fn of(x: f32) -> Self {
        round_bf16(x)
    }

    #[inline(always)]
    fn of_all<const N: usize>(x: [f32; N]) -> [Self; N] {
        round_all(x)
    }

    #[inline(always)]
    fn bf16_bits<const N: usize>(x: &[Self; N]) -> [u32; N] {
        x.map(|x| u32::from(x.to_bits()))
    }
}

/// A matrix inside a slice, its rows `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    /// From its first value on.
    pub data: &'a [T],
    /// Values from one row to the next.
    pub stride: usize,
    /// Values of a row that belong to it.
    pub columns: usize,
}

impl<'a, T> Matrix<'a, T> {
    pub(super) fn row(&self, index: usize) -> &'a [T] {
        &self.data[index * self.stride..][..self.columns]
    }
}

/// Steps along K of an operand with `inner` values.
pub fn steps<M: Micro>(inner: usize) -> usize {
    inner.div_ceil(M::STEP)
}

/// Values of a panel of A.
pub fn a_panel<M: Micro>(inner: usize) -> usize {
    steps::<M>(inner) * M::STEP * M::ROWS
}

/// Values of a panel of B.
pub fn b_panel<M: Micro>(inner: usize) -> usize {
    steps::<M>(inner) * M::STEP * M::COLUMNS
}

/// Packs a panel `[K / unit][lanes][unit]`. `fill` writes the values along K of each of the first `count` lanes; the others
/// become zeros.
pub(super) fn pack_lanes<P: Plain + Default>(
    panel: &mut [P],
    (lanes, unit): (usize, usize),
    count: usize,
    mut fill: impl FnMut(usize, &mut [P]),
) {
    let inner = panel.len() / lanes;
    if inner == 0 {
        return;
    }
    let mut write = |lane: usize, to: &mut [P]| {
        if lane < count { fill(lane, to) } else { to.fill(P::default()) }
    };
    if lanes_of_words::<P>(lanes, unit) {
        with_scratch::<P, _>(words::BLOCK * inner, |rows| {
            for first in (0..lanes).step_by(words::BLOCK) {
                for (i, row) in rows.chunks_exact_mut(inner).enumerate().take(lanes) {
                    write(first + i, row);
                }
                let rows = std::array::from_fn(|i| as_words(&rows[i * inner..][..inner]));
                words::interleave(rows, &mut as_words_mut(panel)[first..], lanes);
            }
        });
    } else {
        with_scratch::<P, _>(inner, |row| {
            for lane in 0..lanes {
                write(lane, row);
                write_lane(panel, (lanes, unit), lane, row);
            }
        });
    }
}

/// Whether [`words::interleave`] can write the lanes of a panel.
fn lanes_of_words<P>(lanes: usize, unit: usize) -> bool {
    (lanes < words::BLOCK || lanes.is_multiple_of(words::BLOCK)) && unit * size_of::<P>() == size_of::<u32>()
}

/// Writes one lane of a panel `[K / unit][lanes][unit]`, a row of A or a column of B.
fn write_lane<P: Copy>(panel: &mut [P], (lanes, unit): (usize, usize), lane: usize, values: &[P]) {
    if unit == 1 {
        for (to, &value) in panel[lane..].iter_mut().step_by(lanes).zip(values) {
            *to = value;
        }
    } else {
        for (group, values) in panel.chunks_exact_mut(lanes * unit).zip(values.chunks_exact(unit)) {
            group[lane * unit..][..unit].copy_from_slice(values);
        }
    }
}

vectorised! {
    /// A row as a kernel multiplies it, with zeros behind it.
    fn convert_row [P: Operand, T: Element] (values: &[T], to: &mut [P]) {
        const LANES: usize = 16;
        let (to, rest) = to.split_at_mut(values.len());
        rest.fill(P::default());
        if T::NARROW {
            for (to, &value) in to.iter_mut().zip(values) {
                *to = value.operand();
            }
            return;
        }
        let (to, to_rest) = to.as_chunks_mut::<LANES>();
        let (values, values_rest) = values.as_chunks::<LANES>();
        for (to, values) in to.iter_mut().zip(values) {
            let mut wide = [0.0; LANES];
            for (wide, value) in wide.iter_mut().zip(values) {
                *wide = value.wide();
            }
            *to = P::of_all(wide);
        }
        for (to, &value) in to_rest.iter_mut().zip(values_rest) {
            *to = value.operand();
        }
    }
}

/// Packs up to [`Micro::ROWS`] rows of `x`, from `first`, into a panel of A; the rest of the panel becomes zeros.
pub fn pack_a<M: Float, T: Element>(x: Matrix<'_, T>, first: usize, count: usize, panel: &mut [M::A]) {
    // Rows that are multiplied as they are need not be copied first.
    let whole = count == M::ROWS && x.columns.is_multiple_of(M::STEP);
    let words = size_of::<T>() == size_of::<u32>() && lanes_of_words::<M::A>(M::ROWS, M::A_UNIT);
    if whole
        && words
        && let Some(data) = same_type::<T, M::A>(x.data)
    {
        let row = |i: usize| &data[(first + i) * x.stride..][..x.columns];
        for lane in (0..M::ROWS).step_by(words::BLOCK) {
            let rows = std::array::from_fn(|i| as_words(row((lane + i).min(M::ROWS - 1))));
            words::interleave(rows, &mut as_words_mut(panel)[lane..], M::ROWS);
        }
        return;
    }
    pack_lanes(panel, (M::ROWS, M::A_UNIT), count, |row, to| convert_row(x.row(first + row), to));
}

/// Packs columns of B from the rows of `x`: `x` is B transposed, K along its rows. Panels follow each other in `panels`.
pub fn pack_b_transposed<M: Float, T: Element>(x: Matrix<'_, T>, columns: usize, panels: &mut [M::B]) {
    for (i, panel) in panels.chunks_exact_mut(b_panel::<M>(x.columns)).enumerate() {
        let first = i * M::COLUMNS;
        let count = columns.saturating_sub(first);
        pack_lanes(panel, (M::COLUMNS, M::B_UNIT), count, |column, to| {
            convert_row(x.row(first + column), to)
        });
    }
}

vectorised! {
    /// Packs `rows` rows of A from `x`, which is A transposed: its rows go along K. Panels follow each other in `panels`.
    pub fn pack_a_transposed [M: Float, T: Element] (x: Matrix<'_, T>, inner: usize, panels: &mut [M::A]) {
        for (i, panel) in panels.chunks_exact_mut(a_panel::<M>(inner)).enumerate() {
            let first = i * M::ROWS;
            interleave(x, inner, first..x.columns.min(first + M::ROWS), panel, (M::ROWS, M::A_UNIT));
        }
    }
}

vectorised! {
    /// Packs B from `x`, whose rows are B's, `inner` of them.
    pub fn pack_b [M: Float, T: Element] (x: Matrix<'_, T>, inner: usize, panels: &mut [M::B]) {
        for (i, panel) in panels.chunks_exact_mut(b_panel::<M>(inner)).enumerate() {
            let first = i * M::COLUMNS;
            interleave(x, inner, first..x.columns.min(first + M::COLUMNS), panel, (M::COLUMNS, M::B_UNIT));
        }
    }
}

/// Writes columns of `x`, whose `inner` rows go along K, as the lanes of one panel `[K / unit][lanes][unit]`, and zeros
/// behind them.
#[inline(always)]
fn interleave<T: Element, P: Operand>(
    x: Matrix<'_, T>,
    inner: usize,
    columns: std::ops::Range<usize>,
    panel: &mut [P],
    (lanes, unit): (usize, usize),
) {
    let whole = columns.len() == lanes;
    for (k, group) in panel.chunks_exact_mut(lanes * unit).enumerate() {
        // An operand of 2 bytes is bf16.
        if size_of::<P>() == 2 && unit == 2 && whole && lanes.is_multiple_of(8) && 2 * k + 1 < inner {
            pairs(&x.row(2 * k)[columns.clone()], &x.row(2 * k + 1)[columns.clone()], as_words_mut(group));
            continue;
        }
        if size_of::<P>() == 2 && unit == 4 && whole && lanes.is_multiple_of(8) && 4 * k + 3 < inner {
            fours(std::array::from_fn(|u| &x.row(4 * k + u)[columns.clone()]), as_words_mut(group));
            continue;
        }
        for u in 0..unit {
            let k = k * unit + u;
            let row = if k < inner { &x.row(k)[columns.clone()] } else { &[] };
            if unit == 1 && row.len() == lanes {
                for (to, value) in group.iter_mut().zip(row) {
                    *to = value.operand();
                }
            } else if row.len() == lanes {
                for (to, value) in group[u..].iter_mut().step_by(unit).zip(row) {
                    *to = value.operand();
                }
            } else {
                for (j, to) in group.chunks_exact_mut(unit).enumerate() {
                    to[u] = row.get(j).map_or(P::default(), |value| value.operand());
                }
            }
        }
    }
}

/// Pairs of bf16, each as one word: two neighbours along K. So the compiler makes vectors of it.
#[inline(always)]
fn pairs<T: Element>(low: &[T], high: &[T], to: &mut [u32]) {
    let (low, high, to) = (low.as_chunks::<8>().0, high.as_chunks::<8>().0, to.as_chunks_mut::<8>().0);
    for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
        let (low, high) = (T::bf16_bits(low), T::bf16_bits(high));
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            *to = low | high << 16;
        }
    }
}

/// Fours of bf16, each as two words: neighbours along K.
#[inline(always)]
fn fours<T: Element>(rows: [&[T]; 4], to: &mut [u32]) {
    let rows = rows.map(|row| row.as_chunks::<8>().0);
    for (i, to) in to.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let [a, b, c, d] = rows.map(|row| T::bf16_bits(&row[i]));
        for (j, to) in to.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *to = [a[j] | b[j] << 16, c[j] | d[j] << 16];
        }
    }
}

/// A weight `[out, inner]`, packed once as panels of B.
#[derive(Debug)]
pub struct Panels<M: Micro> {
    /// `[out / COLUMNS][inner / B_UNIT][COLUMNS][B_UNIT]`, both padded with zeros.
    pub data: Buffer<M::B>,
    /// Rows of the weight: columns of the result.
    pub out: usize,
    /// Columns of the weight.
    pub inner: usize,
    /// Of bytes: what one step of each column stands for, padded with zeros to whole panels.
    pub scales: Vec<f32>,
    /// Of bytes: the sum of each column, padded likewise.
    pub sums: Vec<i32>,
}

impl<M: Micro> Panels<M> {
    /// Number of panels.
    pub fn count(&self) -> usize {
        self.out.div_ceil(M::COLUMNS)
    }
}

impl<M: Float> Panels<M> {
    /// From a row-major weight.
    pub fn float(weight: &[f32], out: usize, inner: usize) -> Self {
        let panel = b_panel::<M>(inner);
        let mut data = Buffer::zeros(out.div_ceil(M::COLUMNS) * panel);
        if panel > 0 {
            data.par_chunks_exact_mut(panel).enumerate().for_each(|(i, to)| {
                let first = i * M::COLUMNS;
                let from = Matrix { data: &weight[first * inner..], stride: inner, columns: inner };
                pack_b_transposed::<M, f32>(from, M::COLUMNS.min(out - first), to);
            });
        }
        Self { data, out, inner, scales: Vec::new(), sums: Vec::new() }
    }
}

impl<M: Quantized> Panels<M> {
    /// From a row-major weight, each row to the nearest of 255 bytes from −127 to 127 over its own largest value, or over its
    /// largest pair where [`Micro::PAIR`] bounds that.
    pub fn quantized(weight: &[f32], out: usize, inner: usize) -> Self {
        let (panel, columns) = (b_panel::<M>(inner), M::COLUMNS);
        let count = out.div_ceil(columns);
        let mut data = Buffer::<i8>::zeros(count * panel);
        let (mut scales, mut sums) = (vec![0.0; count * columns], vec![0; count * columns]);
        if panel > 0 {
            let parts = data.par_chunks_exact_mut(panel).zip(scales.par_chunks_exact_mut(columns));
            parts.zip(sums.par_chunks_exact_mut(columns)).enumerate().for_each(
                |(i, ((to, scales), sums))| {
                    pack_lanes(to, (columns, M::B_UNIT), columns.min(out - i * columns), |j, bytes| {
                        let row = &weight[(i * columns + j) * inner..][..inner];
                        let (bytes, rest) = bytes.split_at_mut(inner);
                        (scales[j], sums[j]) = quantize_weight(row, M::PAIR, bytes);
                        rest.fill(0);
                    });
                },
            );
        }
        Self { data, out, inner, scales, sums }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::vectorised::{Level, tests::at_every_level};

    /// Panels whose lanes have `UNIT` neighbours along K side by side.
    #[derive(Clone, Copy)]
    struct Units<const UNIT: usize>;

    impl<const UNIT: usize> Micro for Units<UNIT> {
        type A = bf16;
        type B = bf16;
        type C = f32;
        const ROWS: usize = 8;
        const COLUMNS: usize = 16;
        const A_UNIT: usize = UNIT;
        const B_UNIT: usize = UNIT;
        const STEP: usize = UNIT;
        const RUN: usize = 1;

        unsafe fn product(_: *const bf16, _: *const bf16, _: usize, _: *mut f32, _: usize, _: bool) {
            unreachable!("panels are only packed here");
        }
    }

    #[test]
    fn neighbours_in_bf16_lie_side_by_side() {
        at_every_level(|level| {
            check_neighbours::<2>(level);
            check_neighbours::<4>(level);
        });
    }

    fn check_neighbours<const UNIT: usize>(level: Level) {
        for (inner, columns) in [(1usize, 16usize), (2, 16), (7, 16), (8, 32), (9, 50), (4, 3), (23, 48)] {
            let mut x: Vec<f32> = (0..inner * columns).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
            x[0] = f32::NAN;
            let narrow: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
            let size = b_panel::<Units<UNIT>>(inner);
            let panels = columns.div_ceil(16) * size;
            let (mut packed, mut from_narrow) = (Buffer::zeros(panels), Buffer::zeros(panels));
            let wide = Matrix { data: &x[..], stride: columns, columns };
            pack_b::<Units<UNIT>, f32>(wide, inner, &mut packed);
            let narrowed = Matrix { data: &narrow[..], stride: columns, columns };
            pack_b::<Units<UNIT>, bf16>(narrowed, inner, &mut from_narrow);
            for (i, (a, b)) in packed.iter().zip(from_narrow.iter()).enumerate() {
                let (panel, i) = (i / size, i % size);
                let (k, lane) = (i / (UNIT * 16) * UNIT + i % UNIT, i / UNIT % 16);
                let column = panel * 16 + lane;
                let expected =
                    if k < inner && column < columns { narrow[k * columns + column] } else { bf16::ZERO };
                for found in [a, b] {
                    assert_eq!(
                        found.to_bits(),
                        expected.to_bits(),
                        "{level:?} {UNIT} {inner} {columns}: {k} {column}"
                    );
                }
            }
        }
    }
}
