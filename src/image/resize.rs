//! Pillow's resize of 8-bit pictures, byte for byte (libImaging/Resample.c, and Geometry.c for `NEAREST`).
//!
//! Two passes, each with 22-bit fixed-point weights and rounded to 8 bits. When shrinking, a filter is as
//! wide as the pixels that it covers (antialiasing). Pillow 13 starts with the columns of a picture that
//! loses many more rows than columns and with the rows of any other; earlier versions always start with
//! the rows. Rows pass through a ring just long enough for the second filter, so that a tall picture costs
//! no tall buffer.

use std::f64::consts::PI;

use super::{Picture, Resample};

/// Fractional bits of a weight: 32 − 8 for the value − 2 for sums above one.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const CHANNELS: usize = 3;

/// `source` at `width × height` pixels, both at least 1.
///
/// Equal to `Image.resize((width, height), resample)` of Pillow for mode RGB.
#[must_use]
pub fn resize(source: &Picture, width: u32, height: u32, resample: Resample) -> Picture {
    let (width, height) = (width.max(1), height.max(1));
    let pixels = if (width, height) == (source.width(), source.height()) {
        source.pixels().to_vec()
    } else if resample == Resample::Nearest {
        nearest(source, width as usize, height as usize)
    } else {
        dispatch(source, width as usize, height as usize, resample)
    };
    Picture::new(width, height, pixels).expect("the passes fill width · height · 3 bytes")
}

/// `ImagingScaleAffine`: the source position of each pixel's centre, accumulated as Pillow does.
fn nearest(source: &Picture, width: usize, height: usize) -> Vec<u8> {
    let (from_width, from_height) = (source.width() as usize, source.height() as usize);
    let positions = |from: usize, to: usize| -> Vec<usize> {
        let step = from as f64 / to as f64;
        let mut at = step * 0.5;
        let mut positions = Vec::with_capacity(to);
        for _ in 0..to {
            positions.push((at as usize).min(from - 1));
            at += step;
        }
        positions
    };
    let columns = positions(from_width, width);
    let mut pixels = Vec::with_capacity(width * height * CHANNELS);
    for row in positions(from_height, height) {
        let line = &source.pixels()[row * from_width * CHANNELS..][..from_width * CHANNELS];
        for column in &columns {
            pixels.extend_from_slice(&line[column * CHANNELS..][..CHANNELS]);
        }
    }
    pixels
}

/// The weights of one direction.
struct Weights {
    /// For each output position, the first input position and where its weights are.
    spans: Vec<(usize, std::ops::Range<usize>)>,
    values: Vec<i32>,
    /// The most input positions that one output position sees.
    longest: usize,
}

impl Weights {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc`.
    fn new(from: usize, to: usize, resample: Resample) -> Self {
        let (filter, radius) = filter(resample);
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = radius * stretch;
        let mut weights = Self { spans: Vec::with_capacity(to), values: Vec::new(), longest: 0 };
        let mut span = Vec::new();
        for position in 0..to {
            let center = (position as f64 + 0.5) * scale;
            // Both are truncated to whole numbers as C does, then cut to the picture.
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).clamp(0, from as i64) as usize;
            span.clear();
            span.extend((first..end).map(|at| filter((at as f64 - center + 0.5) * (1.0 / stretch))));
            let sum: f64 = span.iter().sum();
            let start = weights.values.len();
            weights.values.extend(span.iter().map(|weight| {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                let scaled = weight * f64::from(1 << PRECISION_BITS);
                (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
            }));
            weights.spans.push((first, start..weights.values.len()));
            weights.longest = weights.longest.max(span.len());
        }
        weights
    }

    /// First input position, weights.
    fn at(&self, position: usize) -> (usize, &[i32]) {
        let (first, range) = &self.spans[position];
        (*first, &self.values[range.clone()])
    }
}

/// A filter as a function of the distance in source pixels, and its radius.
fn filter(resample: Resample) -> (fn(f64) -> f64, f64) {
    fn sinc(x: f64) -> f64 {
        if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
    }
    match resample {
        Resample::Box | Resample::Nearest => (|x| if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }, 0.5),
        Resample::Bilinear => (|x: f64| (1.0 - x.abs()).max(0.0), 1.0),
        Resample::Hamming => (
            |x: f64| match x.abs() {
                0.0 => 1.0,
                x if x >= 1.0 => 0.0,
                // Pillow writes these two as 32-bit constants.
                x => sinc(x) * (f64::from(0.54_f32) + f64::from(0.46_f32) * (x * PI).cos()),
            },
            1.0,
        ),
        Resample::Bicubic => (
            |x: f64| {
                const A: f64 = -0.5;
                match x.abs() {
                    x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                    x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                    _ => 0.0,
                }
            },
            2.0,
        ),
        Resample::Lanczos => {
            (|x: f64| if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }, 3.0)
        }
    }
}

/// Runs [`passes`] compiled for the best instructions of this processor.
fn dispatch(source: &Picture, width: usize, height: usize, resample: Resample) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2(source: &Picture, width: usize, height: usize, resample: Resample) -> Vec<u8> {
            passes(source, width, height, resample)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as just asked; the function has no other condition.
            return unsafe { with_avx2(source, width, height, resample) };
        }
    }
    passes(source, width, height, resample)
}

/// Two source rows side by side, so that one vector of eight holds a pixel of each.
type Pair = [i32; 8];

#[inline(always)]
fn passes(source: &Picture, width: usize, height: usize, resample: Resample) -> Vec<u8> {
    let (from_width, from_height) = (source.width() as usize, source.height() as usize);
    let line = width * CHANNELS;
    let mut out = Vec::with_capacity(height * line);
    let mut sums = vec![0; line];
    if from_width == width {
        let rows = Weights::new(from_height, height, resample);
        for position in 0..height {
            let (first, weights) = rows.at(position);
            let lines = source.pixels()[first * line..].chunks_exact(line);
            vertical(lines.zip(weights), &mut sums, &mut out);
        }
        return out;
    }

    let columns = Weights::new(from_width, width, resample);
    let mut pairs = vec![[0; 8]; from_width];
    if from_height == height {
        out.resize(height * line, 0);
        let mut spare = vec![0; line];
        for (index, rows) in out.chunks_mut(2 * line).enumerate() {
            let (first, second) = rows.split_at_mut(line);
            let second = if second.is_empty() { &mut spare[..] } else { second };
            horizontal(row_pair(source, 2 * index), &columns, &mut pairs, first, second);
        }
        return out;
    }

    let rows = Weights::new(from_height, height, resample);
    if columns_first(source, width, height) {
        out.resize(height * line, 0);
        let from_line = from_width * CHANNELS;
        let mut sums = vec![0; from_line];
        let (mut upper, mut lower) = (Vec::with_capacity(from_line), Vec::with_capacity(from_line));
        let mut spare = vec![0; line];
        for (index, made) in out.chunks_mut(2 * line).enumerate() {
            for (position, line) in (2 * index..height).zip([&mut upper, &mut lower]) {
                let (first, weights) = rows.at(position);
                let lines = source.pixels()[first * from_line..].chunks_exact(from_line);
                line.clear();
                vertical(lines.zip(weights), &mut sums, line);
            }
            let (first, second) = made.split_at_mut(line);
            let second = if second.is_empty() { &mut spare[..] } else { second };
            // The lower line of the last pair may be the one before it: its result is not used.
            let lower = if lower.is_empty() { &upper } else { &lower };
            horizontal((&upper, lower), &columns, &mut pairs, first, second);
        }
        return out;
    }
    // One slot more than the filter needs, because rows are made in pairs.
    let slots = rows.longest + 1;
    let mut ring = vec![0; slots * line];
    let mut made = 0;
    for position in 0..height {
        let (first, weights) = rows.at(position);
        made = made.max(first);
        while made < first + weights.len() {
            let (a, b) = (made % slots, (made + 1) % slots);
            let (low, high) = ring.split_at_mut(a.max(b) * line);
            let (low, high) = (&mut low[a.min(b) * line..][..line], &mut high[..line]);
            let (a, b) = if a < b { (low, high) } else { (high, low) };
            horizontal(row_pair(source, made), &columns, &mut pairs, a, b);
            made += 2;
        }
        let lines = (first..).map(|row| &ring[row % slots * line..][..line]);
        vertical(lines.zip(weights), &mut sums, &mut out);
    }
    out
}

/// Which pass Pillow 13 runs first, found by trying it: the library does not document its choice.
fn columns_first(source: &Picture, width: usize, height: usize) -> bool {
    let rows_lost = i64::from(source.height()) - height as i64;
    let columns_lost = i64::from(source.width()) - width as i64;
    rows_lost > 0 && rows_lost > 2 * columns_lost
}

/// Row `row` and the one below it, or the same one twice at the bottom.
fn row_pair(source: &Picture, row: usize) -> (&[u8], &[u8]) {
    let line = source.width() as usize * CHANNELS;
    let upper = &source.pixels()[row * line..][..line];
    (upper, source.pixels().get((row + 1) * line..(row + 2) * line).unwrap_or(upper))
}

/// Resizes one row into `first` and the other into `second`.
#[inline(always)]
fn horizontal(
    (upper, lower): (&[u8], &[u8]),
    columns: &Weights,
    pairs: &mut [Pair],
    first: &mut [u8],
    second: &mut [u8],
) {
    let pixels = upper.as_chunks::<CHANNELS>().0.iter().zip(lower.as_chunks::<CHANNELS>().0);
    for (pair, (a, b)) in pairs.iter_mut().zip(pixels) {
        *pair = [a[0], a[1], a[2], 0, b[0], b[1], b[2], 0].map(i32::from);
    }
    let outputs = first.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(second.as_chunks_mut::<CHANNELS>().0);
    for (position, (a, b)) in outputs.enumerate() {
        let (start, weights) = columns.at(position);
        let mut sums = [1 << (PRECISION_BITS - 1); 8];
        for (pair, weight) in pairs[start..start + weights.len()].iter().zip(weights) {
            for (sum, value) in sums.iter_mut().zip(pair) {
                *sum = i32::wrapping_add(*sum, value.wrapping_mul(*weight));
            }
        }
        let bytes = sums.map(clip8);
        *a = [bytes[0], bytes[1], bytes[2]];
        *b = [bytes[4], bytes[5], bytes[6]];
    }
}

/// Appends the weighted sum of rows.
#[inline(always)]
fn vertical<'a>(lines: impl Iterator<Item = (&'a [u8], &'a i32)>, sums: &mut [i32], out: &mut Vec<u8>) {
    sums.fill(1 << (PRECISION_BITS - 1));
    for (line, weight) in lines {
        for (sum, value) in sums.iter_mut().zip(line) {
            *sum = sum.wrapping_add(i32::from(*value).wrapping_mul(*weight));
        }
    }
    out.extend(sums.iter().map(|sum| clip8(*sum)));
}

/// A sum to a byte. Sums of |weight| · 255 stay below 2³¹, as in Pillow.
#[inline(always)]
fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
