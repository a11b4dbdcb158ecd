//! Byte-pair encoding: the best-scored pair is merged first, the leftmost of equals.
//!
//! Source: `SampleEncode` in `bpe_model.cc` of google/sentencepiece, without sampling.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::proto::PieceType;
use super::vocabulary::Vocabulary;

struct Symbol {
    prev: Option<usize>,
    next: Option<usize>,
    start: usize,
    /// 0 once merged into its left neighbour.
    length: usize,
    /// A user-defined symbol: never merged.
    frozen: bool,
}

struct Pair {
    score: f32,
    left: usize,
    right: usize,
    length: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}
impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Pair {}

struct Merger<'a> {
    vocabulary: &'a Vocabulary,
    text: &'a str,
    symbols: Vec<Symbol>,
    agenda: BinaryHeap<Pair>,
    /// The halves of merged pieces that may not be used themselves.
    unused: HashMap<&'a str, (&'a str, &'a str)>,
}

impl<'a> Merger<'a> {
    fn piece(&self, index: usize) -> &'a str {
        let symbol = &self.symbols[index];
        &self.text[symbol.start..symbol.start + symbol.length]
    }

    fn offer(&mut self, left: Option<usize>, right: Option<usize>) {
        let (Some(left), Some(right)) = (left, right) else { return };
        let (a, b) = (&self.symbols[left], &self.symbols[right]);
        if a.frozen || b.frozen {
            return;
        }
        let length = a.length + b.length;
        let merged = &self.text[a.start..a.start + length];
        let Some(id) = self.vocabulary.usable(merged) else { return };
        let piece = self.vocabulary.piece(id);
        if piece.kind == PieceType::Unused {
            self.unused.insert(merged, (self.piece(left), self.piece(right)));
        }
        self.agenda.push(Pair { score: piece.score, left, right, length });
    }
}

/// Pushes the pieces of `text` (normalised) to `out`, in order.
pub(super) fn encode<'a>(vocabulary: &'a Vocabulary, text: &'a str, out: &mut Vec<(&'a str, u32)>) {
    let mut merger =
        Merger { vocabulary, text, symbols: Vec::new(), agenda: BinaryHeap::new(), unused: HashMap::new() };
    let mut start = 0;
    while let Some(character) = text[start..].chars().next() {
        let user_defined = vocabulary.user_defined.longest_prefix(&text[start..]);
        let length = user_defined.unwrap_or(character.len_utf8());
        let index = merger.symbols.len();
        let next = (start + length < text.len()).then_some(index + 1);
        merger.symbols.push(Symbol {
            prev: index.checked_sub(1),
            next,
            start,
            length,
            frozen: user_defined.is_some(),
        });
        start += length;
    }
    for right in 1..merger.symbols.len() {
        merger.offer(Some(right - 1), Some(right));
    }
    while let Some(Pair { left, right, length, .. }) = merger.agenda.pop() {
        let (a, b) = (merger.symbols[left].length, merger.symbols[right].length);
        if a == 0 || b == 0 || a + b != length {
            continue;
        }
        let after = merger.symbols[right].next;
        merger.symbols[right].length = 0;
        merger.symbols[left].length = length;
        merger.symbols[left].next = after;
        if let Some(after) = after {
            merger.symbols[after].prev = Some(left);
        }
        merger.offer(merger.symbols[left].prev, Some(left));
        merger.offer(Some(left), after);
    }
    let mut index = (!merger.symbols.is_empty()).then_some(0);
    let mut stack = Vec::new();
    while let Some(at) = index {
        stack.push(merger.piece(at));
        while let Some(piece) = stack.pop() {
            let id = vocabulary.id(piece).unwrap_or(vocabulary.unknown);
            match merger.unused.get(piece) {
                Some(&(left, right)) if vocabulary.piece(id).kind == PieceType::Unused => {
                    stack.push(right);
                    stack.push(left);
                }
                _ => out.push((piece, id)),
            }
        }
        index = merger.symbols[at].next;
    }
}
