//! The Hugging Face layout.

use safetensors::tensor::Dtype;
use serde_json::json;
use siglip::testing::checkpoint::{Files, Layout, Wanted, open_files};
use siglip::testing::image::{Geometry, Grid, Resample};
use siglip::testing::model::{ImagePooling, PositionResize, Scores, Weights};
use siglip::testing::text::{Canonicalization, TextFamily};

use super::{assert_same, open_path, open_tiny, values};
use crate::support::tiny::{self, Arrays, Family, MLP, PATCH, Tiny, VOCAB, WIDTH};

#[test]
fn both_families_open_with_their_defaults() {
    let first = open_tiny(&Tiny::new(Family::SigLip1)).unwrap();
    let image = first.spec.image.as_ref().unwrap();
    assert_eq!(first.layout, Layout::HuggingFace);
    assert_eq!((image.patch, image.positions), (PATCH, Grid { rows: 3, cols: 3 }));
    assert_eq!((image.pooling, image.position_resize), (ImagePooling::MapHead, PositionResize::Bicubic));
    let pictures = first.image.unwrap();
    assert_eq!(pictures.geometry, Geometry::Squash { height: 12, width: 12 });
    assert_eq!(pictures.resample, Resample::Bicubic);
    let text = first.text.unwrap();
    assert_eq!(text.canonicalization, Canonicalization::Hf);
    assert_eq!(text.family, TextFamily::SigLip2, "an unknown vocabulary without a tokenizer");
    assert!(first.tokenizer.json.is_none());

    let second = open_tiny(&Tiny::new(Family::NaFlex)).unwrap();
    assert_eq!(second.spec.image.unwrap().position_resize, PositionResize::BilinearAntialias);
    assert_eq!(second.image.unwrap().geometry, Geometry::NaFlex { max_num_patches: 256 });
}

#[test]
fn weights_come_under_canonical_names_and_shapes() {
    let tiny = Tiny::new(Family::SigLip1);
    let checkpoint = open_tiny(&tiny).unwrap();
    for (name, array) in &tiny.arrays {
        if name != "vision_model.embeddings.patch_embedding.weight" {
            assert_eq!(values(&checkpoint, name, &array.shape), array.values, "{name}");
        }
    }
    // The convolution's (channel, y, x) becomes (y, x, channel).
    let name = "vision_model.embeddings.patch_embedding.weight";
    let conv = &tiny.arrays[name].values;
    let linear = values(&checkpoint, name, &[WIDTH, PATCH * PATCH * 3]);
    let at = |out: usize, y: usize, x: usize, channel: usize| {
        (
            linear[((out * PATCH + y) * PATCH + x) * 3 + channel],
            conv[((out * 3 + channel) * PATCH + y) * PATCH + x],
        )
    };
    for (out, y, x, channel) in [(0, 0, 0, 1), (3, 1, 2, 0), (7, 3, 3, 2)] {
        let (found, expected) = at(out, y, x, channel);
        assert_eq!(found, expected);
    }
    let total: usize = tiny.arrays.values().map(|array| array.values.len()).sum();
    assert_eq!(checkpoint.spec.parameters(), total);
}

#[test]
fn narrow_types_are_widened() {
    for (dtype, name) in [(Dtype::F16, "f16"), (Dtype::BF16, "bf16"), (Dtype::F64, "f64")] {
        let tiny = Tiny::new(Family::SigLip1);
        let folder = tempfile::tempdir().unwrap();
        tiny.write(folder.path());
        std::fs::write(folder.path().join("model.safetensors"), tiny::serialize(&tiny.arrays, dtype))
            .unwrap();
        let checkpoint = open_path(folder.path()).unwrap();
        assert_eq!(checkpoint.weights.dtypes(), [name]);
        let tensor = "text_model.encoder.layers.1.mlp.fc1.weight";
        let expected: Vec<f32> = match dtype {
            Dtype::F16 => {
                tiny.arrays[tensor].values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect()
            }
            Dtype::BF16 => {
                tiny.arrays[tensor].values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect()
            }
            _ => tiny.arrays[tensor].values.clone(),
        };
        assert_eq!(values(&checkpoint, tensor, &[MLP, WIDTH]), expected);
    }
}

#[test]
fn sharded_weights_are_one_set() {
    let tiny = Tiny::new(Family::SigLip1);
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let mut shards = [Arrays::new(), Arrays::new()];
    let mut map = serde_json::Map::new();
    for (index, (name, array)) in tiny.arrays.iter().enumerate() {
        shards[index % 2].insert(name.clone(), array.clone());
        map.insert(name.clone(), json!(format!("model-{}.safetensors", index % 2)));
    }
    for (index, shard) in shards.iter().enumerate() {
        let path = folder.path().join(format!("model-{index}.safetensors"));
        std::fs::write(path, tiny::serialize(shard, Dtype::F32)).unwrap();
    }
    let index = json!({ "weight_map": map }).to_string();
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let checkpoint = open_path(folder.path()).unwrap();
    for (name, array) in tiny.arrays.iter().filter(|(name, _)| !name.contains("patch_embedding.weight")) {
        assert_eq!(values(&checkpoint, name, &array.shape), array.values, "{name}");
    }

    // A tensor in both shards is an error that names both.
    let repeated = tiny.arrays.keys().next().unwrap();
    shards[1].insert(repeated.clone(), tiny.arrays[repeated].clone());
    let path = folder.path().join("model-1.safetensors");
    std::fs::write(path, tiny::serialize(&shards[1], Dtype::F32)).unwrap();
    let message = open_path(folder.path()).unwrap_err().to_string();
    for part in [repeated.as_str(), "model-0.safetensors", "model-1.safetensors"] {
        assert!(message.contains(part), "{message}");
    }

    // A shard that the index names but that is not there.
    std::fs::remove_file(folder.path().join("model-1.safetensors")).unwrap();
    let message = open_path(folder.path()).unwrap_err().to_string();
    assert!(message.contains("model-1.safetensors: no such file"), "{message}");
}

#[test]
fn one_tower_loads_as_that_tower() {
    for prefixed in [true, false] {
        for tower in ["vision", "text"] {
            let mut tiny = Tiny::new(Family::SigLip1);
            let start = format!("{tower}_model.");
            tiny.config = tiny.config[format!("{tower}_config")].clone();
            tiny.config["model_type"] = json!(format!("siglip_{tower}_model"));
            tiny.arrays = (tiny.arrays.into_iter())
                .filter(|(name, _)| name.starts_with(&start))
                .map(|(name, array)| (if prefixed { name } else { name.replacen(&start, "", 1) }, array))
                .collect();
            let checkpoint = open_tiny(&tiny).unwrap();
            assert_eq!(checkpoint.spec.image.is_some(), tower == "vision");
            assert_eq!(checkpoint.spec.text.is_some(), tower == "text");
            assert_eq!(checkpoint.image.is_some(), tower == "vision");
            assert_eq!(checkpoint.text.is_some(), tower == "text");
            assert!(!checkpoint.spec.scores);
        }
    }
}

#[test]
fn the_tower_inside_paligemma_is_found() {
    for outer in ["vision_tower.vision_model.", "model.vision_tower.vision_model."] {
        let mut tiny = Tiny::new(Family::SigLip1);
        let mut vision = tiny.config["vision_config"].clone();
        vision["model_type"] = json!("siglip_vision_model");
        vision["vision_use_head"] = json!(false);
        vision["projection_dim"] = json!(2048);
        tiny.config = json!({ "model_type": "paligemma", "vision_config": vision, "hidden_size": 2048 });
        let other = tiny.arrays["logit_scale"].clone();
        tiny.arrays = (tiny.arrays.into_iter())
            .filter(|(name, _)| name.starts_with("vision_model.") && !name.contains(".head."))
            .map(|(name, array)| (name.replacen("vision_model.", outer, 1), array))
            .collect();
        tiny.arrays.insert("multi_modal_projector.linear.bias".into(), other.clone());
        tiny.arrays.insert("language_model.model.norm.weight".into(), other);
        let checkpoint = open_tiny(&tiny).unwrap();
        assert_eq!(checkpoint.spec.image.as_ref().unwrap().pooling, ImagePooling::Mean);
        let norm = values(&checkpoint, "vision_model.post_layernorm.weight", &[WIDTH]);
        assert_eq!(norm, tiny.arrays[&format!("{outer}post_layernorm.weight")].values);
        assert!(checkpoint.spec.text.is_none());
    }
}

#[test]
fn files_inside_the_program_open_like_a_folder() {
    let tiny = Tiny::new(Family::NaFlex);
    let embedded: Vec<(&'static str, &'static [u8])> =
        (tiny.files().into_iter()).map(|(name, bytes)| (&*name.leak(), &*bytes.leak())).collect();
    let found = open_files(Files::Embedded(embedded.leak()), None, "demo".into(), Wanted::default()).unwrap();
    assert_eq!(found.name, "demo");
    assert_same(&found, &open_tiny(&tiny).unwrap());
}

#[cfg(not(feature = "demo"))]
#[test]
fn a_build_without_the_demo_model_says_what_to_name_instead() {
    use siglip::testing::checkpoint::{HubOptions, ModelRef, open};

    let error = open(&ModelRef::Demo, &HubOptions::from_variables(|_| None)).unwrap_err().to_string();
    assert!(error.contains("google/siglip2-base-patch16-224"), "{error}");
}

#[test]
fn the_digest_is_of_values_in_whatever_type_they_are_stored() {
    let mut tiny = Tiny::new(Family::SigLip1);
    // More than is hashed at once.
    let rows = 600_000;
    tiny.config["text_config"]["vocab_size"] = json!(rows);
    let table = tiny.arrays.get_mut("text_model.embeddings.token_embedding.weight").unwrap();
    table.shape = vec![rows, WIDTH];
    table.values = (0..rows * WIDTH).map(|i| (i % 251) as f32).collect();
    for value in tiny.arrays.values_mut().flat_map(|array| &mut array.values) {
        *value = half::bf16::from_f32(*value).to_f32();
    }
    let digest = |tiny: &Tiny, dtype| {
        let folder = tempfile::tempdir().unwrap();
        tiny.write(folder.path());
        std::fs::write(folder.path().join("model.safetensors"), tiny::serialize(&tiny.arrays, dtype))
            .unwrap();
        open_path(folder.path()).unwrap().weights.digest().unwrap()
    };
    let plain = digest(&tiny, Dtype::F32);
    assert_eq!(digest(&tiny, Dtype::BF16), plain);
    assert_eq!(digest(&tiny, Dtype::F64), plain);
    let table = tiny.arrays.get_mut("text_model.embeddings.token_embedding.weight").unwrap();
    *table.values.last_mut().unwrap() += 1.0;
    assert_ne!(digest(&tiny, Dtype::BF16), plain);
}

#[test]
fn the_digest_tells_weights_apart() {
    let mut tiny = Tiny::new(Family::SigLip1);
    let first = open_tiny(&tiny).unwrap().weights.digest().unwrap();
    tiny.arrays.get_mut("logit_bias").unwrap().values[0] += 1e-6;
    assert_ne!(open_tiny(&tiny).unwrap().weights.digest().unwrap(), first);
}

#[test]
fn scores_may_have_no_axis_and_must_be_finite() {
    let mut tiny = Tiny::new(Family::SigLip1);
    for name in ["logit_scale", "logit_bias"] {
        tiny.arrays.get_mut(name).unwrap().shape.clear();
    }
    let checkpoint = open_tiny(&tiny).unwrap();
    assert_eq!(values(&checkpoint, "logit_bias", &[1]), tiny.arrays["logit_bias"].values);
    assert!(Scores::read(&checkpoint.weights).unwrap().scale > 0.0);
    for (name, value) in [("logit_scale", 200.0), ("logit_scale", f32::NAN), ("logit_bias", f32::INFINITY)] {
        let mut tiny = Tiny::new(Family::SigLip1);
        tiny.arrays.get_mut(name).unwrap().values[0] = value;
        let error = Scores::read(&open_tiny(&tiny).unwrap().weights).unwrap_err().to_string();
        assert!(error.contains("logit_scale") && error.contains(&value.to_string()), "{error}");
    }
}

#[test]
fn a_crop_is_not_dropped_in_silence() {
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.preprocessor =
        Some(json!({ "do_center_crop": false, "crop_size": 12, "size": { "height": 12, "width": 12 } }));
    open_tiny(&tiny).unwrap();
    tiny.preprocessor =
        Some(json!({ "do_center_crop": true, "crop_size": 12, "size": { "height": 12, "width": 12 } }));
    let error = open_tiny(&tiny).unwrap_err().to_string();
    assert!(error.contains("do_center_crop"), "{error}");
    tiny.preprocessor = Some(json!({ "size": { "shortest_edge": 12 } }));
    let error = open_tiny(&tiny).unwrap_err().to_string();
    assert!(error.contains("expected height and width"), "{error}");
}

/// The vocabulary is read while the model serves: a file that was cut short meanwhile is an error, not the end.
#[test]
fn a_table_in_a_truncated_file_is_an_error() {
    let tiny = Tiny::new(Family::SigLip1);
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    let checkpoint = open_path(folder.path()).unwrap();
    let name = "text_model.embeddings.token_embedding.weight";
    let table = checkpoint.weights.table(name, [VOCAB, WIDTH]).unwrap();
    let mut row = vec![0.0; WIDTH];
    table.read(VOCAB - 1, &mut row).unwrap();
    assert_eq!(row, tiny.arrays[name].values[(VOCAB - 1) * WIDTH..]);
    table.read(VOCAB, &mut row).unwrap_err();
    let path = folder.path().join("model.safetensors");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = table.read(0, &mut row).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
}
