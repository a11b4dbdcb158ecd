//! Functions of whole slices, written so that the compiler vectorises them, once for each
//! instruction set that the processor may have.

use multiversion::multiversion;

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

/// `tanh x`, absolute error below 2e-7.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Near 0 the quotient below would lose digits; there tanh x = x − x³/3 + 2x⁵/15 − ….
    let x2 = x * x;
    let small = x * (1.0 + x2 * (-1.0 / 3.0 + x2 * (2.0 / 15.0 + x2 * (-17.0 / 315.0))));
    let e = exp(2.0 * x.clamp(-15.0, 15.0));
    let large = (e - 1.0) / (e + 1.0);
    if x2 < 0.04 { small } else { large }
}

/// GELU by its tanh approximation (Hendrycks & Gimpel 2016): `gelu_pytorch_tanh`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let u = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + tanh(u))
}

/// Adds `bias` to each row, then applies the activation.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn bias_activation(row: &mut [f32], bias: Option<&[f32]>, activation: Option<Activation>) {
    if let Some(bias) = bias {
        for (x, b) in row.iter_mut().zip(bias) {
            *x += b;
        }
    }
    match activation {
        None => {}
        Some(Activation::GeluTanh) => {
            for x in row {
                *x = gelu_tanh(*x);
            }
        }
        Some(Activation::GeluErf) => {
            for x in row {
                let y = f64::from(*x);
                *x = (0.5 * y * (1.0 + candle_core::cpu::erf::erf_f64(y / std::f64::consts::SQRT_2))) as f32;
            }
        }
    }
}

/// Adds one slice to another.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn add(row: &mut [f32], other: &[f32]) {
    for (x, y) in row.iter_mut().zip(other) {
        *x += y;
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

/// Multiplies a slice by a number.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn scale(row: &mut [f32], factor: f32) {
    for x in row {
        *x *= factor;
    }
}

/// Layer normalisation of one row into another.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
pub fn layer_norm_row(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
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
        *y = (x - mean) * inverse * w + b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_agree_with_the_standard_library() {
        for i in -8_700..=8_800 {
            let x = i as f32 / 100.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours - exact).abs() <= 3e-7 * exact, "exp({x}) = {ours}, not {exact}");
        }
        for i in -20_000..=20_000 {
            let x = i as f32 / 1000.0;
            let (ours, exact) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((ours - exact).abs() <= 2e-7, "tanh({x}) = {ours}, not {exact}");
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
