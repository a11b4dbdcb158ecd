//! Undoes the difference of neighbours that made samples easier to compress.

use super::layout::Layout;
use super::refused;
use crate::image::ImageError;

/// Undoes the predictor in rows of `width` pixels each.
pub(super) fn undo(data: &mut [u8], width: usize, layout: &Layout) -> Result<(), ImageError> {
    let samples = layout.chunk_samples();
    let row_bytes = layout.row_bytes(width);
    let rows = data.chunks_exact_mut(row_bytes.max(1));
    match (layout.predictor, layout.bits) {
        (0 | 1, _) => {}
        (2, 8) => rows.for_each(|row| {
            for at in samples..row.len() {
                row[at] = row[at].wrapping_add(row[at - samples]);
            }
        }),
        (2, 16) => rows.for_each(|row| add::<2>(row, samples, layout.little_endian)),
        (2, 32) => rows.for_each(|row| add::<4>(row, samples, layout.little_endian)),
        (2, 64) => rows.for_each(|row| add::<8>(row, samples, layout.little_endian)),
        (3, 32) => rows.for_each(|row| floats::<4>(row, samples, layout.little_endian)),
        (3, 64) => rows.for_each(|row| floats::<8>(row, samples, layout.little_endian)),
        (other, bits) => return Err(refused(format!("predictor {other} with samples of {bits} bits"))),
    }
    Ok(())
}

/// Adds to every number of `N` bytes the one of the pixel before.
fn add<const N: usize>(row: &mut [u8], samples: usize, little_endian: bool) {
    let (numbers, _) = row.as_chunks_mut::<N>();
    for at in samples..numbers.len() {
        let before = numbers[at - samples];
        let mut carry = 0;
        for place in 0..N {
            let place = if little_endian { place } else { N - 1 - place };
            let sum = u16::from(numbers[at][place]) + u16::from(before[place]) + carry;
            numbers[at][place] = sum as u8;
            carry = sum >> 8;
        }
    }
}

/// Floating point numbers were taken apart: first all their highest bytes, then the next; each byte is the difference to
/// the byte before.
fn floats<const N: usize>(row: &mut [u8], samples: usize, little_endian: bool) {
    for at in samples..row.len() {
        row[at] = row[at].wrapping_add(row[at - samples]);
    }
    let planes = row.to_vec();
    let (numbers, _) = row.as_chunks_mut::<N>();
    let count = numbers.len();
    for (index, number) in numbers.iter_mut().enumerate() {
        for (place, byte) in number.iter_mut().enumerate() {
            let plane = if little_endian { N - 1 - place } else { place };
            *byte = planes[plane * count + index];
        }
    }
}
