//! Stored sets with the embedded model: that words, examples and "none of these" mean what they say.

use serde_json::{Value, json};
use siglip::testing::labels::Background;

use super::super::Service;
use super::{CLASSIFY, image};

fn drawing(name: &str) -> Value {
    let path = format!("{}/models/demo/examples/{name}.png", env!("CARGO_MANIFEST_DIR"));
    image(&std::fs::read(path).unwrap())
}

/// The label that a set has for a drawing; none where none fits.
async fn label(service: &Service, set: &str, name: &str, more: Value) -> Option<String> {
    let mut request = json!({"input": drawing(name), "label_set": set});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let entry = service.json(CLASSIFY, request).await.ok()["data"][0].clone();
    entry["prediction"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_what_pictures_are_of_or_none_fits() {
    let service = Service::demo();
    let labels =
        json!(["guitar", {"name": "vehicle", "synonyms": ["car", "automobile"]}, "red apple", "sunflower"]);
    service.stored("things", json!({"labels": labels})).await;
    service.stored("others", json!({"labels": ["cat face", "dog face", "Guitar", "flag of Japan"]})).await;
    let embeddings = json!({"input": [drawing("cat-face"), drawing("flag-japan")], "normalize": true});
    let embedded = service.json("/v1/embeddings", embeddings).await.ok();
    let rows: Vec<Vec<f32>> = embedded["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| serde_json::from_value(entry["embedding"].clone()).unwrap())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("background.safetensors");
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![rows.len(), rows[0].len()];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes).unwrap();
    std::fs::write(&path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
    service.state.label_sets().add_background("drawings", Background::read(&path).unwrap()).unwrap();

    for rule in
        [json!(true), json!({"against": "others"}), json!({"background": "drawings", "threshold": 0.1})]
    {
        let none = json!({"none": rule});
        for (name, wanted) in [
            ("guitar", "guitar"),
            ("red-car", "vehicle"),
            ("red-apple", "red apple"),
            ("sunflower", "sunflower"),
        ] {
            let found = label(&service, "things", name, none.clone()).await;
            assert_eq!(found.as_deref(), Some(wanted), "{name}, {none}");
        }
        assert_eq!(label(&service, "things", "cat-face", none.clone()).await, None, "{none}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_say_what_made_up_words_mean() {
    let service = Service::demo();
    service.stored("made-up", json!({"labels": ["zarp", "blorp"]})).await;
    for (word, name) in [("zarp", "red-apple"), ("blorp", "guitar")] {
        let example = json!({"examples": [{"label": word, "image": drawing(name)["image"]}]});
        service.json("/v1/label-sets/made-up/examples", example).await.ok();
    }
    for (name, wanted) in [("red-apple", "zarp"), ("guitar", "blorp")] {
        assert_eq!(label(&service, "made-up", name, json!({})).await.as_deref(), Some(wanted));
    }
}
