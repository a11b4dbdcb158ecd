//! Frames of animations: GIF, WebP and PNG, composed as Pillow composes them (`image.seek(n)`, then as for a picture).
//!
//! A survey of the headers comes first: how large, how many frames, how long each is shown. Then follows which frames are wanted,
//! and what it costs to get there: a frame is drawn on what earlier ones left, so all up to the last one wanted are decoded.

mod gif;
mod png;
mod webp;

use std::ops::ControlFlow;

use super::{check, guarded, sniff, upright};
use crate::image::decode::{Decoded, Header};
use crate::image::orientation::Orientation;
use crate::image::{Format, ImageError, ImageLimits, Picture};

/// Bytes a pixel while an animation is gone through: the canvas, the one before, a frame, what a decoder holds, the picture.
const PIXEL_BYTES: u64 = 20;
/// How long a frame is shown that gives no time, in milliseconds, as browsers have it.
const UNTIMED: f64 = 100.0;

/// A frame of an animation.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// When it is shown, in seconds from the beginning.
    pub time: f64,
    /// What is shown then.
    pub picture: Picture,
}

/// What the headers of an animation say.
struct Survey {
    width: u32,
    height: u32,
    frames: Vec<Timed>,
}

/// A frame by its header.
struct Timed {
    /// For how long it is shown, in milliseconds.
    duration: f64,
    pixels: u64,
}

/// An animation that is gone through frame by frame.
trait Animation {
    /// Draws the next frame.
    fn advance(&mut self) -> Result<(), ImageError>;

    /// What is shown: width, height and `[height, width, 3]` bytes.
    fn shown(&self) -> Result<(u32, u32, Vec<u8>), ImageError>;

    /// How it is to be turned.
    fn orientation(&self) -> Orientation;
}

/// Gives `count` frames of an animation to `each`, until it breaks: those that are shown in the middles of as many equal parts of
/// its time, each once. Whether the file is an animation at all; nothing is given of one that is not.
///
/// # Errors
/// As of [`decode`](super::decode), and [`ImageError::AnimationTooLong`] before anything is decoded. Frames before one that is
/// damaged were given.
pub fn frames(
    bytes: &[u8],
    limits: &ImageLimits,
    count: usize,
    each: &mut dyn FnMut(Frame) -> ControlFlow<()>,
) -> Result<bool, ImageError> {
    let format = sniff(bytes, limits)?;
    let survey = guarded(format, || match format {
        Format::Gif => gif::survey(bytes, limits).map(Some),
        Format::WebP => webp::survey(bytes, limits),
        Format::Png => png::survey(bytes, limits),
        _ => Ok(None),
    })?;
    let Some(Survey { width, height, frames }) = survey.filter(|survey| survey.frames.len() > 1) else {
        return Ok(false);
    };
    let counted = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let header = Header { width, height, pixel_bytes: PIXEL_BYTES, frames: counted, scans: (0, 0) };
    check(format, &header, limits)?;
    let wanted = choose(&frames, count);
    let Some(&(last, _)) = wanted.last() else { return Ok(true) };
    // Besides its own pixels a frame costs what is done to the whole canvas.
    let canvas = u64::from(width) * u64::from(height);
    let pixels = frames[..=last].iter().fold(0u64, |sum, frame| sum.saturating_add(frame.pixels + canvas));
    if pixels > limits.max_decode_work {
        return Err(ImageError::AnimationTooLong { format, pixels, limit: limits.max_decode_work });
    }
    let mut animation: Box<dyn Animation> = guarded(format, || {
        Ok(match format {
            Format::Gif => Box::new(gif::Gif::open(bytes, limits)?) as Box<dyn Animation>,
            Format::WebP => Box::new(webp::WebP::open(bytes, limits)?),
            _ => Box::new(png::Png::open(bytes, limits)?),
        })
    })?;
    let mut next = 0;
    for (index, time) in wanted {
        let picture = guarded(format, || {
            while next <= index {
                animation.advance()?;
                next += 1;
            }
            let (width, height, rgb) = animation.shown()?;
            upright(Decoded { width, height, rgb, orientation: animation.orientation() })
        })?;
        if each(Frame { time, picture }).is_break() {
            break;
        }
    }
    Ok(true)
}

/// The frames that are shown in the middles of `count` equal parts of the whole time, and when: in seconds, rounded down to
/// milliseconds.
fn choose(frames: &[Timed], count: usize) -> Vec<(usize, f64)> {
    let duration = |frame: &Timed| if frame.duration > 0.0 { frame.duration } else { UNTIMED };
    let whole: f64 = frames.iter().map(duration).sum();
    let (mut chosen, mut index, mut end): (Vec<(usize, f64)>, usize, f64) = (Vec::new(), 0, 0.0);
    let mut part = 0;
    for (i, frame) in frames.iter().enumerate() {
        end += duration(frame);
        // The first moment within this frame; those after it show the same.
        let mut first = None;
        while part < count {
            let middle = whole * (part as f64 + 0.5) / count as f64;
            if middle >= end && i + 1 < frames.len() {
                break;
            }
            first = first.or(Some(middle));
            // Where there are many more parts than frames, those of this frame are passed over at once.
            let rest = (end / whole * count as f64 - 0.5).ceil().max(0.0) as usize;
            part = rest.clamp(part + 1, count);
        }
        if let Some(middle) = first {
            index = i;
            chosen.push((index, (middle.floor() / 1000.0).max(0.0)));
        }
    }
    debug_assert!(chosen.last().is_none_or(|last| last.0 == index));
    chosen
}

/// A rectangle within a canvas.
#[derive(Debug, Clone, Copy)]
struct Place {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Place {
    /// Whether a pixel of the canvas is in it.
    fn has(self, x: usize, y: usize) -> bool {
        (self.left..self.left + self.width).contains(&x) && (self.top..self.top + self.height).contains(&y)
    }

    /// The places of its rows in a canvas of such a width, in elements of `size` bytes.
    fn rows(self, width: usize, size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let row = move |y: usize| {
            let start = ((self.top + y) * width + self.left) * size;
            start..start + self.width * size
        };
        (0..self.height).map(row)
    }
}

/// `in1 · (255 − mask) + in2 · mask`, divided by 255 and rounded (`BLEND` in Pillow's Paste.c).
fn blend(mask: u8, below: u8, above: u8) -> u8 {
    let sum = u32::from(below) * u32::from(255 - mask) + u32::from(above) * u32::from(mask) + 128;
    (((sum >> 8) + sum) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(durations: &[f64], count: usize) -> Vec<(usize, f64)> {
        let frames: Vec<Timed> = durations.iter().map(|&duration| Timed { duration, pixels: 1 }).collect();
        choose(&frames, count)
    }

    #[test]
    fn frames_are_evenly_spaced_in_time() {
        assert_eq!(times(&[100.0; 10], 2), [(2, 0.25), (7, 0.75)]);
        assert_eq!(times(&[100.0; 10], 1), [(5, 0.5)]);
        // A long frame is one frame; without a time it is a tenth of a second.
        assert_eq!(times(&[1000.0, 10.0, 10.0], 4), [(0, 0.127)]);
        assert_eq!(times(&[0.0, 0.0], 2), [(0, 0.05), (1, 0.15)]);
        // More than there are gives each once.
        let all = times(&[40.0; 5], 1_000_000_000);
        assert_eq!(all.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(all.iter().map(|(_, time)| *time).collect::<Vec<_>>(), [0.0, 0.04, 0.08, 0.12, 0.16]);
        assert!(times(&[], 3).is_empty() && times(&[1.0], 0).is_empty());
        for count in 1..200 {
            let chosen = times(&[7.0, 33.0, 1.0, 100.0, 20.0, 64.0], count);
            assert!(
                chosen.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1),
                "{chosen:?}"
            );
        }
    }

    #[test]
    fn pixels_are_blended_as_pillow_does() {
        assert_eq!(
            (blend(0, 7, 200), blend(255, 7, 200), blend(128, 0, 255), blend(1, 10, 255)),
            (7, 200, 128, 11)
        );
    }
}
