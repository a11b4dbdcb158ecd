//! What files and streams of embeddings say of the model that made them.

use serde_json::json;

use crate::pipeline::ModelInfo;

/// The key of the embedding space: vectors with one value may be compared.
pub const FINGERPRINT: &str = "siglip.fingerprint";
/// The key of the model's name.
pub const MODEL: &str = "siglip.model";
/// The key that says whether vectors have the length 1.
pub const NORMALIZED: &str = "siglip.normalized";

/// Keys and values, as Arrow and Parquet keep them: the fingerprint of the embedding space, the model and its arithmetic, the
/// preprocessing as JSON, whether vectors have the length 1, and the version of this program.
pub fn facts(info: &ModelInfo, max_num_patches: Option<usize>, normalize: bool) -> Vec<(String, String)> {
    let preprocessing = json!({
        "image": info.image,
        "image_decode": info.image_decode,
        "max_num_patches": max_num_patches,
        "text": info.text,
    });
    let fact = |key: &str, value: String| (key.to_owned(), value);
    vec![
        fact(FINGERPRINT, info.fingerprint_with(None, max_num_patches)),
        fact(MODEL, info.name.clone()),
        fact("siglip.source", info.source.clone()),
        fact("siglip.dtype", info.dtype.name().to_owned()),
        fact("siglip.preprocessing", preprocessing.to_string()),
        fact(NORMALIZED, normalize.to_string()),
        fact("siglip.version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}
