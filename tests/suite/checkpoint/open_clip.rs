//! The layouts of open_clip and timm.

use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use siglip::testing::checkpoint::{Layout, image_spec, model_spec};
use siglip::testing::image::{Geometry, Grid, Resample};
use siglip::testing::model::{ImagePooling, PositionResize};
use siglip::testing::ops::Activation;

use super::{open_path, open_tiny, values};
use crate::support::tiny::{Array, Arrays, DEPTH, Family, HEADS, MLP, PATCH, Tiny, WIDTH, serialize};

/// Rows of several arrays, one below the other.
fn stack(arrays: &[&Array]) -> Array {
    let mut shape = arrays[0].shape.clone();
    shape[0] = arrays.iter().map(|array| array.shape[0]).sum();
    Array { shape, values: arrays.iter().flat_map(|array| array.values.clone()).collect() }
}

/// The first and the last rows of an array.
fn split(array: &Array, rows: usize) -> (Array, Array) {
    let row = array.values.len() / array.shape[0];
    let part = |rows: usize, values: &[f32]| {
        let mut shape = array.shape.clone();
        shape[0] = rows;
        Array { shape, values: values.to_vec() }
    };
    let (first, last) = array.values.split_at(rows * row);
    (part(rows, first), part(array.shape[0] - rows, last))
}

/// Renames the image tower as timm does.
fn timm(source: &Arrays, naflex: bool) -> Arrays {
    let mut result = Arrays::new();
    let embeds = if naflex { "embeds" } else { "patch_embed" };
    for leaf in ["weight", "bias"] {
        let mut module = |from: &str, to: &str| {
            result.insert(format!("{to}.{leaf}"), source[&format!("vision_model.{from}.{leaf}")].clone());
        };
        module("embeddings.patch_embedding", &format!("{embeds}.proj"));
        module("post_layernorm", "norm");
        module("head.attention.out_proj", "attn_pool.proj");
        module("head.layernorm", "attn_pool.norm");
        module("head.mlp.fc1", "attn_pool.mlp.fc1");
        module("head.mlp.fc2", "attn_pool.mlp.fc2");
        for layer in 0..DEPTH {
            for (from, to) in [
                ("layer_norm1", "norm1"),
                ("layer_norm2", "norm2"),
                ("self_attn.out_proj", "attn.proj"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ] {
                module(&format!("encoder.layers.{layer}.{from}"), &format!("blocks.{layer}.{to}"));
            }
        }
        for layer in 0..DEPTH {
            let qkv = ["q", "k", "v"].map(|name| {
                &source[&format!("vision_model.encoder.layers.{layer}.self_attn.{name}_proj.{leaf}")]
            });
            result.insert(format!("blocks.{layer}.attn.qkv.{leaf}"), stack(&qkv));
        }
        let (q, kv) = split(&source[&format!("vision_model.head.attention.in_proj_{leaf}")], WIDTH);
        result.insert(format!("attn_pool.q.{leaf}"), q);
        result.insert(format!("attn_pool.kv.{leaf}"), kv);
    }
    let mut positions = source["vision_model.embeddings.position_embedding.weight"].clone();
    let table = positions.shape[0];
    positions.shape = if naflex { vec![1, 4, 4, WIDTH] } else { vec![1, table, WIDTH] };
    result.insert(if naflex { "embeds.pos_embed" } else { "pos_embed" }.into(), positions);
    result.insert("attn_pool.latent".into(), source["vision_model.head.probe"].clone());
    result
}

fn timm_config() -> Value {
    json!({
        "architecture": "vit_base_patch16_siglip_224", "num_classes": 0, "global_pool": "map",
        "model_args": {
            "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch_size": PATCH,
            "mlp_ratio": MLP as f64 / WIDTH as f64, "img_size": 3 * PATCH,
        },
        "pretrained_cfg": {
            "tag": "webli", "input_size": [3, 12, 12], "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.9,
        },
    })
}

#[test]
fn timm_towers_are_those_of_the_hugging_face_layout() {
    let source = Tiny::new(Family::SigLip1);
    let expected = open_tiny(&source).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), timm_config().to_string()).unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, serialize(&timm(&source.arrays, false), Dtype::F32)).unwrap();
    let found = open_path(folder.path()).unwrap();
    assert_eq!(found.layout, Layout::Timm);
    assert_eq!(found.spec.image.as_ref().unwrap().encoder.activation, Activation::GeluErf, "as timm runs it");
    assert_eq!(found.image.as_ref().unwrap().geometry, Geometry::Squash { height: 12, width: 12 });
    for tensor in found.spec.tensors() {
        let [one, other] = [&found, &expected].map(|c| values(c, &tensor.name, &tensor.shape));
        assert_eq!(one, other, "{}", tensor.name);
    }
    // Without its head it is the variant that takes the mean.
    let mut arrays = timm(&source.arrays, false);
    arrays.retain(|name, _| !name.starts_with("attn_pool."));
    let mut config = timm_config();
    config["architecture"] = json!("vit_base_patch16_siglip_gap_224.pali_pt");
    config["global_pool"] = json!("avg");
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(&path, serialize(&arrays, Dtype::F32)).unwrap();
    let found = open_path(folder.path()).unwrap();
    assert_eq!(found.spec.image.unwrap().pooling, ImagePooling::Mean);
    // A message names the tensor as the file does.
    arrays.remove("blocks.1.attn.qkv.weight");
    std::fs::write(&path, serialize(&arrays, Dtype::F32)).unwrap();
    let message = open_path(folder.path()).unwrap_err().to_string();
    assert!(message.contains("blocks.1.attn.qkv.weight") && message.contains("[24, 8]"), "{message}");
}

#[test]
fn timm_naflex_keeps_its_grid() {
    let source = Tiny::new(Family::NaFlex);
    let expected = open_tiny(&source).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = timm_config();
    config["architecture"] = json!("naflexvit_base_patch16_siglip");
    config["model_args"].as_object_mut().unwrap().remove("img_size");
    config["pretrained_cfg"]["input_size"] = json!([3, 24, 24]);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    // A tiny table of 4×4 where timm's has 16×16.
    let mut arrays = timm(&source.arrays, true);
    let table = arrays.get_mut("embeds.pos_embed").unwrap();
    let rows: Vec<f32> = (0..16).flat_map(|_| table.values.clone()).collect();
    *table = Array { shape: vec![1, 16, 16, WIDTH], values: rows };
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, serialize(&arrays, Dtype::F32)).unwrap();
    let found = open_path(folder.path()).unwrap();
    let image = found.spec.image.as_ref().unwrap();
    assert_eq!(
        (image.positions, image.position_resize),
        (Grid { rows: 16, cols: 16 }, PositionResize::BilinearAntialias)
    );
    assert_eq!(found.image.as_ref().unwrap().geometry, Geometry::NaFlex { max_num_patches: 36 });
    let name = "vision_model.embeddings.patch_embedding.weight";
    let shape = [WIDTH, PATCH * PATCH * 3];
    assert_eq!(values(&found, name, &shape), values(&expected, name, &shape));
}

/// A configuration as open_clip publishes it.
fn open_clip_config(name: &str, side: usize, text: Value) -> Value {
    json!({
        "model_cfg": {
            "embed_dim": 768, "init_logit_bias": -10, "custom_text": true,
            "vision_cfg": {
                "image_size": side, "timm_model_name": name, "timm_model_pretrained": false,
                "timm_pool": "map", "timm_proj": "none",
            },
            "text_cfg": text,
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash",
        },
    })
}

fn text_config() -> Value {
    json!({
        "context_length": 5, "vocab_size": 19, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": { "clean": "canonicalize" }, "width": WIDTH, "heads": HEADS, "layers": DEPTH,
        "mlp_ratio": 1.5, "no_causal_mask": true, "proj_bias": true, "pool_type": "last",
        "norm_kwargs": { "eps": 1e-6 },
    })
}

#[test]
fn activations_are_those_that_open_clip_runs() {
    let spec = |name: &str, side, text| {
        model_spec("open_clip_config.json", open_clip_config(name, side, text).to_string().as_bytes())
            .unwrap()
    };
    let first = spec("vit_base_patch16_siglip_224", 224, text_config());
    let mut tanh = text_config();
    tanh["act_kwargs"] = json!({ "approximate": "tanh" });
    let second = spec("vit_base_patch32_siglip_256", 256, tanh);
    let activations = |spec: &siglip::testing::model::ModelSpec| {
        (spec.image.as_ref().unwrap().encoder.activation, spec.text.as_ref().unwrap().encoder.activation)
    };
    assert_eq!(activations(&first), (Activation::GeluErf, Activation::GeluErf));
    assert_eq!(activations(&second), (Activation::GeluTanh, Activation::GeluTanh));
    assert_eq!(second.image.unwrap().patch, 32);
}

#[test]
fn what_is_not_siglip_is_refused() {
    let refused = |change: fn(&mut Value)| {
        let mut config = open_clip_config("vit_base_patch16_siglip_224", 224, text_config());
        change(&mut config["model_cfg"]);
        model_spec("open_clip_config.json", config.to_string().as_bytes()).unwrap_err().to_string()
    };
    for (message, expected) in [
        (
            refused(|c| c["vision_cfg"]["timm_model_name"] = json!("vit_base_patch16_clip_224")),
            "vit_base_patch16_clip_224",
        ),
        (refused(|c| c["text_cfg"]["no_causal_mask"] = json!(false)), "causal"),
        (refused(|c| c["text_cfg"]["hf_model_name"] = json!("facebook/nllb")), "facebook/nllb"),
        (refused(|c| c["text_cfg"]["pool_type"] = json!("argmax")), "expected last"),
        (refused(|c| c["vision_cfg"]["timm_proj"] = json!("linear")), "no projection"),
        (refused(|c| c["embed_dim"] = json!(512)), "embed_dim"),
        (refused(|c| c["text_cfg"] = json!(null)), "text_cfg"),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

/// An image tower of the real width, since open_clip's configuration names it by its size, with a
/// tiny text tower beside it: both are read through their names.
#[test]
fn open_clip_holds_both_towers() {
    let source = Tiny::new(Family::SigLip1);
    let config = open_clip_config("vit_base_patch16_siglip_224", 224, text_config());
    let bytes = config.to_string();
    let spec = model_spec("open_clip_config.json", bytes.as_bytes()).unwrap();
    let mut arrays = Arrays::new();
    // Zeros for the image tower: what matters is that every name is found.
    let zeros = |shape: &[usize]| Array { shape: shape.to_vec(), values: vec![0.0; shape.iter().product()] };
    for layer in 0..12 {
        let block = format!("visual.trunk.blocks.{layer}");
        for (name, rows, cols) in
            [("attn.qkv", 2304, 768), ("attn.proj", 768, 768), ("mlp.fc1", 3072, 768), ("mlp.fc2", 768, 3072)]
        {
            arrays.insert(format!("{block}.{name}.weight"), zeros(&[rows, cols]));
            arrays.insert(format!("{block}.{name}.bias"), zeros(&[rows]));
        }
        for norm in ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"] {
            arrays.insert(format!("{block}.{norm}"), zeros(&[768]));
        }
    }
    for (name, shape) in [
        ("patch_embed.proj.weight", &[768, 3, 16, 16][..]),
        ("patch_embed.proj.bias", &[768]),
        ("pos_embed", &[1, 196, 768]),
        ("norm.weight", &[768]),
        ("norm.bias", &[768]),
        ("attn_pool.latent", &[1, 1, 768]),
        ("attn_pool.q.weight", &[768, 768]),
        ("attn_pool.q.bias", &[768]),
        ("attn_pool.kv.weight", &[1536, 768]),
        ("attn_pool.kv.bias", &[1536]),
        ("attn_pool.proj.weight", &[768, 768]),
        ("attn_pool.proj.bias", &[768]),
        ("attn_pool.norm.weight", &[768]),
        ("attn_pool.norm.bias", &[768]),
        ("attn_pool.mlp.fc1.weight", &[3072, 768]),
        ("attn_pool.mlp.fc1.bias", &[3072]),
        ("attn_pool.mlp.fc2.weight", &[768, 3072]),
        ("attn_pool.mlp.fc2.bias", &[768]),
    ] {
        arrays.insert(format!("visual.trunk.{name}"), zeros(shape));
    }
    let text = |name: &str| source.arrays[&format!("text_model.{name}")].clone();
    arrays.insert("text.token_embedding.weight".into(), text("embeddings.token_embedding.weight"));
    arrays.insert("text.positional_embedding".into(), text("embeddings.position_embedding.weight"));
    for leaf in ["weight", "bias"] {
        arrays.insert(format!("text.ln_final.{leaf}"), text(&format!("final_layer_norm.{leaf}")));
        for layer in 0..DEPTH {
            let (from, to) =
                (format!("encoder.layers.{layer}"), format!("text.transformer.resblocks.{layer}"));
            for (old, new) in [
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("self_attn.out_proj", "attn.out_proj"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ] {
                arrays.insert(format!("{to}.{new}.{leaf}"), text(&format!("{from}.{old}.{leaf}")));
            }
            let qkv = ["q", "k", "v"].map(|name| text(&format!("{from}.self_attn.{name}_proj.{leaf}")));
            arrays.insert(format!("{to}.attn.in_proj_{leaf}"), stack(&qkv.each_ref()));
        }
    }
    arrays.insert("text.text_projection.weight".into(), zeros(&[768, WIDTH]));
    arrays.insert("text.text_projection.bias".into(), zeros(&[768]));
    for name in ["logit_scale", "logit_bias"] {
        arrays.insert(name.into(), Array { shape: vec![], values: source.arrays[name].values.clone() });
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("open_clip_config.json"), bytes).unwrap();
    std::fs::write(folder.path().join("open_clip_model.safetensors"), serialize(&arrays, Dtype::BF16))
        .unwrap();
    let found = open_path(folder.path()).unwrap();
    assert_eq!((found.layout, &found.spec), (Layout::OpenClip, &spec));
    assert_eq!(found.image.as_ref().unwrap().resample, Resample::Bicubic);
    let narrow = |name: &str| -> Vec<f32> {
        source.arrays[name].values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
    };
    for tensor in found.spec.tensors().iter().filter(|tensor| tensor.name.starts_with("text_model.")) {
        if !tensor.name.contains(".head.") {
            assert_eq!(values(&found, &tensor.name, &tensor.shape), narrow(&tensor.name), "{}", tensor.name);
        }
    }
    assert_eq!(values(&found, "logit_scale", &[1]), narrow("logit_scale"));
}

/// `transform.py`, `PreprocessCfg`: what a fine-tune that was saved without its preprocessing runs with in open_clip.
#[test]
fn missing_preprocessing_is_open_clips_own() {
    let image = |preprocess: Value| {
        let mut config = open_clip_config("vit_base_patch16_siglip_224", 224, text_config());
        match preprocess {
            Value::Null => drop(config.as_object_mut().unwrap().remove("preprocess_cfg")),
            some => config["preprocess_cfg"] = some,
        }
        image_spec("open_clip_config.json", config.to_string().as_bytes())
    };
    let bare = image(Value::Null).unwrap().unwrap();
    assert_eq!(bare.geometry, Geometry::Crop { side: 224 });
    assert_eq!((bare.mean, bare.std[2]), ([0.48145466, 0.4578275, 0.40821073], 0.275_777_1));
    let squashed = image(json!({ "resize_mode": "squash", "mean": [0.5, 0.5, 0.5] })).unwrap().unwrap();
    assert_eq!(squashed.geometry, Geometry::Squash { height: 224, width: 224 });
    assert_eq!((squashed.mean, squashed.std[0]), ([0.5; 3], 0.26862954));
    let error = image(json!({ "resize_mode": "longest" })).unwrap_err().to_string();
    assert!(error.contains("preprocess_cfg.resize_mode") && error.contains("longest"), "{error}");
}
