//! Vectors that `siglip embed` wrote, searched without an index: all of them are compared, in blocks, by all threads.

mod dedup;
mod load;
mod search;

use rayon::prelude::*;

pub use dedup::{Duplicate, duplicates};
pub use load::load;
pub use search::search;

use crate::model::scores::l2_normalize;

/// Vectors of length 1 with their names.
#[derive(Debug, Default)]
pub struct Vectors {
    /// `[rows, width]`
    pub values: Vec<f32>,
    /// Numbers of a vector.
    pub width: usize,
    /// What each is called.
    pub names: Vec<String>,
    /// The embedding space, where the files say it.
    pub fingerprint: Option<String>,
    /// The model, likewise.
    pub model: Option<String>,
}

impl Vectors {
    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Gives every vector the length 1, so that a product is a cosine.
    fn normalize(&mut self) {
        self.values.par_chunks_exact_mut(self.width.max(1)).for_each(|row| {
            let square: f32 = row.iter().map(|value| value * value).sum();
            // Those that have it stay as they are, bit by bit.
            if (square - 1.0).abs() > 1e-5 {
                l2_normalize(row);
            }
        });
    }
}

/// A name in a line of a table: tabs and line breaks would be read as the next column or row.
pub fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

/// The name of an [`escaped`] one.
fn unescaped(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('t') => name.push('\t'),
                Some('n') => name.push('\n'),
                Some('r') => name.push('\r'),
                Some(other) => name.push(other),
                None => name.push('\\'),
            },
            c => name.push(c),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_line() {
        for name in ["plain", "a\tb\nc\rd", r"back\slash", r"\n"] {
            assert!(!escaped(name).contains(['\t', '\n', '\r']));
            assert_eq!(unescaped(&escaped(name)), name);
        }
    }
}
