//! The unigram language model: the most probable segmentation.
//!
//! Source: `EncodeOptimized` in `unigram_model.cc` of google/sentencepiece, its mix of single and
//! double precision included: ties are decided by it.

use super::proto::PieceType;
use super::vocabulary::Vocabulary;

const UNKNOWN_PENALTY: f32 = 10.0;

#[derive(Clone, Copy)]
struct Node {
    id: u32,
    score: f32,
    start: usize,
}

/// Score range of the normal pieces.
#[derive(Debug)]
pub(super) struct Unigram {
    min: f32,
    max: f32,
}

impl Unigram {
    pub fn new(vocabulary: &Vocabulary) -> Self {
        // C++'s FLT_MIN is the smallest positive float: kept, as it decides user-defined scores.
        let (mut min, mut max) = (f32::MAX, f32::MIN_POSITIVE);
        for piece in vocabulary.pieces().iter().filter(|piece| piece.kind == PieceType::Normal) {
            min = min.min(piece.score);
            max = max.max(piece.score);
        }
        Self { min, max }
    }

    /// Pushes the pieces of `text` (normalised) to `out`, in order.
    pub fn encode<'a>(&self, vocabulary: &Vocabulary, text: &'a str, out: &mut Vec<(&'a str, u32)>) {
        let mut best: Vec<Option<Node>> = vec![None; text.len() + 1];
        let unknown_score = self.min - UNKNOWN_PENALTY;
        for (start, character) in text.char_indices() {
            let so_far = best[start].map_or(0.0, |node| node.score);
            let character = character.len_utf8();
            let mut single = false;
            vocabulary.trie.prefixes(&text[start..], |length, id| {
                let piece = vocabulary.piece(id);
                let score = match piece.kind {
                    PieceType::Unused => return,
                    PieceType::UserDefined => f64::from(length as f32 * self.max) - 0.1,
                    _ => f64::from(piece.score),
                };
                let candidate = score + f64::from(so_far);
                let target = &mut best[start + length];
                if target.is_none_or(|node| candidate > f64::from(node.score)) {
                    *target = Some(Node { id, score: candidate as f32, start });
                }
                single |= length == character;
            });
            if !single {
                let candidate = unknown_score + so_far;
                let target = &mut best[start + character];
                if target.is_none_or(|node| candidate > node.score) {
                    *target = Some(Node { id: vocabulary.unknown, score: candidate, start });
                }
            }
        }
        let first = out.len();
        let mut end = text.len();
        while let Some(node) = best[end].filter(|_| end > 0) {
            out.push((&text[node.start..end], node.id));
            end = node.start;
        }
        out[first..].reverse();
    }
}
