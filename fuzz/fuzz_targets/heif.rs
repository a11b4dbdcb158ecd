#![no_main]
//! HEIC and AVIF, for which this must be built with the feature `heif`: the box that a file starts with is put before the data.

use siglip::testing::image::{ImageError, ImageLimits, decode};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    let brand: &[u8] = if kind & 1 == 0 { b"heic" } else { b"avif" };
    let file = [b"\0\0\0\x18ftyp", brand, b"\0\0\0\0mif1", brand, data].concat();
    let limits = ImageLimits { max_pixels: 1 << 20, max_decoded_bytes: 1 << 28, max_decode_work: 1 << 26, ..ImageLimits::default() };
    let failed = matches!(decode(&file, &limits), Err(ImageError::DecoderFailed { .. }));
    assert!(!failed, "the decoder panicked");
});
