//! Functions of whole slices, written so that the compiler vectorises them, once for each
//! instruction set that the processor may have.

use std::mem::MaybeUninit;

use half::bf16;
use multiversion::multiversion;

use super::micro::round_bf16;
use super::panels::{Element, Quantum};
use crate::model::Activation;

/// `eˣ` for x from −87 (about 1e-38, which stands for all below) to 88: Cephes' `expf` (Moshier), relative error about 1e-7.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0; // rounds to the nearest integer
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.0e-1;
    let y = p * r * r + r + 1.0;
    y * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// GELU by its tanh approximation (Hendrycks & Gimpel 2016), `gelu_pytorch_tanh`:
/// `x/2 · (1 + tanh u)` is `x / (1 + e^(−2u))`, which loses no digits at either end.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let u = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-2.0 * u))
}

/// GELU, exactly.
#[inline(always)]
fn gelu_erf(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / std::f64::consts::SQRT_2))) as f32
}

/// Sums of one block of a linear layer and what is to be done to them.
pub struct Block<'a> {
    /// `[rows, tile_stride]`, of which the first `columns` count.
    pub tile: &'a mut [f32],
    /// Values from one row of the tile to the next.
    pub tile_stride: usize,
    /// Rows that count.
    pub rows: usize,
    /// Columns that count.
    pub columns: usize,
    /// `[columns]`.
    pub bias: Option<&'a [f32]>,
    /// After the bias.
    pub activation: Option<Activation>,
    /// From the block's first value on; added last.
    pub residual: Option<&'a [f32]>,
    /// Values from one row of the residual and of the result to the next.
    pub stride: usize,
}

/// Bias, activation and residual of one block, in its tile.
#[inline(always)]
fn finish(block: &mut Block<'_>) {
    for (i, row) in block.tile.chunks_exact_mut(block.tile_stride).take(block.rows).enumerate() {
        let row = &mut row[..block.columns];
        if let Some(bias) = block.bias {
            for (x, b) in row.iter_mut().zip(bias) {
                *x += b;
            }
        }
        match block.activation {
            None => {}
            Some(Activation::GeluTanh) => row.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
            Some(Activation::GeluErf) => row.iter_mut().for_each(|x| *x = gelu_erf(*x)),
        }
        if let Some(residual) = block.residual {
            for (x, r) in row.iter_mut().zip(&residual[i * block.stride..]) {
                *x += r;
            }
        }
    }
}

/// Finishes a block into `y`, its place in the result.
///
/// # Safety
/// `y` must point to `rows` rows, `stride` values apart, of `columns` values that nothing else uses meanwhile.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub unsafe fn finish_f32(mut block: Block<'_>, y: *mut f32) {
    finish(&mut block);
    for (i, row) in block.tile.chunks_exact(block.tile_stride).take(block.rows).enumerate() {
        // SAFETY: the caller promises these values.
        let y = unsafe { std::slice::from_raw_parts_mut(y.add(i * block.stride), block.columns) };
        y.copy_from_slice(&row[..block.columns]);
    }
}

/// The same, rounded to bf16.
///
/// # Safety
/// As [`finish_f32`].
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub unsafe fn finish_bf16(mut block: Block<'_>, y: *mut bf16) {
    finish(&mut block);
    for (i, row) in block.tile.chunks_exact(block.tile_stride).take(block.rows).enumerate() {
        // SAFETY: the caller promises these values.
        let y = unsafe { std::slice::from_raw_parts_mut(y.add(i * block.stride), block.columns) };
        for (y, &x) in y.iter_mut().zip(row) {
            *y = round_bf16(x);
        }
    }
}

/// Sums of bytes `[rows, columns]` as numbers: `row.scale · column.scale · (sum − row.zero · column.sum)`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn widen(sums: &[i32], rows: &[Quantum], scales: &[f32], columns: &[i32], tile: &mut [f32]) {
    let width = scales.len();
    for ((sums, row), tile) in sums.chunks_exact(width).zip(rows).zip(tile.chunks_exact_mut(width)) {
        for (((x, &sum), &scale), &column) in tile.iter_mut().zip(sums).zip(scales).zip(columns) {
            *x = (sum - row.zero * column) as f32 * (row.scale * scale);
        }
    }
}

/// Replaces scores by `e^(scale · (score − max))` and returns the reciprocal of their sum: a softmax
/// whose division is left to whoever sums the values.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn softmax_weights(row: &mut [f32], scale: f32) -> f32 {
    const LANES: usize = 16;
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
            *x = exp(scale * (*x - max));
            *s += *x;
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for x in chunks.into_remainder() {
        *x = exp(scale * (*x - max));
        sum += *x;
    }
    1.0 / sum
}

/// Writes `x` times a number.
///
/// # Safety
/// `y` must point to as many values as `x` has, which nothing else uses meanwhile.
pub unsafe fn scaled<T: Element>(x: &[f32], factor: f32, y: *mut T) {
    for (i, x) in x.iter().enumerate() {
        // SAFETY: the caller promises these values.
        unsafe { y.add(i).write(T::of(x * factor)) };
    }
}

/// The inner product of two slices.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn dot<T: Element>(x: &[f32], y: &[T]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y.wide()).sum();
    for (x, y) in xs.zip(ys) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y.wide();
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `y += factor · x`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn add_scaled<T: Element>(x: &[T], factor: f32, y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x.wide();
    }
}

/// Layer normalisation of one row into another.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn layer_norm_row<T: Element>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: &mut [MaybeUninit<T>],
) {
    const LANES: usize = 16;
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
            *s += (v - mean) * (v - mean);
        }
    }
    let rest: f32 = rest.iter().map(|v| (v - mean) * (v - mean)).sum();
    let variance = (squares.iter().sum::<f32>() + rest) / n;
    let inverse = 1.0 / (variance + eps).sqrt();
    for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
        y.write(T::of((x - mean) * inverse * w + b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_gelu_agree_with_the_standard_library() {
        for i in -8_700..=8_800 {
            let x = i as f32 / 100.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours - exact).abs() <= 3e-7 * exact, "exp({x}) = {ours}, not {exact}");
        }
        for i in -20_000..=20_000 {
            let x = i as f32 / 1000.0;
            let wide = f64::from(x);
            let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let (ours, exact) = (f64::from(gelu_tanh(x)), 0.5 * wide * (1.0 + u.tanh()));
            assert!((ours - exact).abs() <= 4e-7 * wide.abs().max(1e-3), "gelu({x}) = {ours}, not {exact}");
        }
    }

    #[test]
    fn a_softmax_of_far_apart_scores_has_no_nan() {
        let mut row = vec![-1e30, 0.0, 1e4, 1e4];
        let inverse = softmax_weights(&mut row, 1.0);
        for (x, expected) in row.iter().zip([0.0, 0.0, 0.5, 0.5]) {
            assert!((x * inverse - expected).abs() < 1e-30, "{row:?}");
        }
    }
}
