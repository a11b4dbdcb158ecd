//! Pictures inside of strings: base64 with and without a data: URL.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::Source;
use crate::api::edge::buffer::charged;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::budget::Charge;
use crate::engine::Input;

const TOLERANT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, TOLERANT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, TOLERANT);

/// Whether a string in a place for texts or pictures is a data: URL: `data:image/…`, or any other
/// media type with `;base64,`. A text that merely begins with "data:" is a text.
pub fn is_data_url(text: &str) -> bool {
    let Some(rest) = strip_prefix_ignore_case(text, "data:") else { return false };
    if strip_prefix_ignore_case(rest, "image/").is_some() {
        return true;
    }
    // A media type is short: do not search a long text for a comma.
    let head = rest.as_bytes().iter().take(256).position(|&b| b == b',').map(|at| &rest[..at]);
    head.is_some_and(|head| {
        head.to_ascii_lowercase().ends_with(";base64") && !head.contains(char::is_whitespace)
    })
}

/// Whether a string in a place for pictures is an http(s) URL.
pub fn begins_as_url(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| strip_prefix_ignore_case(text, scheme).is_some())
}

/// Whether a string is an http(s) URL and nothing else.
pub fn is_url(text: &str) -> bool {
    begins_as_url(text) && !text.contains(char::is_whitespace)
}

/// A string in a place for a picture: an http(s) URL, a data: URL, or base64 in the standard or the
/// URL-safe alphabet, with or without padding and line breaks. The bytes are charged to the client of `memory`.
///
/// # Errors
/// 422 if it is none of them; 413 or 429 if there is no room for its bytes.
pub fn decode_image(text: &str, memory: &mut Charge) -> ApiResult<Source> {
    if begins_as_url(text) {
        return Ok(Source::Url(text.to_owned()));
    }
    let encoded = match strip_prefix_ignore_case(text, "data:") {
        None => text,
        Some(rest) => {
            let (head, data) = rest.split_once(',').ok_or_else(|| invalid("a data: URL without a comma"))?;
            if !head.to_ascii_lowercase().ends_with(";base64") {
                return Err(invalid("a data: URL that is not base64 (\"data:image/jpeg;base64,…\" is)"));
            }
            data
        }
    };
    decode_base64(encoded, memory).map(|bytes| Source::Ready(Input::Image(bytes)))
}

fn decode_base64(encoded: &str, memory: &mut Charge) -> ApiResult<Bytes> {
    // Line breaks only: a space inside is more likely a sentence than base64.
    let is_break = |b: u8| matches!(b, b'\r' | b'\n' | b'\t');
    let encoded = encoded.trim_ascii();
    let broken = encoded.bytes().any(is_break);
    let room = encoded.len() / 4 * 3 + 3;
    let copy = if broken { encoded.len() } else { 0 };
    let mut held = memory.split(0);
    held.grow(room + copy)?;
    let compact = if broken {
        let mut compact = String::with_capacity(encoded.len());
        compact.extend(encoded.split(['\r', '\n', '\t']));
        Cow::Owned(compact)
    } else {
        Cow::Borrowed(encoded)
    };
    let url_safe = compact.bytes().any(|b| matches!(b, b'-' | b'_'));
    let engine = if url_safe { &URL_SAFE } else { &STANDARD };
    let mut bytes = engine.decode(compact.as_bytes()).map_err(|error| {
        let looks_like = "an image is a URL, a data: URL or base64";
        invalid(&format!("not valid base64 ({error}); {looks_like}"))
    })?;
    bytes.shrink_to_fit();
    held.shrink(held.bytes().saturating_sub(bytes.capacity()));
    Ok(charged(bytes, held))
}

fn invalid(message: &str) -> ApiError {
    ApiError::unprocessable("invalid_image_encoding", message)
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{MemoryBudget, MemoryKind};

    fn decode_image(text: &str) -> ApiResult<Source> {
        let mut memory = MemoryBudget::new(1 << 20).charge(0, MemoryKind::Parsed, 0).unwrap();
        super::decode_image(text, &mut memory)
    }

    fn bytes(text: &str) -> Vec<u8> {
        match decode_image(text) {
            Ok(Source::Ready(Input::Image(bytes))) => bytes.to_vec(),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn every_spelling_of_base64() {
        let raw = [0xfb, 0xff, 0xfe, 0x00];
        for text in
            ["+//+AA==", "+//+AA", "-__-AA==", "-__-AA", "+//+\r\nAA==\n", "data:image/png;base64,+//+AA=="]
        {
            assert_eq!(bytes(text), raw, "{text}");
        }
        assert_eq!(bytes("DATA:image/PNG;charset=x;BASE64,+//+AA"), raw);
        assert_eq!(bytes(""), b"", "empty: the decoder of pictures refuses it by name");
    }

    #[test]
    fn what_is_no_picture_is_named() {
        for (text, part) in [
            ("a cat", "not valid base64"),
            ("data:image/png", "without a comma"),
            ("data:image/svg+xml,%3Csvg", "not base64"),
            ("+-+-", "not valid base64"),
        ] {
            let error = decode_image(text).unwrap_err();
            assert_eq!(error.status, 422);
            assert!(error.detail.message.contains(part), "{}", error.detail.message);
        }
        assert!(matches!(decode_image("HTTPS://example.com/a.png"), Ok(Source::Url(_))));
    }

    #[test]
    fn texts_that_begin_with_data_are_texts() {
        assert!(is_data_url("data:image/png;base64,AAAA"));
        assert!(is_data_url("Data:application/octet-stream;base64,AAAA"));
        assert!(!is_data_url("data: the new oil, they say"));
        assert!(!is_data_url("data:base64"));
        assert!(!is_data_url("dätä:image/png;base64,AAAA"));
        assert!(!is_data_url(""));
    }
}
