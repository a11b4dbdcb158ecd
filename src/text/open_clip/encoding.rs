//! ftfy's `fix_encoding`: text that was UTF-8 and was decoded by a single-byte encoding.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use regex::bytes::Regex as BytesRegex;

use super::tables::{ALTERED_UTF8, BADNESS, ENCODINGS, LOSSY_UTF8, UTF8_DETECTOR, UTF8_DETECTOR_NOT_AFTER};
use super::{MAX_ROUNDS, expression, replace};

/// How deep mojibake within mojibake is followed.
const MAX_DEPTH: usize = 16;

static BAD: LazyLock<Regex> = LazyLock::new(|| expression(BADNESS));
static DETECTOR: LazyLock<Regex> = LazyLock::new(|| expression(UTF8_DETECTOR));
static NOT_AFTER: LazyLock<Regex> = LazyLock::new(|| expression(UTF8_DETECTOR_NOT_AFTER));
static C1_CONTROL: LazyLock<Regex> = LazyLock::new(|| expression(r"[\x{80}-\x{9f}]"));
static ALTERED: LazyLock<BytesRegex> = LazyLock::new(|| bytes_expression(ALTERED_UTF8));
static LOSSY: LazyLock<BytesRegex> = LazyLock::new(|| bytes_expression(LOSSY_UTF8));

fn bytes_expression(pattern: &str) -> BytesRegex {
    BytesRegex::new(&format!("(?s-u){pattern}")).expect("a constant expression, compiled by a test")
}

/// A single-byte encoding; below 0x80 it is ASCII.
struct Encoding {
    name: &'static str,
    /// Byte 1A stands for U+FFFD, a character that was lost.
    sloppy: bool,
    high: HashMap<char, u8>,
}

static TABLES: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    let encoding = |(name, sloppy, high): (&'static str, bool, &str)| Encoding {
        name,
        sloppy,
        high: high.chars().zip(0x80..=0xff).collect(),
    };
    ENCODINGS.into_iter().map(encoding).collect()
});

impl Encoding {
    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let byte = |c| match c {
            '\x1a' if self.sloppy => None,
            '\0'..='\x7f' => Some(c as u8),
            '\u{fffd}' if self.sloppy => Some(0x1a),
            c => self.high.get(&c).copied(),
        };
        text.chars().map(byte).collect()
    }
}

/// Fixes layer after layer until the text looks like none was left.
pub(super) fn fix(text: &str) -> String {
    fix_within(text, MAX_DEPTH)
}

fn fix_within(text: &str, depth: usize) -> String {
    let mut text = text.to_owned();
    for _ in 0..MAX_ROUNDS {
        match fix_once(&text, depth) {
            Some(fixed) if fixed != text => text = fixed,
            _ => break,
        }
    }
    text
}

/// One step; `None` where nothing is to be done.
fn fix_once(text: &str, depth: usize) -> Option<String> {
    if text.is_ascii() || !BAD.is_match(text) {
        return None;
    }
    let mut latin_1 = None;
    for encoding in TABLES.iter() {
        let Some(mut bytes) = encoding.encode(text) else { continue };
        if encoding.name == "latin-1" {
            latin_1 = Some(bytes.clone());
        }
        if encoding.name != "macroman" && ALTERED.is_match(&bytes) {
            bytes = restore_byte_a0(&bytes);
        }
        if encoding.sloppy {
            bytes = LOSSY.replace_all(&bytes, "\u{fffd}".as_bytes()).into_owned();
        }
        if let Some(fixed) = decode(bytes) {
            return Some(fixed);
        }
    }
    if depth > 0 {
        let fixed = fix_embedded(text, depth - 1);
        if fixed != text {
            return Some(fixed);
        }
    }
    // Windows-1252 leaves five bytes unassigned; text with one of them was not in it.
    let assigned = |b: &u8| !matches!(b, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d);
    if let Some(bytes) = latin_1.filter(|bytes| bytes.iter().all(assigned)) {
        let fixed: String = bytes.into_iter().map(windows_1252).collect();
        if fixed != text {
            return Some(fixed);
        }
    }
    Some(fix_c1_controls(text).into_owned())
}

/// Fixes the parts that look like UTF-8 in a text that is not of one piece.
fn fix_embedded(text: &str, depth: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = DETECTOR.find_at(text, at) {
        let before = text[..found.start()].chars().next_back();
        if before.is_some_and(|c| NOT_AFTER.is_match(c.encode_utf8(&mut [0; 4]))) {
            at = found.start() + text[found.start()..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        out.push_str(&text[copied..found.start()]);
        if found.len() < text.len() && BAD.is_match(found.as_str()) {
            out.push_str(&fix_within(found.as_str(), depth));
        } else {
            out.push_str(found.as_str());
        }
        copied = found.end();
        at = copied;
    }
    out.push_str(&text[copied..]);
    out
}

/// C1 controls as what Windows-1252 has in their place, as browsers read them.
pub(super) fn fix_c1_controls(text: &str) -> Cow<'_, str> {
    replace(&C1_CONTROL, text, |control| control.chars().map(|c| windows_1252(c as u8)).collect())
}

/// A byte in Windows-1252; its unassigned bytes as in Latin-1.
pub(super) fn windows_1252(byte: u8) -> char {
    static HIGH: LazyLock<Vec<char>> = LazyLock::new(|| ENCODINGS[1].2.chars().collect());
    match byte {
        0..0x80 => char::from(byte),
        _ => HIGH.get(usize::from(byte - 0x80)).copied().unwrap_or(char::from(byte)),
    }
}

/// Puts back the bytes A0 that became spaces.
fn restore_byte_a0(bytes: &[u8]) -> Vec<u8> {
    // The word "à" keeps the space after it; contractions of Portuguese and Catalan do not.
    let joined: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut spaced = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if let Some(rest) = bytes[at..].strip_prefix(b"\xc3 ")
            && !joined.iter().any(|word| rest.starts_with(word))
        {
            spaced.extend_from_slice(b"\xc3\xa0 ");
            at += 2;
        } else {
            spaced.push(bytes[at]);
            at += 1;
        }
    }
    let restored = ALTERED.replace_all(&spaced, |found: &regex::bytes::Captures<'_>| {
        found[0].iter().map(|&b| if b == b' ' { 0xa0 } else { b }).collect::<Vec<u8>>()
    });
    restored.into_owned()
}

/// UTF-8 and two of its variants: CESU-8's surrogate pairs and Java's zero.
fn decode(bytes: Vec<u8>) -> Option<String> {
    if !bytes.iter().any(|b| matches!(b, 0xed | 0xc0)) {
        return String::from_utf8(bytes).ok();
    }
    let mut out = String::with_capacity(bytes.len());
    let mut rest = &bytes[..];
    while let Some(&first) = rest.first() {
        let used = match *rest {
            [0xc0, 0x80, ..] => {
                out.push('\0');
                2
            }
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let code = bits(a, 0x0f, 16) + bits(b, 0x3f, 10) + bits(c, 0x0f, 6) + bits(d, 0x3f, 0);
                out.push(char::from_u32(code + 0x10000)?);
                6
            }
            _ => {
                let length = match first {
                    0..0x80 => 1,
                    0x80..0xe0 => 2,
                    0xe0..0xf0 => 3,
                    _ => 4,
                };
                out.push_str(std::str::from_utf8(rest.get(..length)?).ok()?);
                length
            }
        };
        rest = &rest[used..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_compiles() {
        for regex in [&BAD, &DETECTOR, &NOT_AFTER, &C1_CONTROL] {
            assert!(!regex.is_match("plain"));
        }
        assert!(!ALTERED.is_match(b"plain") && !LOSSY.is_match(b"plain"));
        assert!(TABLES.iter().all(|encoding| encoding.high.len() == 128));
    }

    #[test]
    fn fixes_layers_of_mojibake() {
        assert_eq!(fix("sÃ³"), "só");
        assert_eq!(fix("âœ” No problems"), "✔ No problems");
        assert_eq!(fix("l’humanitÃ©"), "l’humanité");
        assert_eq!(fix("Ã la mode"), "à la mode");
        assert_eq!(fix("café, naïve, Åland"), "café, naïve, Åland");
    }
}
