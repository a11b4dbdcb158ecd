//! Examples and thresholds of label sets.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use siglip::model::scores::sigmoid;

use super::fake::vector;
use super::{Answer, Service};

const SET: &str = "/v1/label-sets/a";
const EXAMPLES: &str = "/v1/label-sets/a/examples";
const CALIBRATE: &str = "/v1/label-sets/a/calibrate";

async fn put(service: &Service, path: &str, body: Value) -> Value {
    let request = Request::put(format!("{path}?wait=true")).body(Body::from(body.to_string())).unwrap();
    let answer = service.send(request).await;
    assert!(answer.status.is_success(), "{}", answer.json());
    answer.json()
}

async fn delete(service: &Service, path: &str) -> Answer {
    service.send(Request::delete(path).body(Body::empty()).unwrap()).await
}

/// A picture that looks like others of its kind: the fake gives what its bytes hash to, so it is sent as an embedding.
fn picture(kind: &str, i: u32) -> Vec<f32> {
    let own = vector(format!("{kind} {i}").as_bytes());
    vector(kind.as_bytes()).iter().zip(own).map(|(kind, own)| kind + 0.4 * own).collect()
}

async fn best(service: &Service, embedding: &[f32]) -> String {
    let request = json!({"embeddings": [embedding], "label_set": "a"});
    service.json("/v1/classify", request).await.ok()["data"][0]["prediction"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_are_examples_too() {
    let service = Service::new().await;
    put(&service, SET, json!({"labels": ["x", "y"]})).await;
    let of = |label: &str, content: &[u8]| json!({"label": label, "image": STANDARD.encode(content)});
    let examples = json!({"examples": [of("x", b"PIC1"), {"labels": ["y"], "embedding": vector(b"PIC2")}]});
    assert_eq!(service.json(EXAMPLES, examples).await.ok()["examples"], 2);
    assert_eq!((best(&service, &vector(b"PIC1")).await, best(&service, &vector(b"PIC2")).await), ("x".into(), "y".into()));
    for (examples, status, code, part) in [
        (json!([]), 422, "invalid_value", "examples: at least one"),
        (json!([of("z", b"PIC")]), 422, "invalid_value", "examples[0]: the label set \"a\" has no label \"z\""),
        (json!([of("x", b"PIC"), of("x", b"no")]), 422, "invalid_image", "examples[1]"),
        (json!([{"label": "x", "embedding": [1.0]}]), 422, "invalid_embedding", "examples[0]: 1 numbers"),
        (json!([{"label": "x", "embedding": vec![0; 12]}]), 422, "invalid_value", "no direction"),
        (json!([{"label": "x"}]), 400, "invalid_request", "either an image or an embedding"),
        (json!([{"embedding": vec![1; 12]}]), 422, "invalid_value", "examples[0]: an example has one label"),
        (json!([{"label": "x", "labels": ["y"], "embedding": [1]}]), 400, "invalid_request", "a label or labels"),
    ] {
        let answer = service.json(EXAMPLES, json!({"examples": examples})).await;
        let message = answer.error(status, code);
        assert!(message.contains(part), "{message}");
    }
    // Examples are embeddings of one model.
    let other = json!({"examples": [of("x", b"PIC3")], "model": "other"});
    let message = loop {
        let answer = service.json(EXAMPLES, other.clone()).await;
        if answer.status != 503 {
            break answer.error(422, "invalid_value");
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    };
    assert!(message.contains("embedding space finger-fake"), "{message}");
    service.json("/v1/label-sets/none/examples", json!({"examples": []})).await.error(404, "label_set_not_found");
}
