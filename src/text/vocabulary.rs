//! Whether the two files of a tokenizer hold the same vocabulary.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::sentencepiece::SentencePiece;

/// The first piece that a SentencePiece model and a `tokenizer.json` call otherwise, in words; `None` where every piece
/// that text can become has the same id in both.
pub(super) fn difference(json: &[u8], model: &SentencePiece) -> Result<Option<String>, String> {
    let File { model: Model { vocab: Pieces(pieces) } } =
        serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok(model.usable().find_map(|(piece, id)| match pieces.get(id as usize) {
        Some(Some(other)) if other == piece => None,
        Some(Some(other)) => Some(format!("id {id} is {piece:?} in the one, {other:?} in the other")),
        _ => Some(format!("id {id}, {piece:?}, is not in tokenizer.json")),
    }))
}

#[derive(serde::Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(serde::Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    vocab: Pieces<'a>,
}

/// Pieces by their ids.
struct Pieces<'a>(Vec<Option<Cow<'a, str>>>);

/// More ids than any vocabulary has: one of a map must not decide how much memory is taken.
const LIMIT: usize = 1 << 24;

/// A string that is borrowed where the JSON has no escapes in it.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Pieces<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PiecesVisitor)
    }
}

struct PiecesVisitor;

impl<'de> Visitor<'de> for PiecesVisitor {
    type Value = Pieces<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pieces with their scores, or a map from pieces to ids")
    }

    /// A unigram model: a piece and its score, in the order of ids.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut pieces = Vec::new();
        while let Some((Text(piece), IgnoredAny)) = list.next_element()? {
            pieces.push(Some(piece));
        }
        Ok(Pieces(pieces))
    }

    /// BPE and word models.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pieces = Vec::new();
        while let Some((Text(piece), id)) = map.next_entry::<_, usize>()? {
            if id >= LIMIT {
                return Err(serde::de::Error::custom(format!("id {id} of {piece:?} is too large")));
            }
            if pieces.len() <= id {
                pieces.resize(id + 1, None);
            }
            pieces[id] = Some(piece);
        }
        Ok(Pieces(pieces))
    }
}
