//! Tiny checkpoints in the Hugging Face layout, in memory or in a folder.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// A tensor to write: its shape and its values in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Array {
    /// Random values from -1 to 1.
    pub fn random(shape: &[usize], rng: &mut StdRng) -> Self {
        let values = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Self { shape: shape.to_vec(), values }
    }
}

/// Tensors by name.
pub type Arrays = BTreeMap<String, Array>;

/// The parts of a checkpoint before it is written: change them to make a broken one.
#[derive(Debug, Clone)]
pub struct Tiny {
    pub config: Value,
    pub preprocessor: Option<Value>,
    pub arrays: Arrays,
}

/// Which of the tiny checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// SigLIP 1: patch 4, 12 pixels, 3×3 patches.
    SigLip1,
    /// SigLIP 2 NaFlex: patch 4, a position table of 4×4.
    NaFlex,
}

/// Width of both towers.
pub const WIDTH: usize = 8;
/// Hidden width of the MLPs.
pub const MLP: usize = 12;
/// Blocks of each tower.
pub const DEPTH: usize = 2;
/// Attention heads.
pub const HEADS: usize = 2;
/// Side of a patch.
pub const PATCH: usize = 4;
/// Token embeddings.
pub const VOCAB: usize = 19;
/// Context length.
pub const CONTEXT: usize = 5;

impl Tiny {
    /// A checkpoint with both towers.
    pub fn new(family: Family) -> Self {
        let naflex = family == Family::NaFlex;
        let sizes = json!({
            "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
            "intermediate_size": MLP,
        });
        let mut vision = sizes.clone();
        vision["patch_size"] = json!(PATCH);
        if naflex {
            vision["num_patches"] = json!(16);
        } else {
            vision["image_size"] = json!(3 * PATCH);
        }
        let mut text = sizes;
        text["vocab_size"] = json!(VOCAB);
        text["max_position_embeddings"] = json!(CONTEXT);
        let model_type = if naflex { "siglip2" } else { "siglip" };
        Self {
            config: json!({ "model_type": model_type, "vision_config": vision, "text_config": text }),
            preprocessor: None,
            arrays: arrays(naflex),
        }
    }

    /// Its files, as they would be in a folder.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![
            ("config.json".to_string(), self.config.to_string().into_bytes()),
            ("model.safetensors".to_string(), serialize(&self.arrays, Dtype::F32)),
        ];
        if let Some(preprocessor) = &self.preprocessor {
            files.push(("preprocessor_config.json".into(), preprocessor.to_string().into_bytes()));
        }
        files
    }

    /// Writes its files into a folder.
    pub fn write(&self, folder: &Path) {
        for (name, bytes) in self.files() {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

/// The names and shapes by which transformers' `SiglipModel` and `Siglip2Model` save these sizes,
/// written out here and not taken from the program.
fn arrays(naflex: bool) -> Arrays {
    let mut rng = StdRng::seed_from_u64(7);
    let mut arrays = Arrays::new();
    let mut add = |name: String, shape: &[usize]| {
        arrays.insert(name, Array::random(shape, &mut rng));
    };
    let patch: &[usize] = if naflex { &[WIDTH, PATCH * PATCH * 3] } else { &[WIDTH, 3, PATCH, PATCH] };
    add("vision_model.embeddings.patch_embedding.weight".into(), patch);
    add("vision_model.embeddings.patch_embedding.bias".into(), &[WIDTH]);
    let positions = if naflex { 16 } else { 9 };
    add("vision_model.embeddings.position_embedding.weight".into(), &[positions, WIDTH]);
    add("text_model.embeddings.token_embedding.weight".into(), &[VOCAB, WIDTH]);
    add("text_model.embeddings.position_embedding.weight".into(), &[CONTEXT, WIDTH]);
    for tower in ["vision_model", "text_model"] {
        for layer in 0..DEPTH {
            let block = format!("{tower}.encoder.layers.{layer}");
            for norm in ["layer_norm1", "layer_norm2"] {
                add(format!("{block}.{norm}.weight"), &[WIDTH]);
                add(format!("{block}.{norm}.bias"), &[WIDTH]);
            }
            for linear in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                add(format!("{block}.self_attn.{linear}.weight"), &[WIDTH, WIDTH]);
                add(format!("{block}.self_attn.{linear}.bias"), &[WIDTH]);
            }
            add(format!("{block}.mlp.fc1.weight"), &[MLP, WIDTH]);
            add(format!("{block}.mlp.fc1.bias"), &[MLP]);
            add(format!("{block}.mlp.fc2.weight"), &[WIDTH, MLP]);
            add(format!("{block}.mlp.fc2.bias"), &[WIDTH]);
        }
    }
    for norm in ["vision_model.post_layernorm", "text_model.final_layer_norm", "vision_model.head.layernorm"]
    {
        add(format!("{norm}.weight"), &[WIDTH]);
        add(format!("{norm}.bias"), &[WIDTH]);
    }
    let head = "vision_model.head";
    add(format!("{head}.probe"), &[1, 1, WIDTH]);
    add(format!("{head}.attention.in_proj_weight"), &[3 * WIDTH, WIDTH]);
    add(format!("{head}.attention.in_proj_bias"), &[3 * WIDTH]);
    add(format!("{head}.attention.out_proj.weight"), &[WIDTH, WIDTH]);
    add(format!("{head}.attention.out_proj.bias"), &[WIDTH]);
    add(format!("{head}.mlp.fc1.weight"), &[MLP, WIDTH]);
    add(format!("{head}.mlp.fc1.bias"), &[MLP]);
    add(format!("{head}.mlp.fc2.weight"), &[WIDTH, MLP]);
    add(format!("{head}.mlp.fc2.bias"), &[WIDTH]);
    add("text_model.head.weight".into(), &[WIDTH, WIDTH]);
    add("text_model.head.bias".into(), &[WIDTH]);
    add("logit_scale".into(), &[1]);
    add("logit_bias".into(), &[1]);
    arrays
}

/// The bytes of a safetensors file, its values narrowed to `dtype`.
pub fn serialize(arrays: &Arrays, dtype: Dtype) -> Vec<u8> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = arrays
        .iter()
        .map(|(name, array)| (name.clone(), array.shape.clone(), narrow(&array.values, dtype)))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, data)| (name.as_str(), TensorView::new(dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The little-endian bytes of values in another type.
pub fn narrow(values: &[f32], dtype: Dtype) -> Vec<u8> {
    let narrow = |value: &f32| -> Vec<u8> {
        match dtype {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(*value).to_le_bytes().to_vec(),
            Dtype::F16 => half::f16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
            other => panic!("the tests write no {other:?}"),
        }
    };
    values.iter().flat_map(narrow).collect()
}

/// The pieces of a tokenizer that fits [`VOCAB`], with the ids of SigLIP 1: padding, end, unknown.
pub const PIECES: &[&str] =
    &["<pad>", "</s>", "<unk>", "\u{2581}", "a", "c", "t", "\u{2581}a", "\u{2581}cat", "\u{2581}dog"];

/// A SentencePiece model of these pieces (unigram, the first three reserved), written as its protocol buffer.
pub fn sentencepiece(pieces: &[&str]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let kind = |id: usize| match id {
        0 | 1 => 3,
        2 => 2,
        _ => 1,
    };
    let piece = |(id, text): (usize, &&str)| {
        let score = [&[2 << 3 | 5][..], &score(text).to_le_bytes()].concat();
        field(1, &[field(1, text.as_bytes()), score, vec![3 << 3, kind(id)]].concat())
    };
    pieces.iter().enumerate().flat_map(piece).collect()
}

/// The same as a `tokenizer.json`.
pub fn unigram_json(pieces: &[&str]) -> Vec<u8> {
    let vocab: Vec<Value> = pieces.iter().map(|piece| json!([piece, score(piece)])).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true },
        "post_processor": null, "decoder": null,
        "model": { "type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false },
    })
    .to_string()
    .into_bytes()
}

/// Longer pieces are likelier than their parts.
fn score(piece: &str) -> f32 {
    -10.0 / piece.chars().count() as f32
}
