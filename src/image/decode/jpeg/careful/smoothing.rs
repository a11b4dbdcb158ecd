//! Guesses for coefficients that a progressive file never gave, from the DC coefficients of 5 × 5 blocks. The weights
//! are those of libjpeg-turbo 2.1 and later ("block smoothing"): without them the pixels would not be Pillow's.

use super::super::survey::Survey;
use super::Coefficients;

/// A coefficient's place by rows, and what each of the 5 × 5 blocks' DC adds to 256 times its guess.
type Kernel = (usize, [i32; 25]);

/// Where not a single AC coefficient is known.
#[rustfmt::skip]
const FROM_DC_ALONE: [Kernel; 9] = [
    (1, [-1, -1, 0, 1, 1, -3, 13, 0, -13, 3, -3, 38, 0, -38, 3, -3, 13, 0, -13, 3, -1, -1, 0, 1, 1]),
    (8, [-1, -3, -3, -3, -1, -1, 13, 38, 13, -1, 0, 0, 0, 0, 0, 1, -13, -38, -13, 1, 1, 3, 3, 3, 1]),
    (16, [0, 0, 1, 0, 0, 0, 2, 7, 2, 0, 0, -5, -14, -5, 0, 0, 2, 7, 2, 0, 0, 0, 1, 0, 0]),
    (9, [-1, 0, 0, 0, 1, 0, 9, 0, -9, 0, 0, 0, 0, 0, 0, 0, -9, 0, 9, 0, 1, 0, 0, 0, -1]),
    (2, [0, 0, 0, 0, 0, 0, 2, -5, 2, 0, 1, 7, -14, 7, 1, 0, 2, -5, 2, 0, 0, 0, 0, 0, 0]),
    (3, [0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, 2, 0, -2, 0, 0, 1, 0, -1, 0, 0, 0, 0, 0, 0]),
    (10, [0, 0, 0, 0, 0, 0, 1, -3, 1, 0, 0, 0, 0, 0, 0, 0, -1, 3, -1, 0, 0, 0, 0, 0, 0]),
    (17, [0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, -3, 0, 3, 0, 0, 1, 0, -1, 0, 0, 0, 0, 0, 0]),
    (24, [0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, -1, -2, -1, 0, 0, 0, 0, 0, 0]),
];

/// Where some are: only five are guessed.
#[rustfmt::skip]
const BESIDE_KNOWN: [Kernel; 5] = [
    (1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -7, 50, 0, -50, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    (8, [0, 0, -7, 0, 0, 0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, -50, 0, 0, 0, 0, 7, 0, 0]),
    (16, [0, 0, -1, 0, 0, 0, 0, 13, 0, 0, 0, 0, -24, 0, 0, 0, 0, 13, 0, 0, 0, 0, -1, 0, 0]),
    (9, [0, -1, 0, 1, 0, -1, 10, 0, -10, 1, 0, 0, 0, 0, 0, 1, -10, 0, 10, -1, 0, 1, 0, -1, 0]),
    (2, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 13, -24, 13, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
];

/// The DC coefficient itself, where it is all that is known.
#[rustfmt::skip]
const DC: [i32; 25] =
    [-2, -6, -8, -6, -2, -6, 6, 42, 6, -6, -8, 42, 152, 42, -8, -6, 6, 42, 6, -6, -2, -6, -8, -6, -2];

/// The guessed coefficients in the order of a file: 1, 8, 16, 9, 2, 3, 10, 17, 24.
const GUESSED: usize = 9;

/// Fills in what is not known. Nothing happens where all is, or where a component has no DC coefficients at all.
pub(super) fn guess(survey: &Survey, all: &mut [Coefficients]) {
    let known = survey.known_bits();
    let has_tables = all.iter().all(|component| {
        component
            .quantisers
            .is_some_and(|table| table[0] != 0 && FROM_DC_ALONE.iter().all(|(place, _)| table[*place] != 0))
    });
    let is_useful = known.iter().any(|bits| bits[1..=GUESSED].iter().any(|bits| *bits != 0));
    if !has_tables || !is_useful || known.iter().any(|bits| bits[0] < 0) {
        return;
    }
    for ((component, bits), sampling) in all.iter_mut().zip(&known).zip(&survey.components) {
        let Some(quantisers) = component.quantisers else { return };
        guess_component(component, bits, &quantisers, sampling.down);
    }
}

fn guess_component(component: &mut Coefficients, bits: &[i8; 64], quantisers: &[u16; 64], down: usize) {
    let from_dc_alone = bits[1..=GUESSED].iter().all(|bits| *bits == -1);
    let (kernels, bits_of): (&[Kernel], &[i8]) =
        if from_dc_alone { (&FROM_DC_ALONE, &bits[1..=9]) } else { (&BESIDE_KNOWN, &bits[1..=5]) };
    let blocks = &component.blocks;
    let stride = blocks.padded_across;
    let dc: Vec<i32> = component.values.as_chunks::<64>().0.iter().map(|block| i32::from(block[0])).collect();
    let scale = i32::from(quantisers[0]);
    let (Some(last_column), true) = (blocks.across.checked_sub(1), down > 0) else { return };
    for row in 0..blocks.down {
        // libjpeg counts the rows of the last unit as if every unit were as short, so the rows above may end there; those
        // below end with the picture, or within the last unit's filling where they are seen from another unit.
        let (unit, last_unit) = (row / down, blocks.padded_down / down - 1);
        let (rows_of_unit, bottom) = if unit == last_unit {
            (blocks.down - last_unit * down, blocks.down - 1)
        } else {
            (down, blocks.padded_down - 1)
        };
        let counted = unit * rows_of_unit + row % down;
        let above = if counted > 0 { row - 1 } else { row };
        let far_above = if counted > 1 { row - 2 } else { above };
        let rows = [far_above, above, row, (row + 1).min(bottom), (row + 2).min(bottom)];
        for column in 0..=last_column {
            let columns = [
                column.saturating_sub(2),
                column.saturating_sub(1),
                column,
                (column + 1).min(last_column),
                (column + 2).min(last_column),
            ];
            let window: [i32; 25] = std::array::from_fn(|at| dc[rows[at / 5] * stride + columns[at % 5]]);
            let weighed = |weights: &[i32; 25]| -> i64 {
                let sum: i64 =
                    weights.iter().zip(&window).map(|(w, dc)| i64::from(*w) * i64::from(*dc)).sum();
                sum * i64::from(scale)
            };
            let start = (row * stride + column) * 64;
            let block = &mut component.values[start..start + 64];
            for ((place, weights), bits) in kernels.iter().zip(bits_of) {
                if *bits != 0 && block[*place] == 0 {
                    block[*place] = divided(weighed(weights), quantisers[*place], *bits);
                }
            }
            if from_dc_alone {
                block[0] = divided(weighed(&DC), quantisers[0], -1);
            }
        }
    }
}

/// A 256th of `sum`, divided by the quantiser and rounded; less than the lowest bit that is known.
fn divided(sum: i64, quantiser: u16, bits: i8) -> i16 {
    let quantiser = i64::from(quantiser);
    let mut value = ((quantiser << 7) + sum.abs()) / (quantiser << 8);
    if bits > 0 {
        value = value.min((1 << bits) - 1);
    }
    (if sum < 0 { -value } else { value }) as i16
}
