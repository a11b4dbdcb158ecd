//! The parsers of what clients send, one function each: any bytes go in, and nothing may panic. `fuzz/` and the tests run
//! them.

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use crate::api::dialects::Dialects;
use crate::api::edge::negotiate::{Format, negotiate};
use crate::api::native::schema::{
    CalibrateRequest, ClassifyRequest, EmbeddingsRequest, ExamplesRequest, HeatmapsRequest, ScoreRequest,
};
use crate::api::read::{Form, options_of, parse_json};
use crate::api::source::decode_image;
use crate::budget::{Charge, MemoryBudget, MemoryKind};
use crate::labels::Definition;

fn memory() -> Option<Charge> {
    MemoryBudget::new(64 << 20).charge(0, MemoryKind::Parsed, 0).ok()
}

/// JSON bodies, as every route reads them.
pub fn json(data: &[u8]) {
    let _ = parse_json::<EmbeddingsRequest>(data);
    let _ = parse_json::<ClassifyRequest>(data);
    let _ = parse_json::<ScoreRequest>(data);
    for dialect in Dialects::default().iter() {
        (dialect.parse)(data);
    }
    let _ = parse_json::<HeatmapsRequest>(data);
    let _ = parse_json::<ExamplesRequest>(data);
    let _ = parse_json::<CalibrateRequest>(data);
    let _ = parse_json::<Definition>(data).map(|definition| definition.check());
}

/// A form: the first line is its content type.
pub fn form(data: &[u8]) {
    let (kind, body) = match data.iter().position(|&byte| byte == b'\n') {
        Some(at) => (String::from_utf8_lossy(&data[..at]).into_owned(), &data[at + 1..]),
        None => ("multipart/form-data; boundary=XX".to_owned(), data),
    };
    if let Ok(form) = Form::read(Bytes::copy_from_slice(body), &kind, 64) {
        let _ = form.options::<EmbeddingsRequest>();
        let _ = form.options::<ClassifyRequest>();
    }
}

/// The query of an address.
pub fn query(data: &[u8]) {
    let _ = options_of::<EmbeddingsRequest>(form_urlencoded::parse(data));
    let _ = options_of::<ClassifyRequest>(form_urlencoded::parse(data));
    let _ = options_of::<ScoreRequest>(form_urlencoded::parse(data));
    let _ = options_of::<HeatmapsRequest>(form_urlencoded::parse(data));
}

/// A picture in a string.
pub fn encoded_picture(data: &[u8]) {
    if let Some(mut memory) = memory() {
        let _ = decode_image(&String::from_utf8_lossy(data), &mut memory);
    }
}

/// The `Accept` header.
pub fn accept(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([(header::ACCEPT, value)]);
    let _ = negotiate(&headers, &Format::ALL);
}
