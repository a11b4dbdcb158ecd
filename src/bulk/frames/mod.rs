//! Frames of animations and videos as inputs of their own.

mod video;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::containers::{Contained, Origin};
use super::files::hex;
use super::gate::{Gate, Permit};
use crate::engine::Input;
use crate::image::{self, ImageLimits, Picture};

pub use video::is_there as can_read_videos;

/// Bytes of frames that wait to be embedded at most, or one frame.
const AHEAD: u64 = 256 << 20;
/// Bytes of the two headers of a bitmap.
const HEADERS: usize = 54;

/// Which frames are taken.
#[derive(Clone)]
pub struct Frames {
    count: usize,
    limits: ImageLimits,
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames({})", self.count)
    }
}

impl Frames {
    /// So many of each animation, evenly spaced.
    pub fn new(count: usize, limits: ImageLimits) -> Self {
        Self { count, limits, gate: Gate::new(AHEAD) }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Gives the frames of an input to `each` if it is an animation, else the input itself.
    pub(super) fn split(
        &self,
        contained: Contained,
        each: &mut dyn FnMut(Contained) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let bytes = match &contained.input {
            Ok(Input::Image(bytes)) if may_move(bytes) => bytes.clone(),
            _ => return each(contained),
        };
        let mut ended = ControlFlow::Continue(());
        let (mut origin, mut before) = (None, None);
        let result = image::frames(&bytes, &self.limits, self.count, &mut |frame| {
            // Two moments within a millisecond have one name.
            if before.replace(frame.time) != Some(frame.time) {
                let origin = origin.get_or_insert_with(|| Origin {
                    size: bytes.len() as u64,
                    sha256: Some(hex(Sha256::digest(&bytes))),
                });
                ended = each(self.frame(&contained.name, frame.time, origin, self.bitmap(&frame.picture)));
            }
            ended
        });
        match result {
            _ if ended.is_break() => ended,
            Ok(true) => ended,
            Ok(false) => each(contained),
            Err(error) => each(Contained { input: Err(error.to_string()), ..contained }),
        }
    }

    /// Gives the frames of a video to `each`; one input that is an error, if there are none.
    pub(super) fn of_video(
        &self,
        path: &Path,
        name: &str,
        origin: &Origin,
        each: &mut dyn FnMut(Contained) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut ended = ControlFlow::Continue(());
        let result = video::frames(path, self.count, self.limits.max_bytes, &mut |time, bitmap| {
            let permit = self.gate.acquire(bitmap.len() as u64);
            let bytes = Bytes::from_owner(Held { bytes: bitmap, _permit: permit });
            ended = each(self.frame(name, time, origin, bytes));
            ended
        });
        match result {
            Err(error) if ended.is_continue() => each(Contained {
                name: name.to_owned(),
                time: None,
                origin: Some(origin.clone()),
                input: Err(error),
            }),
            _ => ended,
        }
    }

    fn frame(&self, name: &str, time: f64, origin: &Origin, bytes: Bytes) -> Contained {
        Contained {
            name: format!("{name}#t={time:.3}"),
            time: Some(time),
            origin: Some(origin.clone()),
            input: Ok(Input::Image(bytes)),
        }
    }

    /// A frame as a file: what an engine takes, and quick to read again.
    fn bitmap(&self, picture: &Picture) -> Bytes {
        let permit = self.gate.acquire(bitmap_size(picture) as u64);
        Bytes::from_owner(Held { bytes: bitmap(picture), _permit: permit })
    }
}

/// Bytes with their share of what may wait.
struct Held {
    bytes: Vec<u8>,
    _permit: Permit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whether a file is of a format that animations have.
fn may_move(bytes: &[u8]) -> bool {
    use image::Format::{Gif, Png, WebP};
    matches!(image::Format::sniff(bytes), Ok(Gif | Png | WebP))
}

/// Bytes of a line: a multiple of four.
fn line_size(picture: &Picture) -> usize {
    (picture.width() as usize * 3).next_multiple_of(4)
}

fn bitmap_size(picture: &Picture) -> usize {
    HEADERS + line_size(picture) * picture.height() as usize
}

/// A Windows bitmap of 24 bits: lines from the bottom up, blue first.
fn bitmap(picture: &Picture) -> Vec<u8> {
    let (size, line) = (bitmap_size(picture), line_size(picture));
    let mut file = Vec::with_capacity(size);
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    file.extend(b"BM");
    [size, 0, HEADERS, 40, picture.width() as usize, picture.height() as usize]
        .into_iter()
        .for_each(|value| file.extend(word(value)));
    // One plane of 24 bits, not compressed; resolution and palette say nothing.
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    for row in picture.pixels().chunks_exact(picture.width() as usize * 3).rev() {
        let start = file.len();
        file.extend(row.as_chunks::<3>().0.iter().flat_map(|[red, green, blue]| [blue, green, red]));
        file.resize(start + line, 0);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_same_picture_as_a_file() {
        for (width, height) in [(1, 1), (2, 3), (5, 2), (4, 4)] {
            let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 37) as u8).collect();
            let picture = Picture::new(width, height, pixels).unwrap();
            let file = bitmap(&picture);
            assert_eq!(file.len(), bitmap_size(&picture));
            assert_eq!(image::decode(&file, &ImageLimits::default()).unwrap(), picture);
        }
    }
}
