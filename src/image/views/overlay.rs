//! A map laid over its picture, as a PNG.

use std::io;

use super::cover::Region;
use super::{Cover, PixelBox};
use crate::image::Picture;

/// How much of a colour is seen where a map is lowest and highest.
const OPACITY: (f32, f32) = (0.25, 0.65);
/// The part of the colour map that is used: its ends are dark.
const COLOURS: (f32, f32) = (0.1, 0.92);

/// A picture that maps of its patches are drawn over.
#[derive(Debug)]
pub struct Overlay {
    preview: Picture,
    cover: Cover,
}

impl Overlay {
    /// Over the copy of a picture that came with the cover.
    #[must_use]
    pub fn new(preview: Picture, cover: Cover) -> Self {
        Self { preview, cover }
    }

    /// Bytes of the PNG of an overlay of up to `side × side` pixels, at most.
    #[must_use]
    pub fn most_bytes(side: u32) -> usize {
        let side = side as usize;
        let raw = side * (3 * side + 1);
        // Deflate's stored blocks, and the chunks around them.
        raw + raw / 500 + 1024
    }

    /// The picture under a map `[patches]`: blue where the map is lowest, red where it is highest, and between patches in
    /// between; with a white frame around `outline`, which is in pixels of the whole picture.
    ///
    /// # Errors
    /// If the PNG cannot be written.
    pub fn png(&self, map: &[f32], outline: Option<PixelBox>) -> io::Result<Vec<u8>> {
        let (width, height) = (self.preview.width(), self.preview.height());
        let mut pixels = self.preview.pixels().to_vec();
        self.tint(&mut pixels, map);
        if let Some(outline) = outline {
            self.frame(&mut pixels, outline);
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(bytes)
    }

    fn tint(&self, pixels: &mut [u8], map: &[f32]) {
        let grid = self.cover.grid();
        if map.len() != grid.len() {
            return;
        }
        let low = map.iter().copied().fold(f32::INFINITY, f32::min);
        let high = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let range = if high > low { high - low } else { 1.0 };
        let (height, width) = self.cover.source();
        let Region { x, y, width: wide, height: tall } = self.cover.region();
        let columns = taps(self.preview.width(), width, (x, wide), grid.cols);
        let rows = taps(self.preview.height(), height, (y, tall), grid.rows);
        for (line, row) in pixels.chunks_exact_mut(columns.len() * 3).zip(rows) {
            let Some((top, down)) = row else { continue };
            let below = (top + 1).min(grid.rows - 1);
            for (pixel, column) in line.chunks_exact_mut(3).zip(&columns) {
                let Some((left, across)) = *column else { continue };
                let right = (left + 1).min(grid.cols - 1);
                let at = |row: usize| {
                    let row = &map[row * grid.cols..][..grid.cols];
                    row[left] + (row[right] - row[left]) * across
                };
                let value = (at(top) + (at(below) - at(top)) * down - low) / range;
                let opacity = OPACITY.0 + (OPACITY.1 - OPACITY.0) * value;
                for (channel, colour) in
                    pixel.iter_mut().zip(turbo(COLOURS.0 + (COLOURS.1 - COLOURS.0) * value))
                {
                    let mixed = f32::from(*channel) * (1.0 - opacity) + 255.0 * colour * opacity;
                    *channel = mixed.round() as u8;
                }
            }
        }
    }

    /// A white line around a part of the picture, within it.
    fn frame(&self, pixels: &mut [u8], outline: PixelBox) {
        let (height, width) = self.cover.source();
        let line = (self.preview.width().max(self.preview.height()) / 200).max(1);
        let scaled =
            |at: u32, from: u32, to: u32| (u64::from(at) * u64::from(to) / u64::from(from.max(1))) as u32;
        let (wide, tall) = (self.preview.width(), self.preview.height());
        let (left, right) = (scaled(outline.x, width, wide), scaled(outline.x + outline.width, width, wide));
        let (top, bottom) =
            (scaled(outline.y, height, tall), scaled(outline.y + outline.height, height, tall));
        for y in top..bottom.min(tall) {
            for x in left..right.min(wide) {
                if y - top < line || bottom - y <= line || x - left < line || right - x <= line {
                    let at = (y as usize * wide as usize + x as usize) * 3;
                    pixels[at..at + 3].fill(255);
                }
            }
        }
    }
}

/// For each pixel of a preview, the cell whose middle is before its own and how far it is on the way to the next; `None`
/// beside the grid.
fn taps(pixels: u32, source: u32, (start, size): (f64, f64), cells: usize) -> Vec<Option<(usize, f32)>> {
    let scale = f64::from(source) / f64::from(pixels.max(1));
    let tap = |pixel: u32| {
        let at = ((f64::from(pixel) + 0.5) * scale - start) / size * cells as f64 - 0.5;
        let last = cells as f64 - 1.0;
        let inside = at >= -0.5 && at <= last + 0.5;
        inside.then(|| {
            let at = at.clamp(0.0, last);
            (at.floor() as usize, at.fract() as f32)
        })
    };
    (0..pixels).map(tap).collect()
}

/// The colour of a value from 0 to 1, each channel from 0 to 1: a polynomial through Turbo.
/// Source: Mikhailov 2019, "Turbo, An Improved Rainbow Colormap for Visualization", with the coefficients that Google published.
fn turbo(value: f32) -> [f32; 3] {
    const RED: [f32; 6] = [0.135_721_4, 4.615_392_6, -42.660_32, 132.131_08, -152.942_4, 59.286_38];
    const GREEN: [f32; 6] = [0.091_402_6, 2.194_188_4, 4.842_966_6, -14.185_033, 4.277_298_6, 2.829_566];
    const BLUE: [f32; 6] = [0.106_673_3, 12.641_946, -60.582_05, 110.362_77, -89.903_11, 27.348_25];
    let value = value.clamp(0.0, 1.0);
    [RED, GREEN, BLUE].map(|c| c.iter().rev().fold(0.0, |sum, c| sum * value + c).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::super::ViewOptions;
    use super::super::cover::Frame;
    use super::*;
    use crate::image::{Grid, ImageLimits, decode};

    #[test]
    fn the_highest_patch_is_red_and_the_rest_of_the_picture_untouched() {
        // A grid over the middle half of a picture that was 80 × 40.
        let region = Region { x: 20.0, y: 0.0, width: 40.0, height: 40.0 };
        let frame = Frame { grid: Grid { rows: 2, cols: 2 }, source: (40, 80), region };
        let cover = Cover::new(frame, &ViewOptions { side: Some(1), ..ViewOptions::default() }).unwrap();
        let preview = Picture::new(40, 20, vec![100; 40 * 20 * 3]).unwrap();
        let overlay = Overlay::new(preview, cover);
        let outline = PixelBox { x: 40, y: 20, width: 20, height: 20 };
        let bytes = overlay.png(&[0.0, 0.0, 0.0, 3.0], Some(outline)).unwrap();
        assert!(bytes.len() <= Overlay::most_bytes(40));
        let found = decode(&bytes, &ImageLimits::default()).unwrap();
        let pixel = |x: usize, y: usize| {
            let at = (y * 40 + x) * 3;
            [found.pixels()[at], found.pixels()[at + 1], found.pixels()[at + 2]]
        };
        assert_eq!((found.width(), found.height()), (40, 20));
        assert_eq!((pixel(9, 5), pixel(30, 5)), ([100; 3], [100; 3]));
        assert_eq!((pixel(20, 10), pixel(29, 19), pixel(24, 10)), ([255; 3], [255; 3], [255; 3]));
        let ([r, _, b], [cold_r, _, cold_b]) = (pixel(26, 16), pixel(12, 3));
        assert!(r > 110 && b < 60 && cold_r < cold_b, "{r} {b} {cold_r} {cold_b}");
        // A map without differences has one colour.
        let flat = decode(&overlay.png(&[7.0; 4], None).unwrap(), &ImageLimits::default()).unwrap();
        assert_eq!(flat.pixels()[12 * 3..13 * 3], flat.pixels()[29 * 3..30 * 3]);
    }

    #[test]
    fn turbo_goes_from_blue_over_green_to_red() {
        let bytes = |value| turbo(value).map(|x| (255.0 * x).round() as i32);
        // The published table: (48, 18, 59), (164, 252, 60) and (122, 4, 3).
        for (value, table) in [(0.0, [48, 18, 59]), (0.5, [164, 252, 60]), (1.0, [122, 4, 3])] {
            let worst = bytes(value).iter().zip(table).map(|(a, b)| (a - b).abs()).max().unwrap();
            assert!(worst <= 35, "{value}: {:?}", bytes(value));
        }
    }
}
