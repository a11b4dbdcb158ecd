//! Kinds of checkpoints that people run beside the public ones: wrapped, adapted, with a classifier, inside a language
//! model, or packed otherwise.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use serde_json::{Value, json};
use siglip::testing::checkpoint::{Checkpoint, CheckpointError};
use siglip::testing::image::{Grid, Patches};
use siglip::testing::model::{ImagePooling, LabelActivation, PatchVectors};
use siglip::testing::pipeline::{LoadOptions, Pipeline, Precision};

use super::{assert_same, open_path, open_tiny, values};
use crate::support::tiny::{self, Array, Arrays, DEPTH, Family, PATCH, Tiny, WIDTH};

fn rename(arrays: Arrays, name: impl Fn(&str) -> String) -> Arrays {
    arrays.into_iter().map(|(old, array)| (name(&old), array)).collect()
}

fn array(shape: &[usize], value: impl Fn(usize) -> f32) -> Array {
    Array { shape: shape.to_vec(), values: (0..shape.iter().product()).map(value).collect() }
}

/// The refusal of a tiny checkpoint after a change.
fn refusal(change: impl FnOnce(&mut Tiny)) -> String {
    let mut tiny = Tiny::new(Family::SigLip1);
    change(&mut tiny);
    match open_tiny(&tiny).unwrap_err() {
        CheckpointError::Unsupported { file, what } => format!("{file}: {what}"),
        other => panic!("{other}"),
    }
}

#[test]
fn wrappers_are_taken_away() {
    let plain = open_tiny(&Tiny::new(Family::SigLip1)).unwrap();
    for wrap in [
        |name: &str| format!("module.{name}"),
        |name: &str| format!("model.{name}"),
        |name: &str| format!("module._orig_mod.{name}"),
        |name: &str| name.replace("vision_model.", "vision_model._orig_mod."),
    ] {
        let mut tiny = Tiny::new(Family::SigLip1);
        tiny.arrays = rename(tiny.arrays, wrap);
        assert_same(&open_tiny(&tiny).unwrap(), &plain);
        // A message says that the names it gives are not quite those of the file.
        tiny.arrays.retain(|name, _| !name.ends_with("post_layernorm.weight"));
        let message = open_tiny(&tiny).unwrap_err().to_string();
        assert!(
            message.contains("vision_model.post_layernorm.weight") && message.contains("names without"),
            "{message}"
        );
    }
}

#[test]
fn towers_are_those_that_the_tensors_are_of() {
    for (tower, other) in [("vision_model.", "text_model."), ("text_model.", "vision_model.")] {
        let mut tiny = Tiny::new(Family::SigLip1);
        tiny.arrays.retain(|name, _| name.starts_with(tower));
        let checkpoint = open_tiny(&tiny).unwrap();
        assert_eq!(checkpoint.spec.image.is_some(), tower == "vision_model.");
        assert_eq!(checkpoint.spec.text.is_some(), tower == "text_model.");
        assert!(
            !checkpoint.spec.scores && !checkpoint.weights.shapes().any(|(name, _)| name.starts_with(other))
        );
    }
    // Without its head an image tower gives the mean.
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.arrays.retain(|name, _| name.starts_with("vision_model.") && !name.contains(".head."));
    assert_eq!(open_tiny(&tiny).unwrap().spec.image.unwrap().pooling, ImagePooling::Mean);
    // Beside a text tower it must have one, or texts would be compared with something else.
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.arrays.retain(|name, _| !name.starts_with("vision_model.head."));
    assert!(open_tiny(&tiny).unwrap_err().to_string().contains("vision_model.head.probe"));
    let said =
        refusal(|tiny| tiny.arrays = rename(std::mem::take(&mut tiny.arrays), |name| format!("x.{name}")));
    assert!(said.contains("no tensor of a SigLIP tower") && said.contains("x.logit_bias"), "{said}");
}

#[test]
fn an_identity_for_a_text_head_is_not_saved() {
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.arrays.retain(|name, _| !name.starts_with("text_model.head."));
    assert!(open_tiny(&tiny).unwrap_err().to_string().contains("text_model.head.weight"));
    tiny.config["text_config"]["no_head"] = json!(true);
    assert_eq!(open_tiny(&tiny).unwrap().spec.text.unwrap().projection, None);
}

fn with_classifier(family: Family, labels: usize) -> Tiny {
    let mut tiny = Tiny::new(family);
    tiny.arrays.retain(|name, _| name.starts_with("vision_model."));
    tiny.arrays.insert("classifier.weight".into(), array(&[labels, WIDTH], |i| (i as f32 * 0.7).sin()));
    tiny.arrays.insert("classifier.bias".into(), array(&[labels], |i| i as f32 * 0.1));
    tiny
}

#[test]
fn a_classifier_has_its_labels() {
    let mut tiny = with_classifier(Family::SigLip1, 3);
    let classifier = |tiny: &Tiny| open_tiny(tiny).map(|checkpoint| checkpoint.spec.classifier.unwrap());
    let bare = classifier(&tiny).unwrap();
    assert_eq!(
        (bare.labels.as_slice(), bare.activation),
        (&["LABEL_0", "LABEL_1", "LABEL_2"].map(String::from)[..], LabelActivation::Softmax)
    );
    tiny.config["id2label"] = json!({ "0": "cat", "2": "owl", "1": "dog" });
    tiny.config["problem_type"] = json!("multi_label_classification");
    let named = classifier(&tiny).unwrap();
    assert_eq!(
        (named.labels.join(" ").as_str(), named.activation),
        ("cat dog owl", LabelActivation::Sigmoid)
    );
    for (name, value, said) in [
        ("id2label", json!({ "0": "cat" }), "1 labels for the 3 rows"),
        ("id2label", json!({ "0": "cat", "1": "dog", "3": "owl" }), "no label 2"),
        ("problem_type", json!("regression"), "no probabilities"),
    ] {
        let mut tiny = tiny.clone();
        tiny.config[name] = value;
        let error = classifier(&tiny).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(said), "{error}");
    }
    // One output is one probability, whatever the rest of the file forgets to say.
    assert_eq!(classifier(&with_classifier(Family::NaFlex, 1)).unwrap().activation, LabelActivation::Sigmoid);
}

/// The mean of the patch tokens, which a classifier is a linear layer over, whether there is a pooling head or not.
#[test]
fn a_classifier_takes_the_mean_of_the_patches() {
    for (family, has_head) in
        [(Family::SigLip1, true), (Family::SigLip1, false), (Family::NaFlex, true), (Family::NaFlex, false)]
    {
        let mut tiny = with_classifier(family, 3);
        tiny.arrays.retain(|name, _| has_head || !name.contains(".head."));
        let options = LoadOptions { precision: Precision::F32, ..LoadOptions::default() };
        let pipeline = Pipeline::load(open_tiny(&tiny).unwrap(), &options).unwrap();
        let picture = |seed: usize| Patches {
            pixels: (0..9 * PATCH * PATCH * 3).map(|i| (i * (31 + seed) % 251) as u8).collect(),
            grid: Grid { rows: 3, cols: 3 },
            source: (12, 12),
        };
        let pictures = [picture(0), picture(7)];
        let pictures: Vec<&Patches> = pictures.iter().collect();
        let model = pipeline.model();
        let means = model.embed_patches(&pictures, PatchVectors::Mean, &|| ()).unwrap();
        let tokens = model.image().unwrap().forward(&pictures).unwrap().tokens.to_vec2::<f32>().unwrap();
        assert_eq!(means.len(), 2);
        for (of_picture, mean) in tokens.chunks(9).zip(&means) {
            assert_eq!(mean.len(), WIDTH);
            for (at, found) in mean.iter().enumerate() {
                let expected = of_picture.iter().map(|token| token[at]).sum::<f32>() / 9.0;
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
        let embeddings = model.embed_images(&pictures).unwrap();
        let is_embedding = embeddings.concat().iter().zip(means.concat()).all(|(a, b)| (a - b).abs() < 1e-5);
        assert_eq!(is_embedding, !has_head);
    }
}

/// An adapter beside a base checkpoint, as peft saves it.
fn adapter(folder: &Path, config: Value, arrays: &Arrays) -> Result<Checkpoint, CheckpointError> {
    let (base, own) = (folder.join("base"), folder.join("adapter"));
    fs::create_dir_all(&base).unwrap();
    fs::create_dir_all(&own).unwrap();
    Tiny::new(Family::SigLip1).write(&base);
    let mut all = json!({ "peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "lora_alpha": 8 });
    for (name, value) in config.as_object().unwrap() {
        all[name] = value.clone();
    }
    fs::write(own.join("adapter_config.json"), all.to_string()).unwrap();
    fs::write(
        own.join("adapter_model.safetensors"),
        tiny::serialize(arrays, safetensors::tensor::Dtype::F32),
    )
    .unwrap();
    open_path(&own)
}

const QUERY: &str = "vision_model.encoder.layers.1.self_attn.q_proj";
const FC2: &str = "text_model.encoder.layers.0.mlp.fc2";

/// Matrices of rank 2 for a layer: the one that goes down, the one that goes up.
fn low_rank(arrays: &mut Arrays, module: &str, out: usize, inner: usize) {
    arrays
        .insert(format!("base_model.model.{module}.lora_A.weight"), array(&[2, inner], |i| (i as f32).sin()));
    arrays.insert(format!("base_model.model.{module}.lora_B.weight"), array(&[out, 2], |i| (i as f32).cos()));
}

#[test]
fn an_adapter_is_merged_into_its_base() {
    let base = open_tiny(&Tiny::new(Family::SigLip1)).unwrap();
    let mut arrays = Arrays::new();
    low_rank(&mut arrays, QUERY, WIDTH, WIDTH);
    low_rank(&mut arrays, FC2, WIDTH, tiny::MLP);
    arrays.insert("base_model.model.logit_bias".into(), array(&[1], |_| -3.5));
    for (config, scale) in [
        (json!({}), 4.0),
        (json!({ "use_rslora": true }), 8.0 / 2f32.sqrt()),
        (json!({ "alpha_pattern": { "q_proj": 2, "fc2": 2 } }), 1.0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let merged = adapter(folder.path(), config, &arrays).unwrap();
        assert_eq!(merged.name, "adapter");
        for tensor in merged.spec.tensors() {
            let [mut expected, found] = [&base, &merged].map(|c| values(c, &tensor.name, &tensor.shape));
            let module = tensor.name.strip_suffix(".weight").unwrap_or_default();
            if [QUERY, FC2].contains(&module) {
                let inner = tensor.shape[1];
                for (i, value) in expected.iter_mut().enumerate() {
                    let (row, column) = (i / inner, i % inner);
                    let product: f32 = (0..2)
                        .map(|r| ((row * 2 + r) as f32).cos() * ((r * inner + column) as f32).sin())
                        .sum();
                    *value += scale * product;
                }
            } else if tensor.name == "logit_bias" {
                expected = vec![-3.5];
            }
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "{}: {found} {expected}", tensor.name);
            }
        }
        assert_ne!(merged.weights.digest().unwrap(), base.weights.digest().unwrap());
    }
}

#[test]
fn an_adapter_that_does_not_fit_is_refused() {
    let said = |config: Value, change: fn(&mut Arrays)| {
        let mut arrays = Arrays::new();
        low_rank(&mut arrays, QUERY, WIDTH, WIDTH);
        change(&mut arrays);
        let folder = tempfile::tempdir().unwrap();
        adapter(folder.path(), config, &arrays).unwrap_err().to_string()
    };
    let keep = |_: &mut Arrays| {};
    for (message, expected) in [
        (said(json!({ "peft_type": "LOHA" }), keep), "expected LORA, found \"LOHA\""),
        (said(json!({ "use_dora": true }), keep), "use_dora"),
        (said(json!({ "base_model_name_or_path": "./nowhere" }), keep), "nowhere: no such file or folder"),
        (said(json!({ "base_model_name_or_path": null }), keep), "base_model_name_or_path"),
        (
            said(json!({}), |arrays| low_rank(arrays, "text_model.other", 4, 4)),
            "text_model.other.lora_A.weight",
        ),
        (
            said(json!({}), |arrays| low_rank(arrays, QUERY, WIDTH + 1, WIDTH)),
            "expected shape [8, 2], found [9, 2]",
        ),
        (said(json!({}), |arrays| arrays.retain(|name, _| name.contains("lora_A"))), "lora_B.weight"),
    ] {
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
    }
    // An adapter on itself would never end.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("adapter");
    let mut arrays = Arrays::new();
    low_rank(&mut arrays, QUERY, WIDTH, WIDTH);
    let error = adapter(folder.path(), json!({ "base_model_name_or_path": own }), &arrays).unwrap_err();
    assert!(error.to_string().contains("no config.json"), "{error}");
}

#[test]
fn a_sentence_transformers_folder_is_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("0_Transformer");
    fs::create_dir(&inner).unwrap();
    let tiny = Tiny::new(Family::SigLip1);
    tiny.write(&inner);
    let modules = |path: &str| {
        let list = json!([{ "idx": 0, "path": path, "type": "x" }, { "idx": 1, "path": "1_Normalize", "type": "y" }]);
        fs::write(folder.path().join("modules.json"), list.to_string()).unwrap();
    };
    modules("0_Transformer");
    assert_same(&open_path(folder.path()).unwrap(), &open_tiny(&tiny).unwrap());
    modules("../elsewhere");
    assert!(open_path(folder.path()).unwrap_err().to_string().contains("not a plain folder name"));
    // Newer versions keep the checkpoint in the folder itself.
    modules("");
    tiny.write(folder.path());
    open_path(folder.path()).unwrap();
}

/// A `pytorch_model.bin`: a pickle of the shapes, and the values beside it.
fn pytorch(arrays: &Arrays, below: Option<&str>) -> Vec<u8> {
    let text = |text: &str| [&[b'X'][..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let int = |number: usize| [&[b'J'][..], &(number as i32).to_le_bytes()].concat();
    let global = |module: &str, name: &str| format!("c{module}\n{name}\n").into_bytes();
    let ints = |numbers: &[usize]| {
        [b"(".to_vec(), numbers.iter().flat_map(|n| int(*n)).collect(), b"t".to_vec()].concat()
    };
    let mut pickle = b"\x80\x02".to_vec();
    if let Some(key) = below {
        pickle.extend([b"}".to_vec(), text(key)].concat());
    }
    pickle.extend(b"}");
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (index, (name, array)) in arrays.iter().enumerate() {
        let strides: Vec<usize> =
            (0..array.shape.len()).map(|axis| array.shape[axis + 1..].iter().product()).collect();
        pickle.extend(text(name));
        pickle.extend(global("torch._utils", "_rebuild_tensor_v2"));
        // Its storage, the place in it, shape, strides, no gradient, no hooks.
        pickle.extend(b"((");
        pickle.extend(text("storage"));
        pickle.extend(global("torch", "FloatStorage"));
        pickle.extend(text(&index.to_string()));
        pickle.extend(text("cpu"));
        pickle.extend(int(array.values.len()));
        pickle.extend(b"tQ");
        pickle.extend(int(0));
        pickle.extend(ints(&array.shape));
        pickle.extend(ints(&strides));
        pickle.extend(b"\x89");
        pickle.extend(global("collections", "OrderedDict"));
        pickle.extend(b")RtRs");
        writer.start_file(format!("archive/data/{index}"), options).unwrap();
        writer.write_all(&tiny::narrow(&array.values, safetensors::tensor::Dtype::F32)).unwrap();
    }
    if below.is_some() {
        pickle.extend(b"s");
    }
    pickle.extend(b".");
    writer.start_file("archive/data.pkl", options).unwrap();
    writer.write_all(&pickle).unwrap();
    writer.finish().unwrap().into_inner()
}

#[test]
fn pytorchs_own_files_are_read_where_there_is_no_other() {
    let tiny = Tiny::new(Family::SigLip1);
    let plain = open_tiny(&tiny).unwrap();
    for below in [None, Some("state_dict")] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), tiny.config.to_string()).unwrap();
        let file = folder.path().join("pytorch_model.bin");
        let bytes = pytorch(&tiny.arrays, below);
        fs::write(&file, &bytes).unwrap();
        assert_same(&open_path(folder.path()).unwrap(), &plain);
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        let error = open_path(folder.path()).unwrap_err().to_string();
        assert!(error.contains("pytorch_model.bin") && error.contains("PyTorch"), "{error}");
        fs::write(&file, b"\x80\x02}.").unwrap();
        open_path(folder.path()).unwrap_err();
        // With both there, safetensors it is.
        tiny.write(folder.path());
        assert_same(&open_path(folder.path()).unwrap(), &plain);
    }
}

#[test]
fn a_tower_inside_a_language_model_is_an_image_tower() {
    for (kind, class) in [
        ("gemma3", "Gemma3ImageProcessor"),
        ("llava", "SiglipImageProcessor"),
        ("llava_onevision", "LlavaOnevisionImageProcessor"),
        ("aya_vision", "GotOcr2ImageProcessor"),
        ("paligemma", "SiglipImageProcessor"),
    ] {
        for before in ["vision_tower.vision_model.", "model.vision_tower.vision_model."] {
            let mut tiny = Tiny::new(Family::SigLip1);
            let mut vision = tiny.config["vision_config"].clone();
            vision["model_type"] = json!("siglip_vision_model");
            tiny.config = json!({ "model_type": kind, "vision_config": vision, "text_config": { "vocab_size": 256000 } });
            tiny.preprocessor = Some(
                json!({ "image_processor_type": class, "resample": 2, "size": { "height": 99, "width": 99 } }),
            );
            let other = tiny.arrays["logit_scale"].clone();
            tiny.arrays.retain(|name, _| name.starts_with("vision_model.") && !name.contains(".head."));
            tiny.arrays = rename(tiny.arrays, |name| name.replacen("vision_model.", before, 1));
            tiny.arrays.insert("lm_head.weight".into(), other);
            let checkpoint = open_tiny(&tiny).unwrap();
            assert_eq!(checkpoint.spec.image.as_ref().unwrap().pooling, ImagePooling::Mean, "{kind}");
            assert!(checkpoint.spec.text.is_none() && !checkpoint.spec.scores);
            assert_eq!(checkpoint.image.unwrap().grid(), Grid { rows: 3, cols: 3 }, "{kind}");
        }
    }
}

#[test]
fn fg_clip_2_is_its_short_texts_and_its_pictures() {
    let plain = open_tiny(&Tiny::new(Family::NaFlex)).unwrap();
    let mut tiny = Tiny::new(Family::NaFlex);
    tiny.config["model_type"] = json!("fgclip2");
    tiny.config["vision_config"]["model_type"] = json!("fgclip2_vision_model");
    tiny.config["text_config"]["keep_len"] = json!(20);
    tiny.config["auto_map"] = json!({ "AutoModelForCausalLM": "modeling_fgclip2.FG_CLIP2_Model" });
    for name in ["position_embedding_res", "position_embedding_ori"] {
        tiny.arrays.insert(format!("text_model.embeddings.{name}.weight"), array(&[196, WIDTH], |_| 1.0));
    }
    for name in ["longtext_head.weight", "boxtext_head.bias", "dense_feature_head.probe"] {
        tiny.arrays.insert(name.into(), array(&[WIDTH], |_| 1.0));
    }
    assert_same(&open_tiny(&tiny).unwrap(), &plain);
}

#[test]
fn what_cannot_be_loaded_is_told_what_to_do_instead() {
    for (said, expected) in [
        (refusal(|t| t.config["auto_map"] = json!({ "AutoModel": "modeling_navit.X" })), "remove auto_map"),
        (
            refusal(|t| t.config["quantization_config"] = json!({ "quant_method": "bitsandbytes" })),
            "by bitsandbytes",
        ),
        (refusal(|t| t.config["quantization"] = json!({ "bits": 4 })), "by MLX: name the original"),
        (refusal(|t| t.config["model_type"] = json!("idefics3")), "fractions of the picture's sides"),
        (refusal(|t| t.config["model_type"] = json!("smolvlm")), "fractions of the picture's sides"),
        (refusal(|t| t.config["model_type"] = json!("clip")), "CLIP model"),
        (
            refusal(|t| {
                t.arrays.retain(|name, _| {
                    name.starts_with("vision_model.") && !name.contains(&format!("layers.{}", DEPTH - 1))
                });
            }),
            "only the first 1 layers",
        ),
    ] {
        assert!(said.contains(expected), "{expected:?} is not in {said:?}");
    }
    // A processor of its own changes nothing of what the towers compute.
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.config["auto_map"] = json!({ "AutoProcessor": "processing.X" });
    open_tiny(&tiny).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("siglip2-base-patch16-224-ONNX");
    fs::create_dir_all(place.join("onnx")).unwrap();
    fs::write(place.join("config.json"), tiny.config.to_string()).unwrap();
    let error = open_path(&place).unwrap_err().to_string();
    assert!(error.contains("only ONNX") && error.contains("(google/siglip2-base-patch16-224)"), "{error}");
    fs::write(place.join("mmproj.gguf"), b"GGUF").unwrap();
    assert!(open_path(&place).unwrap_err().to_string().contains("only GGUF"), "gguf");
    assert!(
        open_path(&place.join("mmproj.gguf")).unwrap_err().to_string().contains("only GGUF"),
        "gguf file"
    );
}
