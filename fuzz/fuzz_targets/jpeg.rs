#![no_main]
//! The JPEG decoder alone: the mark that a file starts with is put before the data. A panic that is caught on the way is
//! one here.

use siglip::testing::image::{ImageError, ImageLimits, decode};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let file = [b"\xff\xd8\xff", data].concat();
    let limits = ImageLimits { max_pixels: 1 << 20, max_decoded_bytes: 1 << 28, max_decode_work: 1 << 26, ..ImageLimits::default() };
    let failed = matches!(decode(&file, &limits), Err(ImageError::DecoderFailed { .. }));
    assert!(!failed, "the decoder panicked");
});
