//! HTML entities, as Python's `html.unescape` and as ftfy's stricter `unescape_html`.

use std::sync::LazyLock;

use regex::Regex;

use super::{expression, replace};

/// What Python takes for a reference.
static REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| expression(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\x0c <&#;]{1,32};?)"));
/// What ftfy takes for one.
static STRICT_REFERENCE: LazyLock<Regex> = LazyLock::new(|| expression(r"&#?[0-9A-Za-z]{1,24};"));

/// `html.unescape`: named references with and without semicolon, the longest name first.
pub(super) fn unescape(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    replace(&REFERENCE, text, |reference| {
        if let Some(number) = reference.strip_prefix("&#") {
            return numeric(number);
        }
        if let Some(value) = entity(reference) {
            return value.to_owned();
        }
        for end in (3..reference.len()).rev().filter(|end| reference.is_char_boundary(*end)) {
            if let Some(value) = entity(&reference[..end]) {
                return format!("{value}{}", &reference[end..]);
            }
        }
        reference.to_owned()
    })
    .into_owned()
}

/// ftfy's `unescape_html`: only what ends in a semicolon, and lower-case names in all capitals.
pub(super) fn unescape_strict(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    replace(&STRICT_REFERENCE, text, |reference| {
        if reference.starts_with("&#") {
            let value = unescape(reference);
            return if value.contains(';') { reference.to_owned() } else { value };
        }
        if let Some(value) = entity(reference) {
            return value.to_owned();
        }
        let lower = reference.to_ascii_lowercase();
        match entity(&lower) {
            Some(value)
                if reference.to_ascii_uppercase() == reference && unescape(reference) == reference =>
            {
                value.to_uppercase()
            }
            _ => reference.to_owned(),
        }
    })
    .into_owned()
}

/// The text of a named reference, its ampersand (and semicolon, if any) included.
fn entity(reference: &str) -> Option<&'static str> {
    htmlize::ENTITIES.get(reference.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
}

/// A numeric reference without its `&#`. Numbers too long to hold are out of Unicode's range.
fn numeric(number: &str) -> String {
    let digits = number.trim_end_matches(';');
    let code = match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let Ok(code) = code else { return "\u{fffd}".into() };
    let replaced = match code {
        0x00 => '\u{fffd}',
        0x0d => '\r',
        // What browsers make of the C1 controls: Windows-1252, and the unassigned ones kept.
        0x80..=0x9f => super::encoding::windows_1252(code as u8),
        0xd800..=0xdfff | 0x11_0000.. => '\u{fffd}',
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => return String::new(),
        code if code & 0xfffe == 0xfffe => return String::new(),
        code => char::from_u32(code).unwrap_or('\u{fffd}'),
    };
    replaced.into()
}
