#![no_main]
//! The WebP decoder alone: the mark that a file starts with is put before the data. A panic that is caught on the way is
//! one here.

use siglip::testing::image::{ImageError, ImageLimits, decode};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let length = u32::try_from(data.len() + 4).unwrap_or(u32::MAX).to_le_bytes();
    let file = [b"RIFF", &length[..], b"WEBP", data].concat();
    let limits = ImageLimits { max_pixels: 1 << 20, max_decoded_bytes: 1 << 28, max_decode_work: 1 << 26, ..ImageLimits::default() };
    let failed = matches!(decode(&file, &limits), Err(ImageError::DecoderFailed { .. }));
    assert!(!failed, "the decoder panicked");
});
