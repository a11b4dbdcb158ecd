//! Labels measured against a background of pictures.

use std::sync::Arc;

use futures::future::FutureExt;
use serde_json::{Value, json};
use siglip::testing::budget::MemoryKind;
use siglip::testing::engine::ScoreOptions;
use siglip::testing::labels::Background;
use siglip::testing::model::Scores;

use super::fake::{BIAS, DIM, SCALE, vector};
use super::{Answer, Service};

const SET: &str = "/v1/label-sets/a";

/// A background of pictures that the fake gives vectors for.
fn background(pictures: &[Vec<f32>]) -> Background {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let shape = format!("({}, {DIM})", pictures.len());
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(pictures.iter().flatten().flat_map(|x| x.to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    Background::read(&path).unwrap()
}

async fn put(service: &Service, body: Value) -> Answer {
    let request = http::Request::put(format!("{SET}?wait=true")).body(body.to_string().into()).unwrap();
    service.send(request).await
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    siglip::testing::model::scores::cosine(a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logits_are_measured_in_deviations_above_the_background() {
    let service = Service::new().await;
    let pictures: Vec<Vec<f32>> = (0..40).map(|i| vector(format!("picture {i}").as_bytes())).collect();
    service.state.label_sets().add_background("photos", background(&pictures)).unwrap();
    let labels = ["cat", "dog", "fish"];
    let set = json!({"labels": labels, "templates": "{}", "none": {"background": "photos"}});
    assert_eq!(put(&service, set).await.status, 201);

    let embedding = vector(b"one picture");
    let ask = async |more: Value| {
        let mut request = json!({"embeddings": [embedding], "label_set": "a"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service.json("/v1/classify", request).await
    };
    let logit = |picture: &[f32], label: &str| cosine(picture, &vector(label.as_bytes())) * SCALE + BIAS;
    let standard = |label: &str| {
        let all: Vec<f32> = pictures.iter().map(|picture| logit(picture, label)).collect();
        let mean = all.iter().sum::<f32>() / 40.0;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 40.0;
        (logit(&embedding, label) - mean) / variance.sqrt()
    };
    let wanted: Vec<f32> = labels.iter().map(|label| standard(label)).collect();
    let best = |picture: &[f32]| labels.iter().map(|label| logit(picture, label)).fold(f32::MIN, f32::max);
    let mut of_background: Vec<f32> = pictures.iter().map(|picture| best(picture)).collect();
    of_background.sort_unstable_by(f32::total_cmp);
    // Of forty, the sixth is the last one below a share of 0.1587.
    let (median, low) = (of_background[20], of_background[6]);
    let highest = (best(&embedding) - median) / (median - low);

    // Twice: measured, and then known.
    for _ in 0..2 {
        let entry = ask(json!({})).await.ok()["data"][0].clone();
        assert!(
            (entry["none"]["score"].as_f64().unwrap() as f32 - highest).abs() < 1e-3,
            "{entry} {highest}"
        );
        assert_eq!(entry["none"]["threshold"], 2.0);
        assert_eq!(entry["none"]["none_fits"], highest < 2.0);
    }
    let strict = json!({"none": {"background": "photos", "threshold": highest - 0.1}});
    assert_eq!(ask(strict).await.ok()["data"][0]["none"]["none_fits"], false);

    let entry = ask(json!({"standardize": "photos"})).await.ok()["data"][0].clone();
    let mean = wanted.iter().sum::<f32>() / 3.0;
    let deviation = (wanted.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 3.0).sqrt();
    for found in entry["predictions"].as_array().unwrap() {
        let label = found["label"].as_str().unwrap();
        let at = labels.iter().position(|known| *known == label).unwrap();
        let score = found["score"].as_f64().unwrap() as f32;
        assert!((score - (wanted[at] - mean) / deviation).abs() < 1e-3, "{label}: {score}");
        assert!((found["logit"].as_f64().unwrap() as f32 - logit(&embedding, label)).abs() < 1e-3);
    }
    let scores: Vec<f64> = (0..3).map(|i| entry["predictions"][i]["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let above = ask(json!({"standardize": "photos", "threshold": scores[1]})).await.ok();
    assert_eq!(above["data"][0]["predictions"].as_array().unwrap().len(), 2);

    for (more, said) in [
        (
            json!({"none": {"background": "pictures"}}),
            "none.background: there is no background of that name; there are photos",
        ),
        (json!({"standardize": "pictures"}), "standardize: there is no background"),
        (json!({"standardize": "photos", "activation": "softmax"}), "activation: "),
    ] {
        let message = ask(more.clone()).await.error(422, "invalid_value");
        assert!(message.contains(said), "{more}: {message}");
    }
    let inline = json!({"embeddings": [embedding], "labels": labels, "standardize": "photos"});
    let message = service.json("/v1/classify", inline).await.error(422, "invalid_value");
    assert!(message.contains("store them as a label set"), "{message}");
    let both = json!({"labels": labels, "none": {"background": "photos", "against": "a"}});
    assert_eq!(put(&service, both).await.status, 400);
    let other = background(&pictures);
    assert!(service.state.label_sets().add_background("photos", other).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_are_measured_once_over_each_background() {
    let service = Service::new().await;
    let sets = service.state.label_sets();
    let pictures = |prefix: &str| -> Vec<Vec<f32>> {
        (0..40).map(|i| vector(format!("{prefix} {i}").as_bytes())).collect()
    };
    for name in ["photos", "drawings"] {
        sets.add_background(name, background(&pictures(name))).unwrap();
    }
    put(&service, json!({"labels": ["cat", "dog", "fish"]})).await;
    let model = service.state.engine().model(None).unwrap();
    let set = sets.resolve("a", &model).unwrap();
    let levels = |name: &'static str| {
        let (set, model, scores) = (&set, &model, Scores { scale: SCALE, bias: BIAS });
        async move { sets.levels(set, ("none", name), model, scores, ScoreOptions::default()).await.unwrap() }
    };
    let held = service.state.memory().of_kind(MemoryKind::Labels);
    // Whoever asks first and goes away leaves it to the next one; who comes meanwhile waits for the same.
    let mut left = Box::pin(levels("photos"));
    assert!((&mut left).now_or_never().is_none());
    drop(left);
    let (first, twin) = tokio::join!(levels("photos"), levels("photos"));
    assert!(Arc::ptr_eq(&first, &twin), "measured at the same time, and twice");
    let other = levels("drawings").await;
    assert_ne!(first, other);
    for _ in 0..2 {
        assert!(Arc::ptr_eq(&first, &levels("photos").await));
        assert!(Arc::ptr_eq(&other, &levels("drawings").await));
    }
    let each = 3 * 2 * size_of::<f32>();
    assert_eq!(service.state.memory().of_kind(MemoryKind::Labels), held + 2 * each);

    // Those that were asked for last are kept, and no more than a few.
    for i in 0..16 {
        let name: &'static str = format!("more{i}").leak();
        sets.add_background(name, background(&pictures(name))).unwrap();
        levels(name).await;
        levels("drawings").await;
    }
    assert!(Arc::ptr_eq(&other, &levels("drawings").await));
    assert!(!Arc::ptr_eq(&first, &levels("photos").await), "it was let go long ago");
    let backgrounds = 16 * (40 * (DIM * size_of::<f32>() + 32));
    assert_eq!(service.state.memory().of_kind(MemoryKind::Labels), held + backgrounds + 16 * each);
}
