//! Each way in which a checkpoint can be broken gives one error that names the file, the tensor or
//! the field, and what was expected and found. Nothing panics on any file.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use siglip::testing::checkpoint::{Checkpoint, CheckpointError};
use siglip::testing::model::Weights;

use super::{open_path, open_tiny};
use crate::support::tiny::{Array, Family, Tiny, WIDTH};

const FC1: &str = "text_model.encoder.layers.1.mlp.fc1.weight";

/// Opens a tiny checkpoint after a change, and gives the message.
fn message(change: impl FnOnce(&mut Tiny)) -> String {
    let mut tiny = Tiny::new(Family::SigLip1);
    change(&mut tiny);
    open_tiny(&tiny).unwrap_err().to_string()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_missing_tensor() {
    let found = message(|tiny| {
        tiny.arrays.remove(FC1);
    });
    assert_says(&found, &["model.safetensors", FC1, "[12, 8]"]);
}

#[test]
fn an_extra_tensor() {
    let extra = Array { shape: vec![2, 3], values: vec![0.0; 6] };
    let found = message(|tiny| {
        tiny.arrays.insert("vision_model.extra".into(), extra.clone());
        tiny.arrays.insert("vision_model.extra2".into(), extra.clone());
    });
    assert_says(&found, &["model.safetensors", "vision_model.extra", "[2, 3]", "1 more"]);
    // Buffers that old versions saved are not extra.
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.arrays.insert("vision_model.embeddings.position_ids".into(), extra);
    open_tiny(&tiny).unwrap();
}

#[test]
fn a_misshapen_tensor() {
    let found = message(|tiny| {
        let array = tiny.arrays.get_mut(FC1).unwrap();
        array.shape = vec![WIDTH, 12];
    });
    assert_says(&found, &["model.safetensors", FC1, "[12, 8]", "[8, 12]"]);
}

#[test]
fn a_config_that_contradicts_the_weights() {
    let found = message(|tiny| tiny.config["vision_config"]["intermediate_size"] = json!(16));
    assert_says(&found, &["model.safetensors", "expected shape [16, 8], found [12, 8]"]);
    let found = message(|tiny| tiny.config["vision_config"]["num_hidden_layers"] = json!(3));
    assert_says(&found, &["no tensor \"vision_model.encoder.layers.2."]);
    let found = message(|tiny| tiny.config["vision_config"]["num_hidden_layers"] = json!(1));
    assert_says(&found, &["unexpected tensor \"vision_model.encoder.layers.1."]);
    let found = message(|tiny| tiny.config["text_config"]["projection_size"] = json!(5));
    assert_says(&found, &["config.json", "projection_size is 5", "hidden_size is 8"]);
}

#[test]
fn a_type_that_is_not_a_float() {
    let tiny = Tiny::new(Family::SigLip1);
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    // The first type in the header: four bytes to a value, as before, but whole numbers.
    let at = bytes.windows(5).position(|window| window == b"\"F32\"").unwrap();
    let mut bytes = bytes;
    bytes[at + 1] = b'I';
    std::fs::write(&path, bytes).unwrap();
    let found = open_path(folder.path()).unwrap_err();
    assert!(matches!(found, CheckpointError::Dtype { .. }), "{found}");
    assert_says(&found.to_string(), &["model.safetensors", "i32"]);
}

#[test]
fn a_truncated_file() {
    let tiny = Tiny::new(Family::SigLip1);
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 200] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let found = open_path(folder.path()).unwrap_err();
        assert!(matches!(found, CheckpointError::Truncated { .. }), "{length}: {found}");
        assert_says(&found.to_string(), &["model.safetensors", &length.to_string()]);
    }
    for length in [0, 7] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let found = open_path(folder.path()).unwrap_err();
        assert!(matches!(found, CheckpointError::Header { .. }), "{length}: {found}");
    }
}

#[test]
fn unknown_architectures() {
    let found = message(|tiny| tiny.config["model_type"] = json!("bert"));
    assert_says(&found, &["config.json", "bert", "siglip2", "paligemma"]);
    let found = message(|tiny| {
        tiny.config["model_type"] = json!("paligemma");
        tiny.config["vision_config"]["model_type"] = json!("clip_vision_model");
    });
    assert_says(&found, &["clip_vision_model"]);
}

#[test]
fn fields_that_cannot_be_used() {
    for (tower, field, value, expected) in [
        ("vision_config", "hidden_size", json!("8"), "a whole number"),
        ("vision_config", "hidden_size", json!(0), "a whole number"),
        ("vision_config", "hidden_size", json!(u64::MAX), "a whole number"),
        ("vision_config", "num_attention_heads", json!(3), "do not divide"),
        ("vision_config", "patch_size", json!([4, 5]), "square patch"),
        ("vision_config", "image_size", json!(3), "holds no patch"),
        ("vision_config", "num_channels", json!(1), "expected 3"),
        ("vision_config", "hidden_act", json!("relu"), "unknown activation"),
        ("text_config", "layer_norm_eps", json!(true), "a number"),
    ] {
        let found = message(|tiny| tiny.config[tower][field] = value);
        assert_says(&found, &["config.json", &format!("{tower}.{field}"), expected]);
    }
    for (name, value, expected) in [
        ("do_resize", json!(false), "do_resize"),
        ("resample", json!(9), "from 0 to 5"),
        ("size", json!({ "shortest_edge": 224 }), "height and width"),
        ("size", json!(16), "position table is 3×3"),
        ("image_std", json!([0.5, 0, 0.5]), "cannot be 0"),
        ("image_mean", json!([0.5]), "three numbers"),
        ("image_processor_type", json!("CLIPImageProcessor"), "SiglipImageProcessor"),
    ] {
        let found = message(|tiny| tiny.preprocessor = Some(json!({ name: value })));
        assert_says(&found, &["preprocessor_config.json", expected]);
    }
}

#[test]
fn folders_without_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    assert_says(&open_path(folder.path()).unwrap_err().to_string(), &["no config.json"]);
    assert_says(&open_path(&folder.path().join("x")).unwrap_err().to_string(), &["no such file or folder"]);
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    assert_says(&open_path(folder.path()).unwrap_err().to_string(), &["config.json", "not valid JSON"]);
    std::fs::write(folder.path().join("config.json"), "[]").unwrap();
    assert_says(&open_path(folder.path()).unwrap_err().to_string(), &["expected an object"]);
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert_says(&open_path(folder.path()).unwrap_err().to_string(), &["neither model_type"]);
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "siglip"}"#).unwrap();
    assert_says(&open_path(folder.path()).unwrap_err().to_string(), &["model.safetensors"]);
}

#[test]
fn shard_names_stay_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "siglip"}"#).unwrap();
    for name in ["../model.safetensors", "/etc/passwd", "a/b", ".hidden", ""] {
        let index = json!({ "weight_map": { "logit_scale": name } }).to_string();
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        assert_says(&open_path(folder.path()).unwrap_err().to_string(), &["not a plain file name"]);
    }
}

/// Reads every tensor of a checkpoint that opened.
fn read_all(checkpoint: &Checkpoint) {
    for tensor in checkpoint.spec.tensors() {
        let _ = checkpoint.weights.tensor(&tensor.name, &tensor.shape);
    }
}

/// Opens a folder again and again, one of its files damaged in another way each time.
pub fn fuzz(folder: &Path, file: &str, rounds: usize, header: usize) {
    let path = folder.join(file);
    let original = std::fs::read(&path).unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..rounds {
        let mut bytes = original.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = match rng.random_bool(0.8) {
                true => rng.random_range(0..bytes.len().min(header)),
                false => rng.random_range(0..bytes.len()),
            };
            match rng.random_range(0..5) {
                0 => bytes[at] = rng.random(),
                1 => bytes[at] ^= 1 << rng.random_range(0..8),
                2 => bytes.truncate(at.max(1)),
                3 => {
                    let digit = b"0123456789-eE.\"[]{},:"[rng.random_range(0..21)];
                    bytes.insert(at, digit);
                }
                _ => {
                    let end = (at + rng.random_range(1..9)).min(bytes.len());
                    let value = if rng.random_bool(0.5) { 0xff } else { 0 };
                    bytes[at..end].fill(value);
                }
            }
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(checkpoint) = open_path(folder) {
            read_all(&checkpoint);
        }
    }
    std::fs::write(&path, original).unwrap();
    read_all(&open_path(folder).unwrap());
}

#[test]
fn no_damage_panics() {
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.preprocessor = Some(json!({ "size": { "height": 12, "width": 12 }, "image_std": [0.5, 0.5, 0.5] }));
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    fuzz(folder.path(), "config.json", 600, usize::MAX);
    fuzz(folder.path(), "preprocessor_config.json", 300, usize::MAX);
    fuzz(folder.path(), "model.safetensors", 600, 9000);
}

/// Puts every kind of value in every field of a configuration.
#[test]
fn no_field_panics() {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1e300),
        json!(u64::MAX),
        json!(65536),
        json!(1 << 24),
        json!("x"),
        json!([]),
        json!([1, 2]),
        json!({}),
        json!({ "height": 0 }),
    ];
    let tiny = Tiny::new(Family::NaFlex);
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    let mut paths =
        vec![vec!["model_type".to_string()], vec!["vision_config".into()], vec!["text_config".into()]];
    for tower in ["vision_config", "text_config"] {
        for field in tiny.config[tower].as_object().unwrap().keys() {
            paths.push(vec![tower.into(), field.clone()]);
        }
    }
    for path in paths {
        for value in &values {
            let mut config: Value = tiny.config.clone();
            let place = path.iter().fold(&mut config, |place, name| &mut place[name]);
            *place = value.clone();
            std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
            if let Ok(checkpoint) = open_path(folder.path()) {
                read_all(&checkpoint);
            }
        }
    }
}
