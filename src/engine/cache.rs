//! Embeddings of texts that were asked for before: zero-shot labels are encoded once.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use metrics::Gauge;
use moka::sync::Cache;

use super::Embedding;
use crate::telemetry;
use crate::text::Canonicalization;

/// What identifies the embedding of a text. Made by [`TextCache::key`].
#[derive(Debug)]
pub(super) struct TextKey {
    /// The embedding space: a model's fingerprint.
    space: Arc<str>,
    /// The text.
    pub(super) text: TextSource,
    /// Taken once, when the key is made: keys are compared and looked up under locks, and texts are long.
    hash: u64,
}

impl PartialEq for TextKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.space == other.space && self.text == other.text
    }
}

impl Eq for TextKey {}

impl Hash for TextKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A text before it is tokenised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TextSource {
    /// A string and how to canonicalise it.
    Text(String, Option<Canonicalization>),
    /// Token ids.
    Ids(Vec<u32>),
}

impl TextSource {
    /// Bytes of what was sent.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text, _) => text.len(),
            Self::Ids(ids) => size_of_val(ids.as_slice()),
        }
    }
}

/// Text embeddings of all models, bounded by bytes.
pub(super) struct TextCache {
    hasher: RandomState,
    entries: Option<Cache<Arc<TextKey>, Embedding>>,
    bytes: Gauge,
}

/// What an entry costs besides its text and its vector, about.
const OVERHEAD: usize = 256;

impl TextCache {
    /// A cache of so many bytes; none at all for 0.
    pub(super) fn new(max_bytes: usize) -> Self {
        let entries = (max_bytes > 0).then(|| {
            Cache::builder()
                .max_capacity(max_bytes as u64)
                .weigher(|key: &Arc<TextKey>, value: &Embedding| {
                    let bytes = key.text.bytes() + size_of_val(&*value.vector) + OVERHEAD;
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .build()
        });
        Self { hasher: RandomState::new(), entries, bytes: metrics::gauge!(telemetry::TEXT_CACHE_BYTES) }
    }

    /// The key of a text in an embedding space.
    pub(super) fn key(&self, space: &Arc<str>, text: TextSource) -> Arc<TextKey> {
        let hash = self.hasher.hash_one((space, &text));
        Arc::new(TextKey { space: Arc::clone(space), text, hash })
    }

    /// The embedding, marked as cached.
    pub(super) fn get(&self, key: &Arc<TextKey>) -> Option<Embedding> {
        let found = self.entries.as_ref()?.get(key)?;
        Some(Embedding { cached: true, ..found })
    }

    /// Whether it is there, without counting as a use.
    pub(super) fn contains(&self, key: &Arc<TextKey>) -> bool {
        self.entries.as_ref().is_some_and(|entries| entries.contains_key(key))
    }

    /// Keeps an embedding.
    pub(super) fn insert(&self, key: Arc<TextKey>, embedding: Embedding) {
        if let Some(entries) = &self.entries {
            entries.insert(key, embedding);
            self.bytes.set(entries.weighted_size() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cache: &TextCache, space: &str, text: &str, mode: Option<Canonicalization>) -> Arc<TextKey> {
        cache.key(&space.into(), TextSource::Text(text.to_owned(), mode))
    }

    fn embedding(value: f32, width: usize) -> Embedding {
        let vector = vec![value; width].into();
        Embedding { vector, tokens: 3, size: None, grid: None, truncated: false, cached: false }
    }

    #[test]
    fn an_entry_is_found_by_space_mode_and_text() {
        let cache = TextCache::new(1 << 20);
        let key = |space, text, mode| key(&cache, space, text, mode);
        cache.insert(key("a", "a cat", None), embedding(1.0, 4));
        let found = cache.get(&key("a", "a cat", None)).expect("kept");
        assert!(found.cached && found.tokens == 3 && found.vector[..] == [1.0; 4]);
        assert!(cache.get(&key("b", "a cat", None)).is_none());
        assert!(cache.get(&key("a", "a cat", Some(Canonicalization::None))).is_none());
        assert!(cache.get(&key("a", "A cat", None)).is_none());
        assert!(!cache.contains(&cache.key(&"a".into(), TextSource::Ids(vec![7]))));
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let cache = TextCache::new(64 << 10);
        for i in 0..10_000 {
            cache.insert(key(&cache, "a", &format!("text {i}"), None), embedding(i as f32, 64));
        }
        let entries = cache.entries.as_ref().expect("on");
        entries.run_pending_tasks();
        assert!(entries.weighted_size() <= 64 << 10, "{}", entries.weighted_size());
        assert!(entries.entry_count() > 0);
    }

    #[test]
    fn zero_bytes_turn_it_off() {
        let cache = TextCache::new(0);
        cache.insert(key(&cache, "a", "a cat", None), embedding(1.0, 4));
        assert!(cache.get(&key(&cache, "a", "a cat", None)).is_none());
    }
}
