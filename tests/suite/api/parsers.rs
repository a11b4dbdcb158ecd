//! What the fuzz targets of `fuzz/` do, a bounded number of times on any toolchain.

use proptest::prelude::*;
use siglip::testing::api::parsers;

/// Bytes of any kind, and texts made of what the parsers look for.
fn hostile(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
        1 => "\\PC{0,6}".prop_map(String::into_bytes),
    ];
    prop_oneof![
        3 => prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..400),
    ]
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"input\":",
    "\"labels\":",
    "\"images\":",
    "\"texts\":",
    "\"text\":",
    "\"image\":",
    "\"model\":",
    "\"messages\":[{\"content\":",
    "\"inputs\":",
    "\"content\":",
    "\"image_url\":",
    "\"source_sentence\":",
    "\"prompt\":",
    "\"instances\":",
    "\"clip\":{\"visual\":",
    "\"truncate\":\"NONE\"",
    "\"data\":",
    "\"top_k\":",
    "\"threshold\":",
    "\"activation\":\"softmax\"",
    "\"a\"",
    "\"\\ud800\"",
    "null",
    "true",
    "-1",
    "1e400",
    "4294967296",
    "[1,2]",
    " ",
];
const FORM: &[&str] = &[
    "multipart/form-data; boundary=XX\n",
    "--XX\r\n",
    "--XX--",
    "\r\n",
    "\r\n\r\n",
    "Content-Disposition: form-data",
    "; name=\"labels\"",
    "; name=top_k",
    "; filename=\"a\\\"b\"",
    "; filename*=UTF-8''x",
    "Content-Type: image/png",
    "a,b",
    "[\"a\"]",
    "--XX",
    "\"",
    ";",
    "=",
    "--",
    "x",
];
const QUERY: &[&str] = &[
    "&",
    "=",
    "%",
    "%ff",
    "+",
    "model",
    "labels",
    "labels[]",
    "label",
    "templates",
    "top_k",
    "threshold",
    "NaN",
    "inf",
    "true",
    "[\"a\"",
    "]",
    ",",
    "1",
];
const PICTURE: &[&str] =
    &["data:", "image/png", ";base64", ",", "http://", "AAAA", "=", "-_", "+/", "\r\n", " ", "UElD"];
const ACCEPT: &[&str] = &[
    "application/json",
    "application/*",
    "*/*",
    "application/x-npy",
    ";q=",
    "0.5",
    "NaN",
    "1e99",
    ",",
    ";",
    " ",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn json(data in hostile(JSON)) {
        parsers::json(&data);
    }

    #[test]
    fn form(data in hostile(FORM)) {
        parsers::form(&data);
    }

    #[test]
    fn query(data in hostile(QUERY)) {
        parsers::query(&data);
    }

    #[test]
    fn encoded_picture(data in hostile(PICTURE)) {
        parsers::encoded_picture(&data);
    }

    #[test]
    fn accept(data in hostile(ACCEPT)) {
        parsers::accept(&data);
    }
}
