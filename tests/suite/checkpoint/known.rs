//! The public checkpoints load by the spec alone: for each, the `config.json` that its repository
//! has (only what differs from the defaults) gives towers of the published size.

use serde_json::{Map, Value, json};
use siglip::testing::checkpoint::known::{self, Known};
use siglip::testing::checkpoint::model_spec;
use siglip::testing::model::ModelSpec;

/// Width, depth, heads, MLP.
fn sizes(tower: &str) -> (usize, usize, usize, usize) {
    match tower {
        "base" => (768, 12, 12, 3072),
        "large" => (1024, 24, 16, 4096),
        "so400m" => (1152, 27, 16, 4304),
        "giant-opt" => (1536, 40, 16, 6144),
        other => panic!("no tower is {other}"),
    }
}

/// What `config.json` says of a tower: nothing that is a default of transformers.
fn tower(size: &str) -> Map<String, Value> {
    let (width, depth, heads, mlp) = sizes(size);
    let mut config = Map::new();
    for (name, value, default) in [
        ("hidden_size", width, 768),
        ("num_hidden_layers", depth, 12),
        ("num_attention_heads", heads, 12),
        ("intermediate_size", mlp, 3072),
    ] {
        if value != default {
            config.insert(name.into(), json!(value));
        }
    }
    config
}

fn config(known: &Known) -> Value {
    let mut vision = tower(&known.image_tower);
    let mut text = tower(&known.text_tower);
    if known.patch != 16 {
        vision.insert("patch_size".into(), json!(known.patch));
    }
    if let Some(side) = known.image.filter(|side| *side != 224) {
        vision.insert("image_size".into(), json!(side));
    }
    if known.vocab != 32000 {
        text.insert("vocab_size".into(), json!(known.vocab));
    }
    if known.context != 64 {
        text.insert("max_position_embeddings".into(), json!(known.context));
    }
    if known.projection != sizes(&known.text_tower).0 {
        text.insert("projection_size".into(), json!(known.projection));
    }
    let model_type = if known.image.is_some() { "siglip" } else { "siglip2" };
    json!({ "model_type": model_type, "vision_config": vision, "text_config": text })
}

fn millions(spec: &ModelSpec) -> f64 {
    spec.parameters() as f64 / 1e6
}

#[test]
fn all_public_checkpoints_have_their_published_sizes() {
    assert_eq!(known::all().len(), 27);
    for known in known::all() {
        let spec = model_spec(&known.name, config(known).to_string().as_bytes()).unwrap();
        let image = ModelSpec { text: None, scores: false, ..spec.clone() };
        let text = ModelSpec { image: None, scores: false, ..spec.clone() };
        for (part, found, expected) in [
            ("image", millions(&image), known.millions.image),
            ("text", millions(&text), known.millions.text),
            ("total", millions(&spec), known.millions.total),
        ] {
            assert!((found - expected).abs() <= 0.01, "{} {part}: {found:.3}, not {expected}", known.name);
        }
        assert_eq!(spec.embedding_dim(), known.projection, "{}", known.name);
        let tokens = spec.image.as_ref().unwrap().positions.len();
        assert_eq!(tokens, known.tokens.unwrap_or(256), "{}", known.name);
    }
}

#[test]
fn names_find_their_checkpoint() {
    for known in known::all() {
        for name in [&known.name, &known.open_clip, &format!("timm/{}", known.open_clip), &known.npz] {
            assert_eq!(known::find(name).unwrap().name, known.name);
        }
    }
    assert!(known::find("google/siglip-huge").is_none());
}
