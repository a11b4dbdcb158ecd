//! SentencePiece's normaliser: the compiled character map, then the whitespace rules.
//!
//! Source: `normalizer.cc` of google/sentencepiece and the double array of Darts-clone that its
//! `precompiled_charsmap` holds: `[u32 size of the trie in bytes][trie][NUL-separated strings]`.

use super::proto::ModelProto;
use super::vocabulary::PieceTrie;

/// SentencePiece writes a space as this character.
pub(crate) const SPACE: &str = "\u{2581}";
/// SentencePiece looks at no more rules than this at one position.
const MAX_RULES: usize = 32;

/// The compiled character map.
#[derive(Debug, Default)]
pub(super) struct CharsMap {
    trie: Vec<u32>,
    strings: Vec<u8>,
}

impl CharsMap {
    pub fn parse(blob: &[u8]) -> Result<Self, String> {
        if blob.is_empty() {
            return Ok(Self::default());
        }
        let (head, rest) = blob
            .split_first_chunk::<4>()
            .ok_or("its precompiled_charsmap is shorter than the length of its trie")?;
        let size = u32::from_le_bytes(*head) as usize;
        if size == 0 || !size.is_multiple_of(4) || size > rest.len() {
            return Err(format!(
                "its precompiled_charsmap says a trie of {size} bytes where {} bytes are left",
                rest.len()
            ));
        }
        let (trie, strings) = rest.split_at(size);
        let trie = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        if std::str::from_utf8(strings).is_err() {
            return Err("the replacements of its precompiled_charsmap are not UTF-8".into());
        }
        Ok(Self { trie, strings: strings.to_vec() })
    }

    /// The longest rule that matches at the start of `text`: its replacement and the bytes consumed.
    ///
    /// A unit that points out of the array ends the search: only a malformed map has one.
    fn longest<'a>(&'a self, text: &str) -> Option<(&'a str, usize)> {
        let mut best = None;
        let mut rules = 0;
        let mut node = offset(*self.trie.first()?) as usize;
        for (index, &byte) in text.as_bytes().iter().enumerate() {
            node ^= byte as usize;
            let Some(&unit) = self.trie.get(node) else { break };
            if unit & 0x8000_00ff != u32::from(byte) {
                break;
            }
            node ^= offset(unit) as usize;
            if unit & 0x100 != 0 && rules < MAX_RULES {
                rules += 1;
                let Some(&leaf) = self.trie.get(node) else { break };
                best = Some(((leaf & 0x7fff_ffff) as usize, index + 1));
            }
        }
        let (start, length) = best?;
        let tail = self.strings.get(start..)?;
        let end = tail.iter().position(|&b| b == 0).unwrap_or(tail.len());
        // A rule of a malformed map could end inside a character of the text or of its strings.
        text.is_char_boundary(length)
            .then(|| std::str::from_utf8(&tail[..end]).ok())
            .flatten()
            .map(|replacement| (replacement, length))
    }
}

fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 0x200) >> 6)
}

/// The normaliser of one model.
#[derive(Debug)]
pub(super) struct Normalizer {
    map: CharsMap,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    space: &'static str,
    whitespace_as_suffix: bool,
}

impl Normalizer {
    pub fn new(model: &ModelProto) -> Result<Self, String> {
        Ok(Self {
            map: CharsMap::parse(&model.charsmap)?,
            add_dummy_prefix: model.add_dummy_prefix,
            remove_extra_whitespaces: model.remove_extra_whitespaces,
            space: if model.escape_whitespaces { SPACE } else { " " },
            whitespace_as_suffix: model.whitespace_as_suffix,
        })
    }

    /// `text` as the model wants it, `user_defined` symbols kept as they are.
    ///
    /// Fails if a map blows the text up beyond anything Unicode asks for (NFKC: eleven times).
    pub fn normalize(&self, mut text: &str, user_defined: &PieceTrie) -> Result<String, String> {
        let limit = 32 * text.len() + 1024;
        if self.remove_extra_whitespaces {
            while !text.is_empty() {
                let (piece, used) = self.prefix(text, user_defined);
                if piece != " " {
                    break;
                }
                text = &text[used..];
            }
        }
        let mut out = String::with_capacity(text.len() + text.len() / 2 + 3);
        if text.is_empty() {
            return Ok(out);
        }
        if !self.whitespace_as_suffix && self.add_dummy_prefix {
            out.push_str(self.space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !text.is_empty() {
            let (mut piece, used) = self.prefix(text, user_defined);
            if after_space {
                piece = piece.trim_start_matches(' ');
            }
            for part in piece.split_inclusive(' ') {
                match part.strip_suffix(' ') {
                    Some(word) => {
                        out.push_str(word);
                        out.push_str(self.space);
                    }
                    None => out.push_str(part),
                }
            }
            if !piece.is_empty() {
                after_space = self.remove_extra_whitespaces && piece.ends_with(' ');
            }
            if out.len() > limit {
                return Err("its character map makes the text too long".into());
            }
            text = &text[used..];
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(self.space).len());
        }
        if self.whitespace_as_suffix && self.add_dummy_prefix {
            out.push_str(self.space);
        }
        Ok(out)
    }

    /// What the start of a non-empty `text` becomes, and how many bytes of it that was.
    fn prefix<'a>(&'a self, text: &'a str, user_defined: &PieceTrie) -> (&'a str, usize) {
        if let Some(length) = user_defined.longest_prefix(text) {
            return (&text[..length], length);
        }
        self.map.longest(text).unwrap_or_else(|| {
            let length = text.chars().next().map_or(0, char::len_utf8);
            (&text[..length], length)
        })
    }
}
