//! SentencePiece models (`spiece.model`, `tokenizer.model`): unigram and BPE, id for id as the
//! `sentencepiece` package.
//!
//! Written out here rather than mapped to a `tokenizers` pipeline: that one's character map takes
//! the first rule of a grapheme instead of the longest, breaks ties in another precision, and
//! panics on a malformed map.

mod bpe;
mod normalizer;
mod proto;
mod unigram;
mod vocabulary;

pub(super) use normalizer::SPACE;

use normalizer::Normalizer;
use proto::{ModelProto, ModelType, PieceType};
use unigram::Unigram;
use vocabulary::Vocabulary;

#[derive(Debug)]
enum Algorithm {
    Unigram(Unigram),
    Bpe,
}

/// A loaded SentencePiece model.
#[derive(Debug)]
pub(super) struct SentencePiece {
    vocabulary: Vocabulary,
    normalizer: Normalizer,
    algorithm: Algorithm,
}

impl SentencePiece {
    /// Reads the bytes of a model file; the error says what is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut model = ModelProto::parse(bytes)?;
        let vocabulary = Vocabulary::new(&mut model)?;
        let normalizer = Normalizer::new(&model)?;
        let algorithm = match model.model_type {
            ModelType::Unigram => Algorithm::Unigram(Unigram::new(&vocabulary)),
            ModelType::Bpe => Algorithm::Bpe,
        };
        Ok(Self { vocabulary, normalizer, algorithm })
    }

    /// Whether it is a BPE model; a unigram model otherwise.
    pub fn is_bpe(&self) -> bool {
        matches!(self.algorithm, Algorithm::Bpe)
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// The id of a piece, or the unknown piece's.
    pub fn id_or_unknown(&self, piece: &str) -> u32 {
        self.vocabulary.id(piece).unwrap_or(self.vocabulary.unknown)
    }

    /// The id of a piece, if there is such a piece.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.vocabulary.id(piece)
    }

    /// The piece of an id, if there is such an id.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.vocabulary.pieces().get(id as usize).map(|piece| piece.text.as_str())
    }

    /// Control pieces and the unknown piece, by text and id.
    pub fn control(&self) -> impl Iterator<Item = (&str, u32)> {
        (0u32..)
            .zip(self.vocabulary.pieces())
            .filter(|(_, piece)| matches!(piece.kind, PieceType::Control | PieceType::Unknown))
            .map(|(id, piece)| (piece.text.as_str(), id))
    }

    /// Pieces that text can become, by text and id.
    pub fn usable(&self) -> impl Iterator<Item = (&str, u32)> {
        (0u32..)
            .zip(self.vocabulary.pieces())
            .filter(|(_, piece)| matches!(piece.kind, PieceType::Normal | PieceType::UserDefined))
            .map(|(id, piece)| (piece.text.as_str(), id))
    }

    /// The pieces of a text and their ids; a run of unknown characters is one piece, or its bytes
    /// where the model falls back to bytes. Fails only for a malformed character map.
    pub fn encode(&self, text: &str) -> Result<Vec<(String, u32)>, String> {
        let normalized = self.normalizer.normalize(text, &self.vocabulary.user_defined)?;
        let mut pieces = Vec::new();
        match &self.algorithm {
            Algorithm::Unigram(model) => model.encode(&self.vocabulary, &normalized, &mut pieces),
            Algorithm::Bpe => bpe::encode(&self.vocabulary, &normalized, &mut pieces),
        }
        let mut out: Vec<(String, u32)> = Vec::with_capacity(pieces.len());
        let mut after_unknown = false;
        for (piece, id) in pieces {
            let unknown = id == self.vocabulary.unknown;
            match (&self.vocabulary.bytes, out.last_mut()) {
                (Some(bytes), _) if unknown => {
                    out.extend(piece.bytes().map(|b| (format!("<0x{b:02X}>"), bytes[b as usize])));
                }
                (None, Some((run, _))) if unknown && after_unknown => run.push_str(piece),
                _ => out.push((piece.to_owned(), id)),
            }
            after_unknown = unknown;
        }
        Ok(out)
    }
}

/// Whether a compiled character map can be read; the error says what is wrong with it.
pub(super) fn check_charsmap(bytes: &[u8]) -> Result<(), String> {
    normalizer::CharsMap::parse(bytes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One length-delimited field.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut inner = field(1, text.as_bytes());
        inner.push(2 << 3 | 5);
        inner.extend_from_slice(&score.to_le_bytes());
        inner.extend_from_slice(&[3 << 3, kind]);
        field(1, &inner)
    }

    fn model(pieces: &[(&str, f32, u8)], trainer: &[u8]) -> Result<SentencePiece, String> {
        let mut bytes: Vec<u8> = pieces.iter().flat_map(|(t, s, k)| piece(t, *s, *k)).collect();
        bytes.extend(field(2, trainer));
        SentencePiece::from_bytes(&bytes)
    }

    const BPE: [u8; 2] = [3 << 3, 2];

    #[test]
    fn an_unused_piece_is_taken_apart_again() {
        let pieces =
            [("<unk>", 0.0, 2), ("\u{2581}", -9.0, 1), ("a", -8.0, 1), ("b", -7.0, 1), ("ab", -1.0, 5)];
        let bpe = model(&pieces, &BPE).unwrap();
        let texts = |text| bpe.encode(text).unwrap().into_iter().map(|(piece, _)| piece).collect::<Vec<_>>();
        assert_eq!(texts("ab"), ["\u{2581}", "a", "b"]);
    }

    #[test]
    fn unknown_characters_are_one_piece() {
        let unigram = model(&[("<unk>", 0.0, 2), ("\u{2581}", -2.0, 1), ("a", -1.0, 1)], &[]).unwrap();
        assert_eq!(
            unigram.encode("axyza").unwrap().iter().map(|(_, id)| *id).collect::<Vec<_>>(),
            [1, 2, 0, 2]
        );
        assert_eq!(unigram.encode("  ").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let unk = ("<unk>", 0.0, 2);
        for (pieces, trainer, said) in [
            (&[][..], &[][..], "no pieces"),
            (&[("a", 0.0, 1)], &[], "no unknown piece"),
            (&[unk, ("a", 0.0, 1), ("a", 0.0, 1)], &[], "defined twice"),
            (&[unk, ("a", f32::NAN, 1)], &[], "piece 1: its score is not a finite number"),
            (&[unk, ("", 0.0, 1)], &[], "piece 1 is empty"),
            (&[unk, ("a", 0.0, 9)], &[], "its type 9 is unknown"),
            (&[unk], &[3 << 3, 3], "model type is WORD"),
            (&[unk, ("<0x00>", 0.0, 6)], &[], "byte piece \"<0x00>\""),
        ] {
            let error = model(pieces, trainer).unwrap_err();
            assert!(error.contains(said), "{error:?} does not say {said:?}");
        }
    }
}
