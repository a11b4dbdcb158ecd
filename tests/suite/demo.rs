//! The embedded model, against what transformers gave for it in f32 (`models/demo/expected.json`).
#![cfg(feature = "demo")]

use std::path::Path;

use serde_json::Value;
use siglip::testing::checkpoint::{self, HubOptions, ModelRef};
use siglip::testing::model::scores::{cosine, l2_normalize};
use siglip::testing::pipeline::{DeviceChoice, LoadOptions, Pipeline, Precision};

fn demo() -> Pipeline {
    demo_in(Precision::F32)
}

fn demo_in(precision: Precision) -> Pipeline {
    // No variable of the environment, no network: it is inside the program.
    let options = HubOptions::from_variables(|_| None);
    let checkpoint = checkpoint::open(&ModelRef::Demo, &options).unwrap();
    let options = LoadOptions { precision, device: DeviceChoice::Cpu, ..LoadOptions::default() };
    Pipeline::load(checkpoint, &options).unwrap()
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo"))
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap()
}

fn image(pipeline: &Pipeline, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(folder().join("examples").join(name)).unwrap();
    let patches = pipeline.prepare_image(&bytes, None).unwrap();
    pipeline.model().embed_images(&[&patches]).unwrap().remove(0)
}

fn text(pipeline: &Pipeline, text: &str) -> Vec<f32> {
    let ids = pipeline.prepare_text(text, None).unwrap();
    pipeline.model().embed_texts(&[&ids]).unwrap().remove(0)
}

/// The first values of a normalised embedding.
fn assert_begins(mut vector: Vec<f32>, expected: &Value, what: &str) {
    l2_normalize(&mut vector);
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert!(expected.len() >= 8);
    for (found, expected) in vector.iter().zip(&expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{what}: {vector:?}, not {expected:?}");
    }
}

#[test]
fn vectors_ids_and_logits_are_those_of_transformers() {
    let (pipeline, expected) = (demo(), expected());
    let list = |name: &str| expected[name].as_array().unwrap().clone();
    let images: Vec<Vec<f32>> = list("images")
        .iter()
        .map(|entry| {
            let name = entry["file"].as_str().unwrap();
            let vector = image(&pipeline, name);
            assert_begins(vector.clone(), &entry["embedding"], name);
            vector
        })
        .collect();
    let texts: Vec<Vec<f32>> = list("texts")
        .iter()
        .map(|entry| {
            let words = entry["text"].as_str().unwrap();
            let ids = pipeline.prepare_text(words, None).unwrap().ids;
            assert_eq!(serde_json::json!(ids), entry["ids"], "{words}");
            let vector = text(&pipeline, words);
            assert_begins(vector.clone(), &entry["embedding"], words);
            vector
        })
        .collect();
    let scores = pipeline.model().scores().unwrap();
    for (row, image) in list("logits").iter().zip(&images) {
        for (expected, text) in row.as_array().unwrap().iter().zip(&texts) {
            let found = f64::from(scores.logit(cosine(image, text)));
            assert!((found - expected.as_f64().unwrap()).abs() < 1e-3, "{found}, not {expected}");
        }
    }
}

#[test]
fn the_examples_are_recognised() {
    let pipeline = demo();
    let names = ["cat-face", "flag-japan", "guitar", "red-apple", "red-car", "sunflower"];
    let labels = ["cat face", "flag: Japan", "guitar", "red apple", "car", "sunflower"];
    let texts = labels.map(|label| text(&pipeline, label));
    for (at, name) in names.iter().enumerate() {
        let vector = image(&pipeline, &format!("{name}.png"));
        let best = (0..labels.len())
            .max_by(|&a, &b| cosine(&vector, &texts[a]).total_cmp(&cosine(&vector, &texts[b])))
            .unwrap();
        assert_eq!(labels[best], labels[at], "{name}");
    }
}

/// The pictures and texts of `expected.json` in coarser arithmetic: nearly the same vectors, and the same best text for
/// every picture.
#[test]
fn coarser_arithmetic_gives_nearly_the_same_vectors() {
    let list = |name: &str, field: &str| -> Vec<String> {
        let entries = expected()[name].as_array().unwrap().clone();
        entries.iter().map(|entry| entry[field].as_str().unwrap().to_owned()).collect()
    };
    let (files, texts) = (list("images", "file"), list("texts", "text"));
    let embed = |precision| {
        let pipeline = demo_in(precision);
        let mut all: Vec<Vec<f32>> = files.iter().map(|file| image(&pipeline, file)).collect();
        all.extend(texts.iter().map(|words| text(&pipeline, words)));
        all.iter_mut().for_each(|vector| l2_normalize(vector));
        all
    };
    let best = |vectors: &[Vec<f32>]| -> Vec<usize> {
        let (images, texts) = vectors.split_at(files.len());
        let nearest = |image: &Vec<f32>| {
            let cosines: Vec<f32> = texts.iter().map(|text| cosine(image, text)).collect();
            (0..texts.len()).max_by(|&a, &b| cosines[a].total_cmp(&cosines[b])).unwrap()
        };
        images.iter().map(nearest).collect()
    };
    let exact = embed(Precision::F32);
    for (precision, least) in [(Precision::Bf16, 0.9995), (Precision::Int8, 0.995)] {
        let found = embed(precision);
        let worst = exact.iter().zip(&found).map(|(a, b)| cosine(a, b)).fold(1.0, f32::min);
        assert!(worst >= least, "{precision:?}: cosine {worst}");
        assert_eq!(best(&found), best(&exact), "{precision:?}");
    }
}
