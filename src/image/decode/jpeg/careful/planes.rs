//! A component's samples to the size of the picture, as libjpeg-turbo does it ("fancy upsampling", `jdsample`).

use super::super::super::{buffer, unsupported};
use super::super::survey::Component;
use crate::image::{Format, ImageError};

/// A plane of `size` from one whose rows have `stride` samples.
pub(super) fn upsample(
    plane: &[u8],
    stride: usize,
    component: &Component,
    unit: (usize, usize),
    (width, height): (usize, usize),
) -> Result<Vec<u8>, ImageError> {
    if !unit.0.is_multiple_of(component.across) || !unit.1.is_multiple_of(component.down) {
        return Err(unsupported(
            Format::Jpeg,
            format!(
                "{} × {} samples of a component for {} × {} of another",
                component.across, component.down, unit.0, unit.1
            ),
        ));
    }
    let (wide, high) = (unit.0 / component.across, unit.1 / component.down);
    // Samples that belong to the picture; what is behind them only fills the last blocks.
    let across = (width * component.across).div_ceil(unit.0);
    let down = (height * component.down).div_ceil(unit.1);
    let row = |y: usize| &plane[y.min(down - 1) * stride..][..across];
    let mut out = buffer(Format::Jpeg, width * height)?;
    let mut line = vec![0; across * wide];
    let mut sums = vec![0; across];
    for (y, target) in out.chunks_exact_mut(width).enumerate() {
        let (source, lower) = (y / high, y % high == 1);
        // The row on the other side of the pixel.
        let neighbour = if lower { source + 1 } else { source.saturating_sub(1) };
        match (wide, high) {
            (2, 1) if across > 2 => {
                sums.iter_mut().zip(row(source)).for_each(|(sum, value)| *sum = u32::from(*value));
                triangle(&sums, &mut line, 2, [1, 2]);
            }
            (1, 2) => {
                let bias = if lower { 2 } else { 1 };
                let pairs = row(source).iter().zip(row(neighbour));
                for (out, (near, far)) in line.iter_mut().zip(pairs) {
                    *out = ((u32::from(*near) * 3 + u32::from(*far) + bias) >> 2) as u8;
                }
            }
            (2, 2) if across > 2 => {
                let pairs = row(source).iter().zip(row(neighbour));
                for (sum, (near, far)) in sums.iter_mut().zip(pairs) {
                    *sum = u32::from(*near) * 3 + u32::from(*far);
                }
                triangle(&sums, &mut line, 4, [8, 7]);
            }
            _ => {
                for (out, value) in line.chunks_exact_mut(wide).zip(row(source)) {
                    out.fill(*value);
                }
            }
        }
        target.copy_from_slice(&line[..width]);
    }
    Ok(out)
}

/// Twice as many values: each a quarter of its neighbour and three of its own, with `bits` bits to lose. The outermost
/// values have no neighbour.
fn triangle(values: &[u32], out: &mut [u8], bits: u32, bias: [u32; 2]) {
    let last = values.len() - 1;
    for (x, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let value = values[x];
        let before = values[x.saturating_sub(1)];
        let behind = values[(x + 1).min(last)];
        *pair =
            [(value * 3 + before + bias[0]) >> bits, (value * 3 + behind + bias[1]) >> bits].map(|v| v as u8);
    }
}
