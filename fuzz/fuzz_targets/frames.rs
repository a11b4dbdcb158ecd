#![no_main]
//! Frames of animations: GIF, WebP and PNG, by the first byte. A panic that is caught on the way is one here.

use std::ops::ControlFlow;

use siglip::testing::image::{ImageError, ImageLimits, frames};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    let length = u32::try_from(data.len() + 4).unwrap_or(u32::MAX).to_le_bytes();
    let file = match kind % 3 {
        0 => [b"GIF89a", data].concat(),
        1 => [b"RIFF", &length[..], b"WEBP", data].concat(),
        _ => [b"\x89PNG\r\n\x1a\n", data].concat(),
    };
    let limits = ImageLimits { max_pixels: 1 << 18, max_decoded_bytes: 1 << 26, max_decode_work: 1 << 24, ..ImageLimits::default() };
    let count = usize::from(kind / 3);
    let mut given = 0;
    let result = frames(&file, &limits, count, &mut |frame| {
        assert!(frame.time.is_finite() && frame.time >= 0.0);
        given += 1;
        ControlFlow::Continue(())
    });
    assert!(given <= count && !matches!(result, Err(ImageError::DecoderFailed { .. })), "the decoder panicked");
});
