//! Models that operators add, replace and remove.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use siglip::testing::Error;
use siglip::testing::api::{ApiConfig, ApiKeys, ModelAdmin, ModelLoader, ModelOpener};

use super::fake::Fake;
use super::{Answer, Service};

/// `name=what`: a fake of that name, whose fingerprint is `finger-what`; `what` may be `missing`.
fn opener() -> ModelOpener {
    ModelOpener::new(|text| {
        let (name, what) = text.split_once('=').ok_or("not NAME=MODEL")?;
        let (name, what) = (name.to_owned(), what.to_owned());
        let names = vec![name];
        let loader: ModelLoader = Box::new(move |_| match what.as_str() {
            "missing" => Err(Error::Config("no such revision".to_owned())),
            what => Ok(Arc::new(Fake::new(what))),
        });
        Ok((names, loader))
    })
}

async fn service() -> Service {
    let keys = ApiKeys::new(["admin-key"]);
    Service::configured(ApiConfig {
        api_keys: ApiKeys::new(["key"]),
        model_admin: Some(ModelAdmin { keys, opener: opener() }),
        ..ApiConfig::default()
    })
    .await
}

async fn ask(service: &Service, method: &str, path: &str, key: &str, body: Option<Value>) -> Answer {
    let request =
        Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
    let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
    service.send(request.header("content-type", "application/json").body(body).unwrap()).await
}

async fn admin(service: &Service, method: &str, path: &str, body: Option<Value>) -> Answer {
    ask(service, method, path, "admin-key", body).await
}

/// The model of that name, once `is` says so.
async fn until(service: &Service, id: &str, is: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let models = admin(service, "GET", "/admin/models", None).await.ok();
        let found = models["models"].as_array().unwrap().iter().find(|model| model["id"] == id).cloned();
        if let Some(model) = found.filter(&is) {
            return model;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{models}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn fingerprint(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.bytes));
    answer.header("x-siglip-fingerprint").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_added_replaced_and_removed() {
    let service = service().await;
    let embed = async || {
        ask(&service, "POST", "/v1/embeddings", "key", Some(json!({ "input": "a", "model": "new" }))).await
    };
    embed().await.error(404, "model_not_found");
    let added = admin(&service, "POST", "/admin/models", Some(json!({ "model": "new=one" }))).await;
    assert_eq!((added.status.as_u16(), added.json()["id"].clone()), (202, json!("new")));
    until(&service, "new", |model| model["load"]["state"] == "ready").await;
    assert!(fingerprint(&embed().await).starts_with("finger-one"));
    let card = ask(&service, "GET", "/v1/models/new", "key", None).await.ok();
    assert_eq!(card["state"], "ready");

    // A load that fails changes nothing but what is said of it.
    let body = Some(json!({ "model": "new=missing" }));
    assert_eq!(admin(&service, "POST", "/admin/models", body).await.status, 202);
    let failed = until(&service, "new", |model| model["replacement"]["state"] == "failed").await;
    assert_eq!(failed["replacement"]["reason"], "no such revision");
    assert_eq!(failed["load"]["state"], "ready");
    assert!(fingerprint(&embed().await).starts_with("finger-one"));

    admin(&service, "POST", "/admin/models", Some(json!({ "model": "new=two" }))).await;
    until(&service, "new", |model| model["fingerprint"] == "finger-two").await;
    assert!(fingerprint(&embed().await).starts_with("finger-two"));

    assert_eq!(admin(&service, "DELETE", "/admin/models/new", None).await.status, 204);
    embed().await.error(404, "model_not_found");
    admin(&service, "DELETE", "/admin/models/new", None).await.error(404, "model_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_cannot_be_loaded_is_503_with_its_state() {
    let service = service().await;
    admin(&service, "POST", "/admin/models", Some(json!({ "model": "bad=missing" }))).await;
    until(&service, "bad", |model| model["load"]["state"] == "failed").await;
    let body = Some(json!({ "input": "a", "model": "bad" }));
    let answer = ask(&service, "POST", "/v1/embeddings", "key", body).await;
    let message = answer.error(503, "model_loading");
    assert!(message.contains("failed") && !message.contains("revision"), "{message}");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    // The others serve.
    let body = Some(json!({ "input": "a" }));
    assert_eq!(ask(&service, "POST", "/v1/embeddings", "key", body).await.status, 200);
    // Trying again takes the same name.
    admin(&service, "POST", "/admin/models", Some(json!({ "model": "bad=good" }))).await;
    until(&service, "bad", |model| model["load"]["state"] == "ready").await;
}

#[tokio::test]
async fn only_an_admin_key_changes_models() {
    let service = service().await;
    for (method, path) in
        [("GET", "/admin/models"), ("POST", "/admin/models"), ("DELETE", "/admin/models/fake")]
    {
        for key in ["key", "", "admin"] {
            ask(&service, method, path, key, Some(json!({ "model": "x=y" })))
                .await
                .error(401, "invalid_api_key");
        }
    }
    let open = Service::new().await;
    ask(&open, "GET", "/admin/models", "admin-key", None).await.error(403, "no_admin_key");
    for (body, status, code) in [
        (json!({ "model": "no name" }), 422, "invalid_value"),
        (json!({ "model": 1 }), 400, "invalid_request"),
        (json!({ "model": "a=b", "other": 1 }), 400, "invalid_request"),
    ] {
        admin(&service, "POST", "/admin/models", Some(body)).await.error(status, code);
    }
    let long = Some(json!({ "model": "x".repeat(20_000) }));
    admin(&service, "POST", "/admin/models", long).await.error(413, "payload_too_large");
}
