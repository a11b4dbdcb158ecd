//! The pictures that the published logits were made with: a blue circle with a green border on red, pixel for pixel as
//! Pillow's `ImageDraw.ellipse` draws it.

use crate::Result;
use crate::image::Picture;

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 128, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// A picture of `width` × `height` with a circle of radius `min(cx, cy) / 8 · 7` in its middle.
///
/// Source: transformers, `tests/models/siglip2/test_modeling_siglip2.py`, `prepare_images`.
///
/// # Errors
/// If a side is 0.
pub fn circle(width: u32, height: u32) -> Result<Picture> {
    let (cx, cy) = (width as i64 / 2, height as i64 / 2);
    let radius = cx.min(cy) / 8 * 7;
    let border = width as i64 / 20;
    let mut pixels = RED.repeat(width as usize * height as usize);
    let (x0, y0, side) = (cx - radius, cy - radius, 2 * radius);
    let mut row = |y: i64, from: i64, to: i64, colour: [u8; 3]| {
        for x in from.max(0)..=to.min(width as i64 - 1) {
            if (0..height as i64).contains(&y) {
                let at = (y as usize * width as usize + x as usize) * 3;
                pixels[at..at + 3].copy_from_slice(&colour);
            }
        }
    };
    // The border takes the pixels of its inner curve too: what is left begins one column further in.
    let inner = side - 2 * (border - 1).max(0);
    let outlines = [(outline(side, side, i64::max), 0, GREEN), (outline(inner, inner, i64::min), 2, BLUE)];
    for (rows, inset, colour) in outlines {
        for (y, half) in rows.into_iter().map(|(y, half)| (y, half - inset)).filter(|(_, half)| *half >= 0) {
            let (left, right) = ((side - half) / 2, (side + half) / 2);
            for y in [(side - y) / 2, (side + y) / 2] {
                row(y0 + y, x0 + left, x0 + right, colour);
            }
        }
    }
    Ok(Picture::new(width, height, pixels)?)
}

/// For each row of a quarter of an ellipse with the sides `a` and `b`, in doubled coordinates from its
/// middle: the row, and the outermost (`max`) or innermost (`min`) of its columns on the curve.
/// Source: Pillow, `src/libImaging/Draw.c`, `quarter_next`.
fn outline(a: i64, b: i64, pick: fn(i64, i64) -> i64) -> Vec<(i64, i64)> {
    let delta = |x: i64, y: i64| (a * a * y * y + b * b * x * x - a * a * b * b).abs();
    let (mut x, mut y) = (a, b % 2);
    let end = (a % 2, b);
    let mut rows: Vec<(i64, i64)> = Vec::new();
    loop {
        match rows.last_mut() {
            Some(last) if last.0 == y => last.1 = pick(last.1, x),
            _ => rows.push((y, x)),
        }
        if (x, y) == end {
            return rows;
        }
        let mut next = (x, y + 2);
        let mut best = delta(next.0, next.1);
        if next.0 > 1 {
            let diagonal = delta(x - 2, y + 2);
            if best > diagonal {
                next = (x - 2, y + 2);
                best = diagonal;
            }
            if best > delta(x - 2, y) {
                next = (x - 2, y);
            }
        }
        (x, y) = next;
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn pixel_for_pixel_as_pillow_draws() {
        // SHA-256 of `image.tobytes()` by Pillow 13.0.
        for (width, height, expected) in [
            (224, 224, "5e0a84d4b7a2e40a9091ff07e899b9119d4f74bc77cb8e6a1012a4a8e0c2638c"),
            (1024, 1024, "23b0142d59d92ac13e714d962f1e7532657228185bb344824101533b6255e553"),
            (224, 1024, "9e08accd0c74a1383a47c95abeaa55f2a0fddd792b31d2b784d22bc60ac094c6"),
        ] {
            let digest = Sha256::digest(circle(width, height).unwrap().pixels());
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{width} × {height}");
        }
    }
}
