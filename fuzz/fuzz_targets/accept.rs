#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siglip::testing::api::parsers::accept(data));
