//! Decodes, resizes and cuts pictures for programs in other languages, without a model: the parity tests
//! drive it. Each line of standard input is a JSON request, `{"path": "…", "step": "decode"}`, with
//! `"step": "resize"` and `height`, `width`, `resample`; or with `"step": "patches"`, `patch`, `resample`
//! and either `height` and `width` or `max_num_patches`, and `"fast": true` for scaling while decoding; or with `"step": "frames"`
//! and `count`. Each answer is a line of JSON: `{"shape": […]}` (of frames also `animated` and a list of time, height and width)
//! followed by as many raw bytes, or `{"error": "…"}`.

use std::error::Error;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use siglip::testing::image::{
    Geometry, ImageDecode, ImageLimits, ImageOptions, ImageSpec, Preprocessor, Resample, decode, frames,
    resize,
};

#[derive(Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Request {
    Decode {
        path: PathBuf,
    },
    Frames {
        path: PathBuf,
        count: usize,
    },
    Resize {
        path: PathBuf,
        height: u32,
        width: u32,
        resample: u32,
    },
    Patches {
        path: PathBuf,
        height: Option<u32>,
        width: Option<u32>,
        max_num_patches: Option<usize>,
        patch: usize,
        resample: u32,
        #[serde(default)]
        fast: bool,
    },
}

/// Shape and bytes.
type Answer = Result<(Vec<usize>, Vec<u8>), Box<dyn Error>>;

/// Time, height and width of each frame, and the bytes of all.
fn moving(path: &Path, count: usize) -> Result<(serde_json::Value, Vec<u8>), Box<dyn Error>> {
    let (mut found, mut bytes) = (Vec::new(), Vec::new());
    let animated = frames(&std::fs::read(path)?, &ImageLimits::default(), count, &mut |frame| {
        found.push((frame.time, frame.picture.height(), frame.picture.width()));
        bytes.extend(frame.picture.into_pixels());
        ControlFlow::Continue(())
    })?;
    Ok((serde_json::json!({ "shape": [bytes.len()], "animated": animated, "frames": found }), bytes))
}

fn answer(line: &str) -> Result<(serde_json::Value, Vec<u8>), Box<dyn Error>> {
    let request = serde_json::from_str(line)?;
    if let Request::Frames { path, count } = request {
        return moving(&path, count);
    }
    let (shape, bytes) = picture(request)?;
    Ok((serde_json::json!({ "shape": shape }), bytes))
}

fn picture(request: Request) -> Answer {
    let limits = ImageLimits::default();
    match request {
        Request::Frames { .. } => Err("several pictures".into()),
        Request::Decode { path } => {
            let picture = decode(&std::fs::read(path)?, &limits)?;
            let shape = vec![picture.height() as usize, picture.width() as usize, 3];
            Ok((shape, picture.into_pixels()))
        }
        Request::Resize { path, height, width, resample } => {
            let picture = decode(&std::fs::read(path)?, &limits)?;
            let picture = resize(&picture, width, height, filter(resample)?);
            Ok((vec![height as usize, width as usize, 3], picture.into_pixels()))
        }
        Request::Patches { path, height, width, max_num_patches, patch, resample, fast } => {
            let geometry = match (height, width, max_num_patches) {
                (Some(height), Some(width), None) => Geometry::Squash { height, width },
                (None, None, Some(max_num_patches)) => Geometry::NaFlex { max_num_patches },
                _ => return Err("height and width, or max_num_patches".into()),
            };
            let (mean, std) = ([0.5; 3], [0.5; 3]);
            let rescale = 1.0 / 255.0;
            let spec = ImageSpec { geometry, resample: filter(resample)?, patch, mean, std, rescale };
            let decoding = if fast { ImageDecode::Fast } else { ImageDecode::Exact };
            let preprocessor = Preprocessor::new(spec, limits)?.with_decoding(decoding);
            let patches = preprocessor.from_bytes(&std::fs::read(path)?, &ImageOptions::default())?;
            Ok((vec![patches.grid.rows, patches.grid.cols, patch * patch * 3], patches.pixels))
        }
    }
}

/// Pillow's numbers of its filters.
fn filter(number: u32) -> Result<Resample, Box<dyn Error>> {
    use Resample::{Bicubic, Bilinear, Box, Hamming, Lanczos, Nearest};
    let filters = [Nearest, Lanczos, Bilinear, Bicubic, Box, Hamming];
    filters.get(number as usize).copied().ok_or_else(|| format!("no filter has the number {number}").into())
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match answer(&line?) {
            Ok((head, bytes)) => {
                writeln!(out, "{head}")?;
                out.write_all(&bytes)?;
            }
            Err(error) => writeln!(out, "{}", serde_json::json!({ "error": error.to_string() }))?,
        }
        out.flush()?;
    }
    Ok(())
}
