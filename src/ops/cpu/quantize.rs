//! Bytes for numbers: of activations a step for each row, of weights a step for each column of the result.

use super::buffer::{Plain, with_scratch};
use super::micro::{Byte, Quantized};
use super::panels::{Element, Matrix, pack_lanes};
use super::vectorised::{Arithmetic, vectorised};

/// A row of bytes, as a kernel multiplies them, stands for `scale · (byte − zero)`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quantum {
    /// The step between two bytes.
    pub scale: f32,
    /// The byte of 0.
    pub zero: i32,
}

// SAFETY: any bits are two numbers.
unsafe impl Plain for Quantum {}

/// Quantises up to `Micro::ROWS` rows of `x`, each by its own range, into a panel of A.
pub fn quantize_a<M: Quantized, T: Element>(
    x: Matrix<'_, T>,
    first: usize,
    count: usize,
    panel: &mut [M::A],
    quanta: &mut [Quantum],
) {
    let quanta = &mut quanta[..M::ROWS];
    quanta.fill(Quantum::default());
    with_scratch::<f32, _>(x.columns, |wide| {
        with_scratch::<u8, _>(x.columns, |bytes| {
            pack_lanes(panel, (M::ROWS, M::A_UNIT), count, |row, to| {
                quanta[row] = quantize_row::<M, T>(x.row(first + row), wide, bytes, to);
            });
        });
    });
}

vectorised! {
    /// Quantises one row, with zeros behind it; `wide` and `bytes` have room for its values.
    fn quantize_row [M: Quantized, T: Element] (
        values: &[T],
        wide: &mut [f32],
        bytes: &mut [u8],
        to: &mut [M::A],
    ) -> Quantum {
        for (wide, value) in wide.iter_mut().zip(values) {
            *wide = value.wide();
        }
        let bytes = &mut bytes[..values.len()];
        let quantum = to_bytes::<A>(&wide[..values.len()], M::MOST, bytes);
        let (to, rest) = to.split_at_mut(values.len());
        rest.fill(M::A::default());
        for (to, &byte) in to.iter_mut().zip(&*bytes) {
            *to = byte.into();
        }
        Quantum { zero: quantum.zero - M::A::LESS, ..quantum }
    }
}

/// The least and the largest value, 0 included, and 0, or not a number where a value is not finite.
#[inline(always)]
fn range(x: &[f32]) -> (f32, f32, f32) {
    const LANES: usize = 16;
    let (mut low, mut high, mut finite) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    let mut see = |lane: usize, x: f32| {
        low[lane] = if x < low[lane] { x } else { low[lane] };
        high[lane] = if x > high[lane] { x } else { high[lane] };
        finite[lane] += x * 0.0;
    };
    let chunks = x.chunks_exact(LANES);
    for (lane, &x) in chunks.remainder().iter().enumerate() {
        see(lane, x);
    }
    for chunk in chunks {
        for (lane, &x) in chunk.iter().enumerate() {
            see(lane, x);
        }
    }
    (low.into_iter().fold(0.0, f32::min), high.into_iter().fold(0.0, f32::max), finite.into_iter().sum())
}

/// The nearest bytes up to `most` to `x` over its own range, 0 included. A value that is not finite makes the scale not a number, and
/// so the result. A range that is too small for f32 to divide by becomes zeros.
#[inline(always)]
fn to_bytes<A: Arithmetic>(x: &[f32], most: u8, bytes: &mut [u8]) -> Quantum {
    let most = f32::from(most);
    let (low, high, finite) = range(x);
    let scale = (high - low) / most;
    let scale = if scale < f32::MIN_POSITIVE { 0.0 } else { scale };
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let zero = (-low * inverse).round();
    for (byte, &x) in bytes.iter_mut().zip(x) {
        // What is added to 2²³ is rounded to an integer, in its lowest bits: a conversion would be done one by one.
        *byte = (A::mul_add(x, inverse, zero).clamp(0.0, most) + 8_388_608.0).to_bits() as u8;
    }
    Quantum { scale: scale + finite, zero: zero as i32 }
}

vectorised! {
    /// The nearest bytes from −127 to 127 to `x` over its own largest value, with a step that keeps two neighbours together
    /// within `pair`: one step, and the sum of the bytes. A value that is not finite makes the step not a number.
    pub fn quantize_weight [] (x: &[f32], pair: u8, bytes: &mut [i8]) -> (f32, i32) {
        /// 1.5 · 2²³: what is added to it is rounded to an integer, in its lowest bits.
        const ROUND: f32 = 12_582_912.0;
        let (low, high, finite) = range(x);
        let mut largest = high.max(-low);
        if pair < 254 {
            // Both may be rounded up by a half.
            largest = largest.max(largest_pair(x) * (127.0 / (f32::from(pair) - 1.0)));
        }
        let largest = if largest < 127.0 * f32::MIN_POSITIVE { 0.0 } else { largest };
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut sum = 0;
        for (byte, &x) in bytes.iter_mut().zip(x) {
            *byte = ((x * inverse).clamp(-127.0, 127.0) + ROUND).to_bits() as i8;
            sum += i32::from(*byte);
        }
        (largest / 127.0 + finite, sum)
    }
}

/// The most that the sizes of an even value and the next are together.
#[inline(always)]
fn largest_pair(x: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut most = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<{ 2 * LANES }>();
    for chunk in chunks {
        for (most, [a, b]) in most.iter_mut().zip(chunk.as_chunks::<2>().0) {
            let sum = a.abs() + b.abs();
            *most = if sum > *most { sum } else { *most };
        }
    }
    let rest = rest.chunks(2).map(|pair| pair.iter().map(|x| x.abs()).sum());
    most.into_iter().chain(rest).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::micro::round_bf16;
    use crate::ops::cpu::vectorised::tests::at_every_level;

    vectorised! {
        fn quantize [] (x: &[f32], bytes: &mut [u8]) -> Quantum {
            to_bytes::<A>(x, 255, bytes)
        }
    }

    #[test]
    fn bytes_stand_for_their_values() {
        at_every_level(|_| check_bytes_stand_for_their_values());
    }

    fn check_bytes_stand_for_their_values() {
        let x: Vec<f32> = (0..37).map(|i| (i as f32 - 9.0) * 0.3).collect();
        let mut bytes = vec![0; 37];
        let quantum = quantize(&x, &mut bytes);
        for (&byte, x) in bytes.iter().zip(&x) {
            let back = quantum.scale * (i32::from(byte) - quantum.zero) as f32;
            assert!((back - x).abs() <= quantum.scale * 0.5001, "{x} became {back}");
        }
        assert_eq!(quantize(&[0.0; 5], &mut [0; 5]), Quantum::default());
    }

    #[test]
    fn bytes_of_weights_stand_for_their_values() {
        at_every_level(|_| check_bytes_of_weights_stand_for_their_values());
    }

    fn check_bytes_of_weights_stand_for_their_values() {
        let x: Vec<f32> = (0..37).map(|i| (i as f32 - 20.0) * 0.3).collect();
        let mut bytes = vec![0; 37];
        let (step, sum) = quantize_weight(&x, 254, &mut bytes);
        for (&byte, x) in bytes.iter().zip(&x) {
            assert!((step * f32::from(byte) - x).abs() <= step * 0.5001, "{x} became {byte}");
        }
        assert_eq!((bytes[0], sum), (-127, bytes.iter().map(|&byte| i32::from(byte)).sum()));
        assert_eq!(quantize_weight(&[0.0; 5], 254, &mut [1; 5]), (0.0, 0));
    }

    #[test]
    fn neighbours_of_a_weight_keep_within_their_bound() {
        at_every_level(|level| {
            for (seed, bound) in (1..200u32).flat_map(|seed| [(seed, 128), (seed, 152)]) {
                let x: Vec<f32> =
                    (0..37).map(|i| ((i * seed + seed * seed) as f32 * 0.7).sin().powi(3)).collect();
                let mut bytes = vec![0; 37];
                let (step, sum) = quantize_weight(&x, bound, &mut bytes);
                let pairs =
                    bytes.chunks(2).map(|pair| pair.iter().map(|byte| byte.unsigned_abs() as u32).sum());
                let most: u32 = pairs.max().unwrap();
                let bound = u32::from(bound);
                let largest = bytes.iter().any(|byte| byte.unsigned_abs() == 127);
                assert!(most <= bound, "{level:?} {seed}: {most}");
                assert!(most >= bound - 8 || largest, "{level:?} {seed}: no finer than it must be, {most}");
                assert_eq!(sum, bytes.iter().map(|&byte| i32::from(byte)).sum::<i32>());
                for (&byte, x) in bytes.iter().zip(&x) {
                    assert!(
                        (step * f32::from(byte) - x).abs() <= step * 0.5001,
                        "{level:?}: {x} became {byte}"
                    );
                }
            }
            // One that is alone has all bytes.
            let mut bytes = [0; 3];
            quantize_weight(&[1.0, 0.0, -0.5], 128, &mut bytes);
            assert_eq!(bytes, [127, 0, -64], "{level:?}");
        });
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        at_every_level(|_| check_what_is_not_finite_is_not_hidden());
    }

    fn check_what_is_not_finite_is_not_hidden() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 40];
            x[33] = bad;
            assert!(!quantize(&x, &mut [0; 40]).scale.is_finite(), "{bad}");
            assert!(!quantize_weight(&x, 254, &mut [0; 40]).0.is_finite(), "{bad}");
        }
        assert!(round_bf16(f32::NAN).is_nan() && round_bf16(f32::INFINITY).is_infinite());
    }

    #[test]
    fn ranges_too_small_to_divide_by_become_zeros() {
        at_every_level(|level| {
            for tiny in [1e-40, 1e-38, 1e-37, 7e-37, 1e-36, 1e-30] {
                for x in [[tiny; 16], [-tiny; 16]] {
                    let mut bytes = [1; 16];
                    let quantum = quantize(&x, &mut bytes);
                    assert!(
                        (0..=255).contains(&quantum.zero) && quantum.scale.is_finite(),
                        "{level:?} {quantum:?}"
                    );
                    let back = quantum.scale * (i32::from(bytes[3]) - quantum.zero) as f32;
                    assert!((back - x[3]).abs() <= tiny, "{level:?}: {} became {back}", x[3]);
                    let mut bytes = [1; 16];
                    let (step, sum) = quantize_weight(&x, 254, &mut bytes);
                    let back = step * f32::from(bytes[3]);
                    assert!(
                        (back - x[3]).abs() <= tiny && sum == 16 * i32::from(bytes[3]),
                        "{level:?}: {back}"
                    );
                }
            }
        });
    }
}
