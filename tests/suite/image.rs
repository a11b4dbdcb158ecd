//! Pictures against what Pillow makes of them, from `tests/fixtures/make_images.py`.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use siglip::testing::image::{
    Format, Geometry, ImageDecode, ImageError, ImageLimits, ImageOptions, ImageSpec, Picture, Preprocessor,
    Resample, decode, frames, probe, resize,
};

#[derive(Deserialize)]
struct Manifest {
    good: Vec<Good>,
    bad: Vec<Bad>,
    resized: Vec<Resized>,
    reduced: Vec<Reduced>,
}

#[derive(Deserialize)]
struct Good {
    file: String,
    width: u32,
    height: u32,
    sha256: String,
}

#[derive(Deserialize)]
struct Bad {
    file: String,
    says: String,
}

#[derive(Deserialize)]
struct Resized {
    file: String,
    width: u32,
    height: u32,
    resample: usize,
    sha256: String,
}

#[derive(Deserialize)]
struct Reduced {
    file: String,
    side: u32,
    sha256: String,
}

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest() -> Manifest {
    serde_json::from_slice(&fixture("manifest.json")).expect("the manifest is valid")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[test]
fn every_kind_of_picture_is_read_as_pillow_reads_it() {
    let limits = ImageLimits::default();
    let mut wrong = Vec::new();
    let manifest = manifest();
    assert!(manifest.good.len() > 140);
    for good in manifest.good {
        let bytes = fixture(&good.file);
        let info = probe(&bytes, &limits);
        let picture = match decode(&bytes, &limits) {
            Ok(picture) => picture,
            Err(error) => {
                wrong.push(format!("{}: {error}", good.file));
                continue;
            }
        };
        let (width, height) = (picture.width(), picture.height());
        if (width, height) != (good.width, good.height) {
            wrong.push(format!("{}: {width} × {height}", good.file));
            continue;
        }
        // The header's size is the one before the picture is turned.
        let info = info.expect("what decodes can be probed");
        let sides = [(width, height), (height, width)];
        assert!(sides.contains(&(info.width, info.height)), "{}: {info:?}", good.file);
        assert!(info.decoded_bytes >= picture.pixels().len() as u64, "{}: {info:?}", good.file);
        if sha256(picture.pixels()) != good.sha256 {
            wrong.push(format!("{}: other pixels", good.file));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn damaged_pictures_are_refused_with_a_reason() {
    let limits = ImageLimits::default();
    for bad in manifest().bad {
        let bytes = fixture(&bad.file);
        match decode(&bytes, &limits) {
            Ok(_) => panic!("{} was accepted", bad.file),
            Err(ImageError::DecoderFailed { format }) => {
                panic!("{}: the {format} decoder panicked", bad.file)
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(&bad.says), "{}: {message}", bad.file);
            }
        }
    }
}

#[test]
fn resizing_is_pillows_byte_for_byte() {
    use Resample::{Bicubic, Bilinear, Box, Hamming, Lanczos, Nearest};
    let filters = [Nearest, Lanczos, Bilinear, Bicubic, Box, Hamming];
    let manifest = manifest();
    assert!(manifest.resized.len() >= 6 * 8);
    for Resized { file, width, height, resample, sha256: theirs } in manifest.resized {
        let picture = decode(&fixture(&file), &ImageLimits::default()).unwrap();
        let resized = resize(&picture, width, height, filters[resample]);
        assert_eq!((resized.width(), resized.height()), (width, height));
        assert_eq!(sha256(resized.pixels()), theirs, "{file} to {width} × {height}, {:?}", filters[resample]);
    }
}

#[test]
fn a_jpeg_that_is_scaled_while_it_is_decoded_is_pillows_draft() {
    for Reduced { file, side, sha256: expected } in manifest().reduced {
        let geometry = Geometry::Squash { height: side, width: side };
        let (mean, std, rescale) = ([0.5; 3], [0.5; 3], 1.0 / 255.0);
        let resample = Resample::Bicubic;
        let spec = ImageSpec { geometry, resample, patch: side as usize, mean, std, rescale };
        let exact = Preprocessor::new(spec, ImageLimits::default()).unwrap();
        let fast = exact.clone().with_decoding(ImageDecode::Fast);
        let (bytes, options) = (fixture(&file), ImageOptions::default());
        let patches = fast.from_bytes(&bytes, &options).unwrap();
        assert_eq!(sha256(&patches.pixels), expected, "{file} to {side} × {side}");
        let whole = exact.from_bytes(&bytes, &options).unwrap();
        assert_eq!(patches.source, whole.source, "{file}");
        assert_eq!(patches.pixels == whole.pixels, side == 12, "{file} to {side} × {side}");
    }
}

#[test]
fn each_limit_is_checked_before_the_pixels() {
    let limits = ImageLimits::default();
    let jpeg = fixture("420.jpg");
    let refused = |limits: ImageLimits, file: &str| {
        let error = probe(&fixture(file), &limits).unwrap_err();
        assert_eq!(decode(&fixture(file), &limits).unwrap_err(), error);
        error
    };
    let error = refused(ImageLimits { max_bytes: jpeg.len() - 1, ..limits }, "420.jpg");
    assert_eq!(error, ImageError::FileTooLarge { bytes: jpeg.len(), limit: jpeg.len() - 1 });
    for (file, format) in [
        ("420.jpg", Format::Jpeg),
        ("rgb-8.png", Format::Png),
        ("lossy.webp", Format::WebP),
        ("plain.gif", Format::Gif),
        ("24.bmp", Format::Bmp),
        ("rgb.tiff", Format::Tiff),
    ] {
        let (width, height) = (33, 22);
        let error = refused(ImageLimits { max_pixels: 725, ..limits }, file);
        assert_eq!(error, ImageError::TooManyPixels { format, width, height, limit: 725 });
        assert!(
            error.to_string().contains("33 × 22 = 726 pixels; the limit is 725 (--max-megapixels)"),
            "{error}"
        );
        let error = refused(ImageLimits { max_side: 32, ..limits }, file);
        assert_eq!(error, ImageError::SideTooLong { format, width, height, limit: 32 });
        let error = refused(ImageLimits { max_decoded_bytes: 2000, ..limits }, file);
        assert!(matches!(error, ImageError::DecodedTooLarge { limit: 2000, .. }), "{error}");
    }
    for file in ["animated.gif", "animated.webp", "animated.png"] {
        let error = refused(ImageLimits { max_frames: 1, ..limits }, file);
        assert!(matches!(error, ImageError::TooManyFrames { limit: 1, .. }), "{error}");
        assert!(decode(&fixture(file), &ImageLimits { max_frames: 2, ..limits }).is_ok());
    }
}

#[test]
fn the_scans_of_a_jpeg_are_bounded_by_the_samples_that_they_go_over() {
    // 33 × 22 pixels with chroma of half the size: six scans or more over whole units of 16 × 16.
    let file = fixture("420-progressive.jpg");
    let limits = ImageLimits::for_pixels(33 * 22);
    assert!(decode(&file, &limits).is_ok());
    let error = decode(&file, &ImageLimits { max_decode_work: 2000, ..limits }).unwrap_err();
    assert!(matches!(error, ImageError::TooMuchWork { limit: 2000, samples: 2001.., .. }), "{error}");
    assert!(decode(&fixture("420.jpg"), &ImageLimits { max_decode_work: 3 * 48 * 32, ..limits }).is_ok());
}

/// What Pillow 13 shows after `seek(1)`; `tests/parity/animations.py` has hundreds more.
#[test]
fn frames_of_animations_are_those_of_pillow() {
    let limits = ImageLimits::default();
    let all = |file: &str, limits: &ImageLimits, count: usize| {
        let mut found = Vec::new();
        let moved = frames(&fixture(file), limits, count, &mut |frame| {
            found.push(frame);
            ControlFlow::Continue(())
        });
        moved.map(|moved| (moved, found))
    };
    for (file, second) in [
        ("animated.gif", "00c5aeb243ff1bd7df8210363554f671fdc60e2c2ae497ef685ed41242ba4549"),
        ("animated.png", "e7f9a6de0d003eefbfb5a5167c493981a48bd522b501fd47ea8af2eb19770730"),
        ("animated.webp", "e7f9a6de0d003eefbfb5a5167c493981a48bd522b501fd47ea8af2eb19770730"),
        ("animated-lossy.webp", "93b86692b0b117dc519e44652c84a47796d2e03f170f6c90474961f574662870"),
        (
            "webp-animated-clear-lossless.webp",
            "b8fe283f951896ca0ca59956c3782e5234a5aafd567a03c9682816d3220643db",
        ),
        ("webp-animated-clear-40.webp", "1222a7e5f823f3afa3d3ae689bd02c6e38672b84bfd6f942ed49a85d74ef36cd"),
    ] {
        let (moved, found) = all(file, &limits, 100).unwrap();
        assert!(moved && found.len() == 2, "{file}: {} frames", found.len());
        assert_eq!(found[0].picture, decode(&fixture(file), &limits).unwrap(), "{file}");
        assert_eq!(sha256(found[1].picture.pixels()), second, "{file}");
        assert!(found[0].time < found[1].time, "{file}");
        assert_eq!(all(file, &limits, 1).unwrap().1.len(), 1);
        let error = all(file, &ImageLimits { max_decode_work: 100, ..limits }, 2).unwrap_err();
        assert!(matches!(error, ImageError::AnimationTooLong { limit: 100, .. }), "{error}");
        let error = all(file, &ImageLimits { max_frames: 1, ..limits }, 2).unwrap_err();
        assert!(matches!(error, ImageError::TooManyFrames { .. }), "{error}");
    }
    assert_eq!(all("420.jpg", &limits, 9).unwrap(), (false, Vec::new()));
}

#[test]
fn heic_and_avif_say_whether_this_build_can_read_them() {
    for (bytes, format) in
        [(b"\0\0\0\x1cftypavif\0\0\0\0", Format::Avif), (b"\0\0\0\x1cftypheic\0\0\0\0", Format::Heic)]
    {
        let error = decode(bytes, &ImageLimits::default()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format.to_string()), "{message}");
        if cfg!(not(feature = "heif")) {
            assert_eq!(error, ImageError::FormatNotBuilt { format });
        }
    }
}

#[test]
fn pixels_must_fit_their_size() {
    assert!(Picture::new(2, 2, vec![0; 12]).is_ok());
    for (width, height, bytes) in [(2, 2, 11), (0, 2, 0), (u32::MAX, u32::MAX, 12)] {
        let error = Picture::new(width, height, vec![0; bytes]).unwrap_err();
        assert!(matches!(error, ImageError::WrongPixelCount { .. }), "{error}");
    }
}

/// Some bytes of a picture changed and, half of the time, its end cut off.
fn damaged() -> impl Strategy<Value = (String, Vec<u8>)> {
    let names: Vec<String> = manifest().good.into_iter().map(|good| good.file).collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let end = prop::option::of(any::<prop::sample::Index>());
    (prop::sample::select(names), changes, end).prop_map(|(name, changes, end)| {
        let mut bytes = fixture(&name);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        (name, bytes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_damage_panics_or_passes_a_limit((name, bytes) in damaged()) {
        let limits = ImageLimits { max_pixels: 1 << 20, max_side: 4096, ..ImageLimits::default() };
        let few = ImageLimits { max_decode_work: 1 << 22, ..limits };
        let moved = frames(&bytes, &few, 3, &mut |_| ControlFlow::Continue(()));
        prop_assert!(!matches!(moved, Err(ImageError::DecoderFailed { .. })), "{name}: frames panicked");
        match decode(&bytes, &limits) {
            Ok(picture) => {
                prop_assert!(picture.width().max(picture.height()) <= limits.max_side, "{name}");
                prop_assert!(u64::from(picture.width()) * u64::from(picture.height()) <= limits.max_pixels);
            }
            Err(ImageError::DecoderFailed { format }) => {
                let at = std::env::temp_dir().join(format!("siglip-panic-{name}"));
                std::fs::write(&at, &bytes).ok();
                prop_assert!(false, "{name}: the {format} decoder panicked; the file is {}", at.display());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
