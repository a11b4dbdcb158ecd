//! Blocks of coefficients to samples: the accurate integer transform of Loeffler, Ligtenberg and Moschytz (1989) with 13
//! bits behind the point, as libjpeg has it (`jidctint`).

use super::super::super::buffer;
use super::super::damaged;
use super::Coefficients;
use crate::image::{Format, ImageError};

/// `[padded_down · 8, padded_across · 8]` samples.
pub(super) fn plane(coefficients: &Coefficients) -> Result<Vec<u8>, ImageError> {
    let blocks = &coefficients.blocks;
    let stride = blocks.padded_across * 8;
    let mut plane = buffer(Format::Jpeg, stride * blocks.padded_down * 8)?;
    // A component that no scan had is zero everywhere, whatever would multiply it.
    let quantisers = coefficients.quantisers.unwrap_or([1; 64]);
    let values = coefficients.values.as_chunks::<64>().0;
    if blocks.padded_across == 0 {
        return Err(damaged("it has no blocks"));
    }
    for (row, line) in values.chunks_exact(blocks.padded_across).enumerate() {
        for (column, block) in line.iter().enumerate() {
            let samples = transform(block, &quantisers);
            for (y, part) in samples.as_chunks::<8>().0.iter().enumerate() {
                plane[(row * 8 + y) * stride + column * 8..][..8].copy_from_slice(part);
            }
        }
    }
    Ok(plane)
}

const POINT: i32 = 13;
/// Bits that the first pass leaves behind the point.
const BETWEEN: i32 = 2;

fn transform(block: &[i16; 64], quantisers: &[u16; 64]) -> [u8; 64] {
    let mut work = [0_i32; 64];
    for column in 0..8 {
        let input = std::array::from_fn(|row| {
            let at = row * 8 + column;
            i32::from(block[at]).wrapping_mul(i32::from(quantisers[at]))
        });
        for (row, value) in one_dimension(input, POINT - BETWEEN).into_iter().enumerate() {
            work[row * 8 + column] = value;
        }
    }
    let mut out = [0; 64];
    for (row, line) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let input = std::array::from_fn(|column| work[row * 8 + column]);
        *line = one_dimension(input, POINT + BETWEEN + 3)
            .map(|value| value.saturating_add(128).clamp(0, 255) as u8);
    }
    out
}

/// Eight values; the result is rounded and loses `shift` bits.
fn one_dimension(input: [i32; 8], shift: i32) -> [i32; 8] {
    // Damaged files may overflow; their pixels do not matter.
    let times = |value: i32, factor: i32| value.wrapping_mul(factor);
    let sum = |a: i32, b: i32| a.wrapping_add(b);
    let difference = |a: i32, b: i32| a.wrapping_sub(b);
    let rounded = |value: i32| sum(value, 1 << (shift - 1)) >> shift;

    let z1 = times(sum(input[2], input[6]), 4433);
    let even2 = difference(z1, times(input[6], 15_137));
    let even3 = sum(z1, times(input[2], 6270));
    let even0 = times(sum(input[0], input[4]), 1 << POINT);
    let even1 = times(difference(input[0], input[4]), 1 << POINT);
    let even = [sum(even0, even3), sum(even1, even2), difference(even1, even2), difference(even0, even3)];

    let [a, b, c, d] = [input[7], input[5], input[3], input[1]];
    let z5 = times(sum(sum(a, c), sum(b, d)), 9633);
    let z1 = times(sum(a, d), -7373);
    let z2 = times(sum(b, c), -20_995);
    let z3 = sum(times(sum(a, c), -16_069), z5);
    let z4 = sum(times(sum(b, d), -3196), z5);
    let odd = [
        sum(times(d, 12_299), sum(z1, z4)),
        sum(times(c, 25_172), sum(z2, z3)),
        sum(times(b, 16_819), sum(z2, z4)),
        sum(times(a, 2446), sum(z1, z3)),
    ];
    std::array::from_fn(|index| {
        if index < 4 {
            rounded(sum(even[index], odd[index]))
        } else {
            rounded(difference(even[7 - index], odd[7 - index]))
        }
    })
}
