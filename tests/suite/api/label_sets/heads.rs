//! Linear heads: stored ones, and the classifiers that checkpoints bring.

use std::sync::Arc;

use serde_json::json;
use siglip::testing::api::{ApiConfig, AppState, app};
use siglip::testing::engine::Engine;

use super::super::fake::{DIM, vector};
use super::super::{Service, engine_config, unit};
use super::{CLASSIFY, image, logits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_a_set_like_others() {
    let service = Service::new().await;
    let rows: Vec<f32> = [vector(b"one"), vector(b"two")].concat();
    let bytes: Vec<u8> = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, DIM], &bytes).unwrap();
    let metadata = [("labels".to_owned(), r#"["one", "two"]"#.to_owned())].into();
    let file = safetensors::serialize([("head.weight", view)], Some(metadata)).unwrap();
    let head = siglip::testing::labels::read_head(&file, "probe").unwrap();
    let sets = service.state.label_sets().clone();
    sets.put_content("probe", head, &siglip::testing::labels::Condition::Any).unwrap();
    let body = service
        .json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "probe", "none": true}))
        .await
        .ok();
    for (label, logit) in logits(&body) {
        let row = vector(label.as_bytes());
        let wanted: f32 = unit(b"PIC1").iter().zip(&row).map(|(x, row)| x * row).sum();
        assert!((logit - wanted).abs() < 1e-4, "{label}: {logit} {wanted}");
    }
    assert!(body["data"][0]["none"]["score"].as_f64().unwrap() > 0.0);
    assert_eq!(service.get("/v1/label-sets/probe").await.ok()["kind"], "head");
    let against = json!({"input": image(b"PIC1"), "label_set": "probe", "none": {"against": "probe"}});
    let message = service.json(CLASSIFY, against).await.error(422, "invalid_value");
    assert!(message.contains("a head has no texts"), "{message}");
    let examples = json!({"examples": [{"label": "one", "embedding": vector(b"x")}]});
    service.json("/v1/label-sets/probe/examples", examples).await.error(422, "invalid_value");
    let narrow = siglip::testing::labels::HeadWeights {
        rows: vec![1.0; 3].into(),
        bias: vec![0.0].into(),
        width: 3,
        normalize: true,
        space: None,
    };
    let content =
        siglip::testing::labels::Content::of(siglip::testing::labels::Definition::of(["x".to_owned()]));
    let content = siglip::testing::labels::Content { head: Some(Arc::new(narrow)), ..content };
    sets.put_content("narrow", content, &siglip::testing::labels::Condition::Any).unwrap();
    let message = service
        .json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "narrow"}))
        .await
        .error(422, "invalid_value");
    assert!(message.contains("of width 3"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_brings_its_own_labels() {
    use siglip::testing::checkpoint::{self, HubOptions, ModelRef};
    use siglip::testing::engine::PipelineModel;
    use siglip::testing::model::PatchVectors;
    use siglip::testing::pipeline::{DeviceChoice, LoadOptions, Pipeline, Precision};

    use crate::support::tiny::{Array, Family, Tiny, WIDTH};

    // Fine-tunes keep the pooling head that they do not use; the classifier looks at the patches in any case.
    for has_head in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut tiny = Tiny::new(Family::SigLip1);
        tiny.arrays
            .retain(|name, _| name.starts_with("vision_model.") && (has_head || !name.contains(".head.")));
        let values = (0..3 * WIDTH).map(|i| ((i * 7919) % 101) as f32 / 50.0 - 1.0).collect();
        let (rows, bias): (Vec<f32>, [f32; 3]) = (values, [0.0, 2.0, 1.0]);
        tiny.arrays.insert("classifier.weight".into(), Array { shape: vec![3, WIDTH], values: rows.clone() });
        tiny.arrays.insert("classifier.bias".into(), Array { shape: vec![3], values: bias.to_vec() });
        tiny.config["id2label"] = json!({ "0": "cat", "1": "dog", "2": "owl" });
        tiny.write(folder.path());
        let reference: ModelRef = folder.path().to_str().unwrap().parse().unwrap();
        let hub = HubOptions::from_variables(|_| None);
        let options =
            LoadOptions { precision: Precision::F32, device: DeviceChoice::Cpu, ..LoadOptions::default() };
        let pipeline = Pipeline::load(checkpoint::open(&reference, &hub).unwrap(), &options).unwrap();
        let picture =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/examples/cat-face.png")).unwrap();
        let patches = pipeline.prepare_image(&picture, None).unwrap();
        let mean = pipeline.model().embed_patches(&[&patches], PatchVectors::Mean, &|| ()).unwrap().concat();
        let of_row =
            |(row, bias): (&[f32], f32)| row.iter().zip(&mean).map(|(a, b)| a * b).sum::<f32>() + bias;
        let wanted: Vec<f32> = rows.chunks(WIDTH).zip(bias).map(of_row).collect();

        let engine = Engine::start(engine_config());
        engine.insert(&["tiny"], Arc::new(PipelineModel::open(&reference, &hub, &options).unwrap())).unwrap();
        let state = AppState::new(engine, ApiConfig::default(), None);
        let service = Service { router: app(state.clone()), state };
        let body = service.json(CLASSIFY, json!({"input": image(&picture)})).await.ok();
        for ((label, logit), (name, wanted)) in
            logits(&body).iter().zip(["cat", "dog", "owl"].iter().zip(&wanted))
        {
            assert_eq!(label, name);
            assert!((logit - wanted).abs() < 1e-4 * wanted.abs().max(1.0), "{label}: {logit} {wanted}");
        }
        let sum: f64 = body["data"][0]["predictions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["score"].as_f64().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-5, "shares of a softmax, as it was trained");
        assert_eq!(body["label_set"]["name"], "tiny");
        // Stored embeddings are what the classifier looks at only where nothing else is made of the patches.
        let embedding = json!({"embeddings": [vec![1.0; WIDTH]]});
        let answer = service.json(CLASSIFY, embedding).await;
        match has_head {
            true => assert!(answer.error(422, "invalid_value").contains("embeddings: the checkpoint's own")),
            false => assert_eq!(answer.ok()["data"][0]["predictions"].as_array().unwrap().len(), 3),
        }
    }
}
