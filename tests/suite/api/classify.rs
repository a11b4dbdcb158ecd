//! `POST /v1/classify`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use siglip::testing::api::ApiConfig;
use siglip::testing::budget::MemoryBudget;
use siglip::testing::model::scores::{cosine, l2_normalize, sigmoid, softmax};

use super::fake::{BIAS, SCALE, vector};
use super::{Service, assert_close, form, unit};

const PATH: &str = "/v1/classify";
const LABELS: [&str; 4] = ["cat", "dog", "car", "tree"];

fn image(content: &[u8]) -> Value {
    json!({"image": STANDARD.encode(content)})
}

fn logits(picture: &[u8], texts: &[String]) -> Vec<f32> {
    texts.iter().map(|text| cosine(&vector(picture), &vector(text.as_bytes())) * SCALE + BIAS).collect()
}

fn column(body: &Value, index: usize, key: &str) -> Vec<f32> {
    let predictions = body["data"][index]["predictions"].as_array().unwrap();
    predictions.iter().map(|p| p[key].as_f64().unwrap() as f32).collect()
}

#[tokio::test]
async fn calibrated_probabilities_best_first() {
    let service = Service::new().await;
    let answer =
        service.json(PATH, json!({"input": [image(b"PIC1"), image(b"PIC2")], "labels": LABELS})).await;
    let body = answer.ok();
    assert_eq!(answer.header("x-siglip-fingerprint"), "finger-fake");
    let texts: Vec<String> = LABELS.iter().map(|label| format!("a {label}")).collect();
    for (index, picture) in [b"PIC1", b"PIC2"].into_iter().enumerate() {
        let mut wanted: Vec<(f32, &str)> = logits(picture, &texts).into_iter().zip(LABELS).collect();
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let entry = &body["data"][index];
        assert_eq!(entry["object"], "classification");
        assert_eq!(entry["index"], index);
        let labels: Vec<&str> =
            entry["predictions"].as_array().unwrap().iter().map(|p| p["label"].as_str().unwrap()).collect();
        assert_eq!(labels, wanted.iter().map(|w| w.1).collect::<Vec<_>>());
        let wanted: Vec<f32> = wanted.iter().map(|w| w.0).collect();
        assert_close(&column(&body, index, "logit"), &wanted);
        assert_close(&column(&body, index, "score"), &wanted.iter().map(|&l| sigmoid(l)).collect::<Vec<_>>());
        assert_eq!(entry["prediction"], labels[0]);
        assert_eq!(entry["score"], entry["predictions"][0]["score"]);
    }
    let text_tokens: usize = texts.iter().map(String::len).sum();
    assert_eq!(body["usage"]["total_tokens"], 2 * 196 + text_tokens);
}

#[tokio::test]
async fn activation_top_k_and_threshold() {
    let service = Service::new().await;
    let ask = async |extra: Value| {
        let mut body = json!({"input": image(b"PIC1"), "labels": LABELS, "template": "{}"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        service.json(PATH, body).await.ok()
    };
    let mut all = logits(b"PIC1", &LABELS.map(str::to_owned));
    all.sort_by(|a, b| b.total_cmp(a));
    let body = ask(json!({"activation": "softmax"})).await;
    assert_close(&column(&body, 0, "score"), &softmax(&all));
    let body = ask(json!({"activation": "none", "top_k": 2})).await;
    assert_close(&column(&body, 0, "score"), &all[..2]);
    let body = ask(json!({"threshold": sigmoid(all[2])})).await;
    assert_eq!(body["data"][0]["predictions"].as_array().unwrap().len(), 3);
    let body = ask(json!({"threshold": 1.5})).await;
    assert_eq!(body["data"][0]["prediction"], Value::Null);
    assert_eq!(body["data"][0]["score"], Value::Null);
    assert_eq!(body["data"][0]["predictions"], json!([]));
}

#[tokio::test]
async fn several_templates_are_averaged_after_normalising() {
    let service = Service::new().await;
    let request = json!({"input": image(b"PIC1"), "labels": ["cat"], "templates": ["{}", "my {}"]});
    let body = service.json(PATH, request).await.ok();
    let (a, b) = (unit(b"cat"), unit(b"my cat"));
    let mut mean: Vec<f32> = a.iter().zip(&b).map(|(x, y)| (x + y) / 2.0).collect();
    l2_normalize(&mut mean);
    assert_close(&column(&body, 0, "logit"), &[cosine(&vector(b"PIC1"), &mean) * SCALE + BIAS]);
}

#[tokio::test]
async fn forms_with_labels_in_every_way() {
    let service = Service::new().await;
    let wanted = service.json(PATH, json!({"input": image(b"PIC1"), "labels": LABELS})).await.ok();
    for labels in [
        &["cat,dog, car ,tree"][..],
        &[r#"["cat", "dog", "car", "tree"]"#],
        &["cat", "dog", "car", "tree"],
        &["cat,dog", r#"["car"]"#, "tree"],
    ] {
        let mut parts = vec![("image", Some("a.jpg"), None, &b"PIC1"[..])];
        parts.extend(labels.iter().map(|label| ("labels", None, None, label.as_bytes())));
        let (kind, body) = form(&parts);
        assert_eq!(service.post(PATH, &kind, body).await.ok(), wanted, "{labels:?}");
    }
    let (kind, body) = form(&[
        ("image", Some("a.jpg"), None, b"PIC1"),
        ("labels", None, None, b"cat,dog"),
        ("templates", None, None, b"one {}, two"),
        ("templates", None, None, b"{}"),
        ("top_k", None, None, b"1"),
        ("activation", None, None, b"softmax"),
    ]);
    let answer = service.post(PATH, &kind, body).await.ok();
    assert_eq!(answer["data"][0]["predictions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_classified_is_named() {
    let service = Service::configured(ApiConfig { max_labels: 4, ..ApiConfig::default() }).await;
    for (request, status, code, part) in [
        (json!({"input": image(b"PIC"), "labels": []}), 422, "invalid_value", "labels: at least one"),
        (json!({"input": [], "labels": ["a"]}), 422, "invalid_value", "input: at least one"),
        (
            json!({"input": image(b"PIC"), "labels": ["a", " "]}),
            422,
            "invalid_value",
            "labels[1]: the label is empty",
        ),
        (
            json!({"input": image(b"PIC"), "labels": ["a"], "template": "x"}),
            422,
            "invalid_value",
            "template: ",
        ),
        (json!({"input": image(b"PIC"), "labels": ["a"], "top_k": 0}), 422, "invalid_value", "top_k: "),
        (json!({"input": image(b"PIC"), "labels": ["a"], "top_k": -1}), 400, "invalid_request", "top_k: "),
        (
            json!({"input": [image(b"PIC"), {"text": "a"}], "labels": ["a"]}),
            422,
            "wrong_modality",
            "input[1]: ",
        ),
        (json!({"input": [image(b"PIC"), image(b"x")], "labels": ["a"]}), 422, "invalid_image", "input[1]: "),
        (json!({"input": "not base64!", "labels": ["a"]}), 422, "invalid_image_encoding", "input: "),
        (
            json!({"input": image(b"PIC"), "labels": ["a", "b", "c", "d", "e"]}),
            413,
            "payload_too_large",
            "labels: 5",
        ),
        (
            json!({"input": image(b"PIC"), "labels": ["a", "b", "c"], "templates": ["{}", "a {}"]}),
            413,
            "payload_too_large",
            "6 texts",
        ),
    ] {
        let message = service.json(PATH, request.clone()).await.error(status, code);
        assert!(message.contains(part), "{request}: {message}");
    }
    service.post(PATH, "image/png", "PIC").await.error(415, "unsupported_media_type");
}

#[tokio::test]
async fn partial_leaves_the_other_pictures_alone() {
    let service = Service::new().await;
    let request = json!({"input": [image(b"PIC"), image(b"x")], "labels": ["a"], "partial": true});
    let body = service.json(PATH, request).await.ok();
    assert_eq!(body["data"][0]["object"], "classification");
    assert_eq!(body["data"][1]["object"], "error");
    assert_eq!(body["data"][1]["error"]["param"], "input[1]");
}

#[tokio::test]
async fn prompts_and_answers_are_bounded_before_they_are_built() {
    let config = ApiConfig { memory: MemoryBudget::new(40 << 20), ..ApiConfig::default() };
    let service = Service::configured(config).await;
    let labels = |n: usize, length: usize| -> Vec<String> {
        (0..n).map(|i| format!("{i:04}{}", "x".repeat(length - 4))).collect()
    };
    let many = json!({"input": vec![image(b"PIC"); 200], "labels": labels(1000, 900)});
    let message = service.json(PATH, many).await.error(413, "payload_too_large");
    assert!(message.contains("bytes of memory are needed"), "{message}");
    let few = json!({"input": vec![image(b"PIC"); 200], "labels": labels(200, 900), "top_k": 3});
    service.json(PATH, few).await.ok();
    let long = json!({"input": image(b"PIC"), "labels": labels(1, 1001)});
    assert!(service.json(PATH, long).await.error(422, "invalid_value").starts_with("labels[0]: 1001 bytes"));
    let slots = json!({"input": image(b"PIC"), "labels": ["a"], "template": "{}".repeat(17)});
    assert!(service.json(PATH, slots).await.error(422, "invalid_value").starts_with("template: 17 times {}"));
    assert_eq!(service.state.memory().total(), 0);
}
