#![no_main]

use siglip::testing::image::{ImageLimits, decode, probe};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = ImageLimits { max_pixels: 1 << 20, ..ImageLimits::default() };
    let _ = probe(data, &limits);
    let _ = decode(data, &limits);
});
