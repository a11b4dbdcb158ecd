//! The pieces of a model: validated, and found by text or by prefix.

use std::collections::HashMap;

use super::proto::{ModelProto, Piece, PieceType};

/// Pieces sorted by their bytes: a trie walked by narrowing a range.
#[derive(Debug, Default)]
pub(super) struct PieceTrie {
    /// Text and id.
    sorted: Vec<(Box<str>, u32)>,
}

impl PieceTrie {
    fn new(mut pieces: Vec<(Box<str>, u32)>) -> Self {
        pieces.sort_unstable();
        Self { sorted: pieces }
    }

    /// Calls `found(length in bytes, id)` for every piece that `text` starts with, shortest first.
    pub fn prefixes(&self, text: &str, mut found: impl FnMut(usize, u32)) {
        let mut range = &self.sorted[..];
        for (depth, &byte) in text.as_bytes().iter().enumerate() {
            let at = |piece: &(Box<str>, u32)| piece.0.as_bytes().get(depth).copied();
            let low = range.partition_point(|piece| at(piece) < Some(byte));
            let high = low + range[low..].partition_point(|piece| at(piece) == Some(byte));
            range = &range[low..high];
            match range.first() {
                None => return,
                // The shortest of a range comes first.
                Some((piece, id)) if piece.len() == depth + 1 => found(depth + 1, *id),
                Some(_) => {}
            }
        }
    }

    /// Length of the longest piece that `text` starts with.
    pub fn longest_prefix(&self, text: &str) -> Option<usize> {
        if self.sorted.is_empty() {
            return None;
        }
        let mut longest = None;
        self.prefixes(text, |length, _| longest = Some(length));
        longest
    }
}

/// All pieces of a model.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pieces: Vec<Piece>,
    /// Normal, user-defined and unused pieces: what text can become.
    usable: HashMap<Box<str>, u32>,
    /// Control, unknown and byte pieces.
    reserved: HashMap<Box<str>, u32>,
    /// The same as `usable`, by prefix.
    pub trie: PieceTrie,
    /// User-defined symbols, by prefix: they are never split.
    pub user_defined: PieceTrie,
    /// The unknown piece.
    pub unknown: u32,
    /// Ids of the 256 byte pieces, if characters out of the vocabulary are written by bytes.
    pub bytes: Option<Box<[u32; 256]>>,
}

impl Vocabulary {
    pub fn new(model: &mut ModelProto) -> Result<Self, String> {
        let pieces = std::mem::take(&mut model.pieces);
        if pieces.is_empty() {
            return Err("it has no pieces".into());
        }
        let mut usable: HashMap<Box<str>, u32> = HashMap::with_capacity(pieces.len());
        let mut reserved = HashMap::new();
        let mut user_defined = Vec::new();
        let mut unknown = None;
        let mut bytes = [None; 256];
        for (id, piece) in (0u32..).zip(&pieces) {
            if piece.text.is_empty() {
                return Err(format!("piece {id} is empty"));
            }
            let map = match piece.kind {
                PieceType::Normal | PieceType::UserDefined | PieceType::Unused => &mut usable,
                _ => &mut reserved,
            };
            if map.insert(Box::from(piece.text.as_str()), id).is_some() {
                return Err(format!("piece {:?} is defined twice", piece.text));
            }
            match piece.kind {
                PieceType::UserDefined => user_defined.push((Box::from(piece.text.as_str()), id)),
                PieceType::Unknown if unknown.is_some() => return Err("it has two unknown pieces".into()),
                PieceType::Unknown => unknown = Some(id),
                PieceType::Byte => {
                    let byte = byte_of(&piece.text)
                        .filter(|_| model.byte_fallback)
                        .ok_or_else(|| format!("byte piece {:?} is not valid here", piece.text))?;
                    bytes[byte as usize] = Some(id);
                }
                _ => {}
            }
        }
        let unknown = unknown.ok_or("it has no unknown piece")?;
        let bytes = match model.byte_fallback {
            false => None,
            true => {
                let mut ids = Box::new([0; 256]);
                for (byte, id) in bytes.iter().enumerate() {
                    ids[byte] = id.ok_or_else(|| format!("it has no piece for byte {byte:#04X}"))?;
                }
                Some(ids)
            }
        };
        let trie = PieceTrie::new(usable.iter().map(|(piece, id)| (piece.clone(), *id)).collect());
        Ok(Self {
            pieces,
            usable,
            reserved,
            trie,
            user_defined: PieceTrie::new(user_defined),
            unknown,
            bytes,
        })
    }

    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    pub fn piece(&self, id: u32) -> &Piece {
        &self.pieces[id as usize]
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The id of a piece that text can become.
    pub fn usable(&self, text: &str) -> Option<u32> {
        self.usable.get(text).copied()
    }

    /// The id of any piece, reserved ones first, as SentencePiece's `PieceToId`.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.reserved.get(text).or_else(|| self.usable.get(text)).copied()
    }
}

/// `<0xE3>` → 0xE3.
fn byte_of(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()))
        .then(|| u8::from_str_radix(hex, 16).ok())
        .flatten()
}
