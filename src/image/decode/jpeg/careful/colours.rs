//! Planes to RGB or to inks, with the tables of libjpeg (`jdcolor`): 16 bits behind the point.

/// Interleaves planes of equal size into `out`: one plane becomes grey, three RGB, four inks.
pub(super) fn convert(planes: &[Vec<u8>], luma: bool, out: &mut [u8]) {
    match planes {
        [grey] => {
            for (pixel, value) in out.as_chunks_mut::<3>().0.iter_mut().zip(grey) {
                *pixel = [*value; 3];
            }
        }
        [first, second, third] => {
            for (at, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let samples = [first[at], second[at], third[at]];
                *pixel = if luma { rgb(samples) } else { samples };
            }
        }
        [first, second, third, black] => {
            for (at, pixel) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let samples = [first[at], second[at], third[at]];
                let [c, m, y] = if luma { rgb(samples).map(|value| 255 - value) } else { samples };
                *pixel = [c, m, y, black[at]];
            }
        }
        _ => {}
    }
}

fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    [
        y + ((91_881 * cr + HALF) >> 16),
        y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16),
        y + ((116_130 * cb + HALF) >> 16),
    ]
    .map(|value| value.clamp(0, 255) as u8)
}
