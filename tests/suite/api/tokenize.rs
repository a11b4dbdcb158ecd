//! `POST /v1/tokenize`.

use serde_json::json;
use siglip::testing::api::ApiConfig;

use super::Service;

#[tokio::test]
async fn tokens_padding_and_options() {
    let service = Service::new().await;
    let answer = service.json("/v1/tokenize", json!({"texts": ["Cat", ""], "model": "other"})).await;
    assert_eq!(answer.header("x-siglip-model"), "other");
    let body = answer.ok();
    assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!("other")));
    let context = body["context"].as_u64().unwrap();
    let [cat, empty] = &body["data"].as_array().unwrap()[..] else { panic!("two entries: {body}") };
    let tokens = cat["tokens"].as_array().unwrap();
    assert_eq!(tokens[0], json!({"id": 99, "token": "c"}));
    assert_eq!(cat["padding"].as_u64().unwrap() + tokens.len() as u64, context);
    assert_eq!((&cat["truncated"], &cat["cut"], &cat["cut_total"]), (&json!(false), &json!([]), &json!(0)));
    assert_eq!(empty["index"], 1);
    let asked = service.json("/v1/tokenize?canonicalization=none", json!({"texts": ["Cat"]})).await.ok();
    assert_eq!(asked["data"][0]["tokens"][0]["token"], "C");
}

#[tokio::test]
async fn what_is_refused() {
    let service = Service::configured(ApiConfig { max_items: 3, ..ApiConfig::default() }).await;
    let refused = async |body, status, code| service.json("/v1/tokenize", body).await.error(status, code);
    assert!(refused(json!({}), 400, "invalid_request").await.contains("missing field `texts`"));
    refused(json!({"texts": "one"}), 400, "invalid_request").await;
    refused(json!({"texts": ["a"], "other": 1}), 400, "invalid_request").await;
    refused(json!({"texts": []}), 422, "invalid_value").await;
    let many = refused(json!({"texts": ["a", "b", "c", "d"]}), 413, "payload_too_large").await;
    assert!(many.contains("4 in one request"), "{many}");
    let long = refused(json!({"texts": ["a".repeat(1 << 20), "b"]}), 413, "payload_too_large").await;
    assert!(long.contains("bytes of text"), "{long}");
    refused(json!({"texts": ["a"], "model": "none"}), 404, "model_not_found").await;
    service.post("/v1/tokenize", "text/plain", "a").await.error(415, "unsupported_media_type");
}
