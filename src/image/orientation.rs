//! How a stored picture is to be turned.

/// The orientation of EXIF: what has to be done to a picture as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Orientation {
    /// Nothing (1).
    #[default]
    Upright,
    /// Mirror left and right (2).
    FlipHorizontal,
    /// Turn by 180° (3).
    Rotate180,
    /// Mirror top and bottom (4).
    FlipVertical,
    /// Mirror along the diagonal from top left (5).
    Transpose,
    /// Turn clockwise by 90° (6).
    Rotate90,
    /// Mirror along the diagonal from top right (7).
    Transverse,
    /// Turn clockwise by 270° (8).
    Rotate270,
}

impl Orientation {
    /// The orientation that EXIF numbers from 1 to 8; every other number changes nothing, as in Pillow.
    pub(super) fn from_number(number: u64) -> Self {
        match number {
            2 => Self::FlipHorizontal,
            3 => Self::Rotate180,
            4 => Self::FlipVertical,
            5 => Self::Transpose,
            6 => Self::Rotate90,
            7 => Self::Transverse,
            8 => Self::Rotate270,
            _ => Self::Upright,
        }
    }

    /// Whether width and height change places.
    pub(super) fn swaps_sides(self) -> bool {
        matches!(self, Self::Transpose | Self::Rotate90 | Self::Transverse | Self::Rotate270)
    }

    /// Turns `[height, width, 3]` bytes. Returns the new width, the new height and the bytes.
    pub(super) fn apply(self, width: u32, height: u32, mut rgb: Vec<u8>) -> (u32, u32, Vec<u8>) {
        let (columns, rows) = (width as usize, height as usize);
        if columns == 0 || rows == 0 || rgb.len() != columns * rows * 3 {
            return (width, height, rgb);
        }
        match self {
            Self::Upright => {}
            Self::Rotate180 => rgb.as_chunks_mut::<3>().0.reverse(),
            Self::FlipHorizontal => {
                rgb.chunks_exact_mut(columns * 3).for_each(|row| row.as_chunks_mut::<3>().0.reverse());
            }
            Self::FlipVertical => {
                let (top, bottom) = rgb.split_at_mut(rows / 2 * columns * 3);
                let above = top.chunks_exact_mut(columns * 3);
                above.zip(bottom.chunks_exact_mut(columns * 3).rev()).for_each(|(a, b)| a.swap_with_slice(b));
            }
            Self::Transpose => return (height, width, columns_as_rows(&rgb, columns, rows, false, false)),
            Self::Rotate90 => return (height, width, columns_as_rows(&rgb, columns, rows, false, true)),
            Self::Transverse => return (height, width, columns_as_rows(&rgb, columns, rows, true, true)),
            Self::Rotate270 => return (height, width, columns_as_rows(&rgb, columns, rows, true, false)),
        }
        (width, height, rgb)
    }
}

/// The columns, from the left or from the right, as rows that run downwards or upwards.
fn columns_as_rows(rgb: &[u8], columns: usize, rows: usize, from_right: bool, upwards: bool) -> Vec<u8> {
    // Squares of pixels stay in the cache while they are read by column.
    const BLOCK: usize = 32;
    let (source, _) = rgb.as_chunks::<3>();
    let mut out = vec![0; rgb.len()];
    let (target, _) = out.as_chunks_mut::<3>();
    for top in (0..rows).step_by(BLOCK) {
        for left in (0..columns).step_by(BLOCK) {
            for column in left..(left + BLOCK).min(columns) {
                let row_of_target = if from_right { columns - 1 - column } else { column };
                let line = &mut target[row_of_target * rows..][..rows];
                for row in top..(top + BLOCK).min(rows) {
                    line[if upwards { rows - 1 - row } else { row }] = source[row * columns + column];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_orientation_puts_the_corners_where_exif_says() {
        // 3 × 2:  0 1 2 / 3 4 5
        let expected: [(u64, u32, [u8; 6]); 9] = [
            (1, 3, [0, 1, 2, 3, 4, 5]),
            (2, 3, [2, 1, 0, 5, 4, 3]),
            (3, 3, [5, 4, 3, 2, 1, 0]),
            (4, 3, [3, 4, 5, 0, 1, 2]),
            (5, 2, [0, 3, 1, 4, 2, 5]),
            (6, 2, [3, 0, 4, 1, 5, 2]),
            (7, 2, [5, 2, 4, 1, 3, 0]),
            (8, 2, [2, 5, 1, 4, 0, 3]),
            (9, 3, [0, 1, 2, 3, 4, 5]),
        ];
        for (number, width, pixels) in expected {
            let stored: Vec<u8> = (0..6).flat_map(|value| [value; 3]).collect();
            let orientation = Orientation::from_number(number);
            let (w, h, turned) = orientation.apply(3, 2, stored);
            assert_eq!((w, h), (width, 6 / width), "{number}");
            assert_eq!(orientation.swaps_sides(), width == 2);
            let wanted: Vec<u8> = pixels.into_iter().flat_map(|value| [value; 3]).collect();
            assert_eq!(turned, wanted, "{number}");
        }
    }

    #[test]
    fn large_pictures_are_turned_block_by_block() {
        let (width, height) = (70, 45);
        let stored: Vec<u8> = (0..width * height).flat_map(|at| [at as u8, (at >> 8) as u8, 7]).collect();
        let (w, h, turned) = Orientation::Rotate90.apply(width, height, stored.clone());
        let (w, h, back) = Orientation::Rotate270.apply(w, h, turned);
        assert_eq!((w, h, back), (width, height, stored));
    }
}
