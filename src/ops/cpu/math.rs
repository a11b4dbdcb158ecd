//! Functions of whole slices, written so that the compiler vectorises them ([`super::vectorised`]).

use std::mem::MaybeUninit;

use super::panels::Element;
use super::quantize::Quantum;
use super::vectorised::{Arithmetic, vectorised};
use crate::ops::Activation;

/// `eˣ` for x from −87 (about 1e-38, which stands for all below) to 88: Cephes' `expf` (Moshier), relative error about 1e-7.
#[inline(always)]
fn exp<A: Arithmetic>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: what is added to it is rounded to an integer, in its lowest bits
    let x = x.clamp(-87.0, 88.0);
    let rounded = A::mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = A::mul_add(n, 2.121_944_4e-4, A::mul_add(n, -0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    p = A::mul_add(p, r, 1.398_199_9e-3);
    p = A::mul_add(p, r, 8.333_452e-3);
    p = A::mul_add(p, r, 4.166_579_6e-2);
    p = A::mul_add(p, r, 1.666_666_5e-1);
    p = A::mul_add(p, r, 5.0e-1);
    let y = A::mul_add(p * r, r, r) + 1.0;
    // Not `n as i32`, which saturates, so that it would be computed one by one.
    y * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

/// The same for x up to 0 of which bf16 is made: 2⁻¹³ exact, by a cubic of our own fit to 2ʳ between −1/2 and 1/2.
#[inline(always)]
fn exp_narrow<A: Arithmetic>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // as in `exp`
    let x = x * std::f32::consts::LOG2_E;
    let x = if x < -126.0 { -126.0 } else { x }; // not `max`, which would turn NaN into a number
    let rounded = x + ROUND;
    let r = x - (rounded - ROUND);
    let y = A::mul_add(A::mul_add(0.055_171_67, r, 0.242_611_14), r, 0.693_261);
    let y = A::mul_add(y, r, 0.999_928_1);
    y * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

/// GELU by its tanh approximation (Hendrycks & Gimpel 2016), `gelu_pytorch_tanh`:
/// `x/2 · (1 + tanh u)` is `x / (1 + e^(−2u))`, which loses no digits at either end.
#[inline(always)]
fn gelu_tanh<A: Arithmetic>(x: f32) -> f32 {
    let u = x * A::mul_add(0.044_715 * 0.797_884_6, x * x, 0.797_884_6);
    x / (1.0 + exp::<A>(-2.0 * u))
}

/// The same for results that are rounded to bf16, at a third of the instructions and without a division:
/// `x · (1/2 + x · p(x²))` up to 4, beyond which it is `x` or nearly 0. `p` is a least-squares fit of our own on Chebyshev
/// nodes, reweighted towards the least maximum. Errors are at most 2⁻¹² of a positive result (bf16 rounds at 2⁻⁹), and 2.5e-4
/// where it is negative, at least −0.17.
#[inline(always)]
fn gelu_tanh_narrow<A: Arithmetic>(x: f32) -> f32 {
    const P: [f32; 8] = [
        0.398_616_85,
        -0.066_098_146,
        9.654_169e-3,
        -1.043_278_8e-3,
        7.941_925e-5,
        -3.965_550_6e-6,
        1.150_715_6e-7,
        -1.458_338_6e-9,
    ];
    let above = if x < -4.0 { -4.0 } else { x }; // not `max`, which would turn NaN into a number
    let within = if above > 4.0 { 4.0 } else { above };
    let square = within * within;
    let mut p = P[7];
    for &coefficient in P[..7].iter().rev() {
        p = A::mul_add(p, square, coefficient);
    }
    above * A::mul_add(within, p, 0.5)
}

/// GELU by the error function: `x · Φ(x)`, with Φ the normal distribution function.
///
/// Near 0, Φ is `1/2 + x · p(x²)`. Elsewhere its tail is `e^(−q(|x|)) / 2` with a polynomial q, so that small results keep
/// their digits. Both are least-squares fits of our own on Chebyshev nodes, reweighted towards the least maximum. The error
/// function that this amounts to is within 2e-7 of libm's.
#[inline(always)]
fn gelu_erf<A: Arithmetic>(x: f32) -> f32 {
    /// Where the two meet.
    const MIDDLE: f32 = 1.3;
    const P: [f32; 6] =
        [0.398_942_23, -0.066_489_81, 9.970_813e-3, -1.181_619_1e-3, 1.095_803_2e-4, -6.460_591e-6];
    const Q: [f32; 7] = [
        0.798_111_7,
        0.317_464_14,
        0.037_698_466,
        -6.029_411e-3,
        6.752_611_4e-4,
        -4.608_894_6e-5,
        1.417_717_7e-6,
    ];
    let size = x.abs();
    let size = if size > 14.0 { 14.0 } else { size }; // not `min`, which would turn NaN into a number
    let square = size * size;
    let mut p = P[5];
    for &coefficient in P[..5].iter().rev() {
        p = A::mul_add(p, square, coefficient);
    }
    let mut q = Q[6];
    for &coefficient in Q[..6].iter().rev() {
        q = A::mul_add(q, size, coefficient);
    }
    let half = 0.5 * x;
    let tail = half * exp::<A>(-q * size);
    let far = if x > 0.0 { x - tail } else { tail };
    if size < MIDDLE { A::mul_add(x * p, x, half) } else { far }
}

/// Values that are handled at once: one register of AVX-512, two of AVX2.
const LANES: usize = 16;

/// The sums of one block of a linear layer, as numbers.
pub trait Sums: Copy {
    /// `N` neighbours of a row from a column on.
    fn chunk<const N: usize>(&self, row: usize, column: usize) -> [f32; N];
}

/// `N` values from `at` on.
#[inline(always)]
fn chunk<T: Copy, const N: usize>(values: &[T], at: usize) -> &[T; N] {
    values[at..].first_chunk().expect("a chunk lies within its block")
}

/// Sums that are numbers already.
#[derive(Clone, Copy)]
pub struct Direct<'a> {
    /// `[rows, columns]`.
    pub sums: &'a [f32],
    /// Of a row.
    pub columns: usize,
}

impl Sums for Direct<'_> {
    #[inline(always)]
    fn chunk<const N: usize>(&self, row: usize, column: usize) -> [f32; N] {
        *chunk(self.sums, row * self.columns + column)
    }
}

/// Sums of bytes: `row.scale · column.scale · (sum − row.zero · column.sum)`.
#[derive(Clone, Copy)]
pub struct Scaled<'a> {
    /// `[rows, columns]`.
    pub sums: &'a [i32],
    /// `[rows]`: of the activations.
    pub rows: &'a [Quantum],
    /// `[columns]`: of the weight.
    pub scales: &'a [f32],
    /// `[columns]`: sums of the weight's bytes.
    pub columns: &'a [i32],
}

impl Sums for Scaled<'_> {
    #[inline(always)]
    fn chunk<const N: usize>(&self, row: usize, column: usize) -> [f32; N] {
        let sums = chunk::<_, N>(self.sums, row * self.scales.len() + column);
        let (scales, columns) = (chunk::<_, N>(self.scales, column), chunk::<_, N>(self.columns, column));
        let row = self.rows[row];
        let mut values = [0.0; N];
        for (i, value) in values.iter_mut().enumerate() {
            *value = (sums[i] - row.zero * columns[i]) as f32 * (row.scale * scales[i]);
        }
        values
    }
}

/// What is done to the sums of one block, and how it lies in the result.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// Rows that count.
    pub rows: usize,
    /// Columns that count.
    pub columns: usize,
    /// `[columns]`.
    pub bias: Option<&'a [f32]>,
    /// After the bias.
    pub activation: Option<Activation>,
    /// `[columns]`: taken off after that.
    pub centre: Option<&'a [f32]>,
    /// From the block's first value on; added last.
    pub residual: Option<&'a [f32]>,
    /// Values from one row of the residual and of the result to the next.
    pub stride: usize,
}

impl Block<'_> {
    /// `N` values of the result.
    #[inline(always)]
    fn chunk<T: Element, const N: usize>(
        &self,
        sums: impl Sums,
        activation: impl Fn(f32) -> f32,
        row: usize,
        column: usize,
    ) -> [T; N] {
        let mut values = sums.chunk::<N>(row, column);
        if let Some(bias) = self.bias {
            let bias = chunk::<_, N>(bias, column);
            for (x, b) in values.iter_mut().zip(bias) {
                *x += b;
            }
        }
        for x in &mut values {
            *x = activation(*x);
        }
        if let Some(centre) = self.centre {
            let centre = chunk::<_, N>(centre, column);
            for (x, c) in values.iter_mut().zip(centre) {
                *x -= c;
            }
        }
        if let Some(residual) = self.residual {
            let residual = chunk::<_, N>(residual, row * self.stride + column);
            for (x, r) in values.iter_mut().zip(residual) {
                *x += r;
            }
        }
        T::of_all(values)
    }

    /// # Safety
    /// As [`finish`].
    #[inline(always)]
    unsafe fn write<T: Element>(&self, sums: impl Sums, activation: impl Fn(f32) -> f32, y: *mut T) {
        for row in 0..self.rows {
            // SAFETY: the caller promises these rows.
            let y = unsafe { y.add(row * self.stride) };
            let whole = self.columns / LANES * LANES;
            for column in (0..whole).step_by(LANES) {
                let values = self.chunk::<T, LANES>(sums, &activation, row, column);
                // SAFETY: the caller promises these columns.
                unsafe { y.add(column).cast::<[T; LANES]>().write(values) };
            }
            for column in whole..self.columns {
                let [value] = self.chunk::<T, 1>(sums, &activation, row, column);
                // SAFETY: as above.
                unsafe { y.add(column).write(value) };
            }
        }
    }
}

vectorised! {
    /// Writes the sums of a block, finished, to `y`, its place in the result.
    ///
    /// # Safety
    /// `y` must point to `rows` rows, `stride` values apart, of `columns` values that nothing else uses meanwhile.
    pub unsafe fn finish [T: Element, S: Sums] (sums: S, block: Block<'_>, y: *mut T) {
        // SAFETY: the caller promises what the function needs.
        unsafe {
            match block.activation {
                None => block.write(sums, |x| x, y),
                Some(Activation::GeluTanh) if T::NARROW => block.write(sums, gelu_tanh_narrow::<A>, y),
                Some(Activation::GeluTanh) => block.write(sums, gelu_tanh::<A>, y),
                Some(Activation::GeluErf) => block.write(sums, gelu_erf::<A>, y),
            }
        }
    }
}

vectorised! {
    /// Replaces scores by `e^(scale · (score − max))` and returns the reciprocal of their sum: a softmax
    /// whose division is left to whoever sums the values.
    pub fn softmax_weights [] (row: &mut [f32], scale: f32) -> f32 {
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let mut chunks = row.chunks_exact(LANES);
        for chunk in &mut chunks {
            for (m, &x) in maxima.iter_mut().zip(chunk) {
                *m = if x > *m { x } else { *m };
            }
        }
        let max = chunks.remainder().iter().chain(&maxima).fold(f32::NEG_INFINITY, |m, &x| m.max(x));
        let mut sums = [0.0f32; LANES];
        let mut chunks = row.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (s, x) in sums.iter_mut().zip(chunk) {
                *x = exp::<A>(scale * (*x - max));
                *s += *x;
            }
        }
        let mut sum: f32 = sums.iter().sum();
        for x in chunks.into_remainder() {
            *x = exp::<A>(scale * (*x - max));
            sum += *x;
        }
        1.0 / sum
    }
}

vectorised! {
    /// Replaces the scores of each column, `[keys, columns]`, by `e^(scale · (score − max))`, and sets `inverses` `[columns]`
    /// to the reciprocals of their sums: softmaxes whose division is left to whoever sums the values.
    ///
    /// `T` is what comes of them: for bf16 the exponentials are as exact as bf16 can tell.
    pub fn softmax_columns [T: Element] (scores: &mut [f32], scale: f32, inverses: &mut [f32]) {
        let columns = inverses.len();
        assert!(columns.is_multiple_of(8), "columns come in eights");
        let (chunks, rest) = inverses.as_chunks_mut::<LANES>();
        let whole = chunks.len() * LANES;
        for (i, inverses) in chunks.iter_mut().enumerate() {
            softmax_lanes::<A, T, LANES>(scores, columns, i * LANES, scale, inverses);
        }
        for (i, inverses) in rest.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            softmax_lanes::<A, T, 8>(scores, columns, whole + 8 * i, scale, inverses);
        }
    }
}

#[inline(always)]
fn softmax_lanes<A: Arithmetic, T: Element, const N: usize>(
    scores: &mut [f32],
    columns: usize,
    first: usize,
    scale: f32,
    inverses: &mut [f32; N],
) {
    let mut maxima = [f32::NEG_INFINITY; N];
    for row in scores.chunks_exact(columns) {
        for (max, &x) in maxima.iter_mut().zip(chunk::<_, N>(row, first)) {
            *max = if x > *max { x } else { *max };
        }
    }
    let mut sums = [0.0f32; N];
    for row in scores.chunks_exact_mut(columns) {
        let row: &mut [f32; N] = row[first..].first_chunk_mut().expect("a chunk lies within its row");
        for ((x, sum), max) in row.iter_mut().zip(&mut sums).zip(maxima) {
            let below = scale * (*x - max);
            *x = if T::NARROW { exp_narrow::<A>(below) } else { exp::<A>(below) };
            *sum += *x;
        }
    }
    for (inverse, sum) in inverses.iter_mut().zip(sums) {
        *inverse = 1.0 / sum;
    }
}

vectorised! {
    /// Writes the first `count` columns of `x` `[rows, factors.len()]`, each times its factor, as rows `stride` values apart.
    ///
    /// # Safety
    /// `y` must point to so many rows of `rows` values, which nothing else uses meanwhile.
    pub unsafe fn transpose [T: Element] (x: &[f32], factors: &[f32], count: usize, y: *mut T, stride: usize) {
        const N: usize = 8;
        let columns = factors.len();
        assert!(columns.is_multiple_of(N), "columns come in eights");
        for (i, factors) in factors.as_chunks::<N>().0.iter().enumerate() {
            let first = i * N;
            let count = N.min(count.saturating_sub(first));
            for (row, x) in x.chunks_exact(columns).enumerate() {
                let mut values = *chunk::<_, N>(x, first);
                for (x, factor) in values.iter_mut().zip(factors) {
                    *x *= factor;
                }
                for (j, value) in T::of_all(values).into_iter().enumerate().take(count) {
                    // SAFETY: the caller promises these values.
                    unsafe { y.add((first + j) * stride + row).write(value) };
                }
            }
        }
    }
}

vectorised! {
    /// The inner product of two slices.
    pub fn dot [T: Element] (x: &[f32], y: &[T]) -> f32 {
        let mut sums = [0.0f32; LANES];
        let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y.wide()).sum();
        for (x, y) in xs.zip(ys) {
            for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
                *sum = A::mul_add(*x, y.wide(), *sum);
            }
        }
        sums.iter().sum::<f32>() + rest
    }
}

vectorised! {
    /// `y += factor · x`.
    pub fn add_scaled [T: Element] (x: &[T], factor: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = A::mul_add(factor, x.wide(), *y);
        }
    }
}

vectorised! {
    /// Layer normalisation of one row into another.
    pub fn layer_norm_row [T: Element] (
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f32,
        y: &mut [MaybeUninit<T>],
    ) {
        let n = x.len() as f32;
        let mut sums = [0.0f32; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (s, v) in sums.iter_mut().zip(chunk) {
                *s += v;
            }
        }
        let mean = (sums.iter().sum::<f32>() + rest.iter().sum::<f32>()) / n;
        let mut squares = [0.0f32; LANES];
        let chunks = x.chunks_exact(LANES);
        for chunk in chunks {
            for (s, v) in squares.iter_mut().zip(chunk) {
                *s = A::mul_add(v - mean, v - mean, *s);
            }
        }
        let rest: f32 = rest.iter().map(|v| (v - mean) * (v - mean)).sum();
        let variance = (squares.iter().sum::<f32>() + rest) / n;
        let inverse = 1.0 / (variance + eps).sqrt();
        for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
            y.write(T::of(A::mul_add((x - mean) * inverse, *w, *b)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::vectorised::tests::at_every_level;
    use crate::ops::cpu::vectorised::{Fused, Separate};

    #[test]
    fn exp_and_gelu_agree_with_the_standard_library() {
        exp_and_gelu::<Separate>();
        exp_and_gelu::<Fused>();
    }

    fn exp_and_gelu<A: Arithmetic>() {
        for i in -8_700..=8_800 {
            let x = i as f32 / 100.0;
            let (ours, exact) = (f64::from(exp::<A>(x)), f64::from(x).exp());
            assert!((ours - exact).abs() <= 3e-7 * exact, "exp({x}) = {ours}, not {exact}");
        }
        for i in -8_700..=0 {
            let x = i as f32 / 100.0;
            let (ours, exact) = (f64::from(exp_narrow::<A>(x)), f64::from(x).exp());
            assert!((ours - exact).abs() <= exact / 8192.0, "exp({x}) ≈ {ours}, not {exact}");
        }
        for i in -20_000..=20_000 {
            let x = i as f32 / 1000.0;
            let wide = f64::from(x);
            let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let (ours, exact) = (f64::from(gelu_tanh::<A>(x)), 0.5 * wide * (1.0 + u.tanh()));
            assert!((ours - exact).abs() <= 4e-7 * wide.abs().max(1e-3), "gelu({x}) = {ours}, not {exact}");
            let (narrow, bound) =
                (f64::from(gelu_tanh_narrow::<A>(x)), if x > 0.0 { exact / 4096.0 } else { 2.5e-4 });
            assert!((narrow - exact).abs() <= bound, "gelu({x}) ≈ {narrow}, not {exact}");
        }
    }

    /// Every 613th of all floats, and every float around the places where the formula changes.
    #[test]
    fn gelu_by_erf_is_that_of_libm() {
        gelu_by_erf::<Separate>();
        gelu_by_erf::<Fused>();
    }

    fn gelu_by_erf<A: Arithmetic>() {
        let near = |x: f32| x.to_bits() - 2000..x.to_bits() + 2000;
        let all = (0..=u32::MAX).step_by(613).chain(near(1.3)).chain(near(-1.3)).chain(near(14.0));
        let (mut worst, mut worst_tail) = (0.0f64, 0.0f64);
        for x in all.map(f32::from_bits) {
            let found = gelu_erf::<A>(x);
            if !x.is_finite() {
                assert!(!found.is_finite() || x == f32::NEG_INFINITY, "gelu({x}) = {found}");
                continue;
            }
            let (x, found) = (f64::from(x), f64::from(found));
            let upper = 0.5 * candle_core::cpu::erf::erf_f64(x.abs() / std::f64::consts::SQRT_2);
            let exact = x * if x > 0.0 { 0.5 + upper } else { 0.5 - upper };
            // The error of Φ, half of the error function's, without the rounding of the result.
            let rounding = (found.abs() * f64::from(f32::EPSILON) / 2.0).max(1e-45);
            worst = worst.max(((found - exact).abs() - rounding) / x.abs().max(1e-30));
            if (-5.0..-0.5).contains(&x) {
                worst_tail = worst_tail.max((found / exact - 1.0).abs());
            }
        }
        assert!(worst <= 1e-7, "{worst}");
        assert!(worst_tail <= 1e-4, "{worst_tail}");
    }

    #[test]
    fn softmaxes_of_columns_are_those_of_rows() {
        at_every_level(|_| columns_and_rows());
    }

    fn columns_and_rows() {
        let (keys, columns) = (7, 24);
        let scores: Vec<f32> = (0..keys * columns).map(|i| (i * 37 % 101) as f32 / 10.0 - 5.0).collect();
        let (mut wide, mut narrow) = (scores.clone(), scores.clone());
        let (mut inverses, mut narrow_inverses) = ([0.0; 24], [0.0; 24]);
        softmax_columns::<f32>(&mut wide, 0.3, &mut inverses);
        softmax_columns::<half::bf16>(&mut narrow, 0.3, &mut narrow_inverses);
        for column in 0..columns {
            let mut row: Vec<f32> = (0..keys).map(|key| scores[key * columns + column]).collect();
            let inverse = softmax_weights(&mut row, 0.3);
            for (key, weight) in row.iter().enumerate() {
                let at = key * columns + column;
                assert!((wide[at] * inverses[column] - weight * inverse).abs() < 1e-7);
                assert!((narrow[at] * narrow_inverses[column] - weight * inverse).abs() < 3e-4);
            }
        }
    }

    #[test]
    fn a_softmax_of_far_apart_scores_has_no_nan() {
        at_every_level(|level| {
            let mut row = vec![-1e30, 0.0, 1e4, 1e4];
            let inverse = softmax_weights(&mut row, 1.0);
            for (x, expected) in row.iter().zip([0.0, 0.0, 0.5, 0.5]) {
                assert!((x * inverse - expected).abs() < 1e-30, "{level:?} {row:?}");
            }
            // The same in every column; 24 of them, so that both widths of lanes are used.
            let scores: Vec<f32> = [-1e30, 0.0, 1e4, 1e4].into_iter().flat_map(|x| [x; 24]).collect();
            let (mut wide, mut narrow) = (scores.clone(), scores);
            let (mut inverses, mut narrow_inverses) = ([0.0; 24], [0.0; 24]);
            softmax_columns::<f32>(&mut wide, 1.0, &mut inverses);
            softmax_columns::<half::bf16>(&mut narrow, 1.0, &mut narrow_inverses);
            for (key, expected) in [0.0, 0.0, 0.5, 0.5].into_iter().enumerate() {
                for column in 0..24 {
                    let at = key * 24 + column;
                    assert!((wide[at] * inverses[column] - expected).abs() < 1e-30, "{level:?} {wide:?}");
                    let narrow = narrow[at] * narrow_inverses[column];
                    assert!((narrow - expected).abs() < 1e-4, "{level:?} {narrow}");
                }
            }
        });
    }

    #[test]
    fn a_score_that_is_not_finite_spoils_its_own_column_only() {
        at_every_level(|level| {
            for bad in [f32::NAN, f32::INFINITY] {
                for column in [0, 15, 16, 23] {
                    let mut scores: Vec<f32> = (0..5 * 24).map(|i| (i % 7) as f32).collect();
                    scores[2 * 24 + column] = bad;
                    let mut inverses = [0.0; 24];
                    softmax_columns::<f32>(&mut scores, 0.5, &mut inverses);
                    for (i, inverse) in inverses.iter().enumerate() {
                        assert_eq!(inverse.is_finite(), i != column, "{level:?}: {bad} in {column}, {i}");
                    }
                }
            }
        });
    }

    #[test]
    fn a_constant_row_has_the_norm_of_its_bias_and_nan_stays() {
        at_every_level(|level| {
            let (width, weight, bias) = (37, vec![2.0; 37], vec![0.25; 37]);
            let norm = |x: &[f32]| -> Vec<f32> {
                let mut y = vec![MaybeUninit::<f32>::uninit(); width];
                layer_norm_row::<f32>(x, &weight, &bias, 1e-6, &mut y);
                // SAFETY: every value was written.
                y.into_iter().map(|y| unsafe { y.assume_init() }).collect()
            };
            assert_eq!(norm(&[0.5; 37]), bias, "{level:?}");
            assert_eq!(norm(&[0.0; 37]), bias, "{level:?}");
            for at in [0, 36] {
                let mut x = vec![0.5; 37];
                x[at] = f32::NAN;
                assert!(norm(&x).iter().all(|y| y.is_nan()), "{level:?}");
            }
        });
    }
}
