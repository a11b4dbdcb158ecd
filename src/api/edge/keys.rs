//! API keys: only their digests are kept, and comparing takes the same time whatever is wrong.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The keys that are let in.
#[derive(Clone, Default)]
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
}

impl ApiKeys {
    /// Keeps the SHA-256 of each key.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self { digests: keys.into_iter().map(digest).collect() }
    }

    /// Whether no key is asked for.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether `key` is one of them. Every digest is compared, whichever matches.
    pub fn contains(&self, key: &str) -> bool {
        let shown = digest(key);
        let found =
            self.digests.iter().fold(subtle::Choice::from(0), |found, known| found | known.ct_eq(&shown));
        found.into()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.digests.len())
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_the_keys_and_nothing_else() {
        let keys = ApiKeys::new(["alpha", "beta"]);
        assert!(keys.contains("alpha") && keys.contains("beta"));
        assert!(!keys.contains("") && !keys.contains("alph") && !keys.contains("alphaa"));
        assert!(!ApiKeys::default().contains(""));
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
    }
}
