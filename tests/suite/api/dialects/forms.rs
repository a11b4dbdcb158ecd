//! Immich, which sends forms.

use serde_json::Value;
use siglip::testing::api::ApiConfig;

use super::super::{Answer, Service, assert_close, floats, form, unit};
use super::immich;

async fn send(service: &Service, parts: &[super::super::Part<'_>]) -> Answer {
    let (kind, body) = form(parts);
    service.post("/predict", &kind, body).await
}

/// The vector, which is a list inside of a string.
fn vector(body: &Value) -> Vec<f32> {
    floats(&serde_json::from_str(body["clip"].as_str().unwrap()).unwrap())
}

#[tokio::test]
async fn immich_gets_its_vectors_as_strings() {
    let service = Service::new().await;
    let (kind, body) = immich("cat");
    let answer = service.post("/predict", &kind, body).await.ok();
    assert_close(&vector(&answer), &unit(b"cat"));
    assert_eq!(answer.as_object().unwrap().len(), 1);
    // undici names a Blob without a name "blob".
    let entries = br#"{"clip": {"visual": {"modelName": "fake"}}}"#;
    let image = ("image", Some("blob"), Some("application/octet-stream"), &b"PIC1"[..]);
    let answer = send(&service, &[("entries", None, None, entries), image]).await.ok();
    assert_close(&vector(&answer), &unit(b"PIC1"));
    assert_eq!((answer["imageHeight"].as_u64(), answer["imageWidth"].as_u64()), (Some(2), Some(3)));
    assert_eq!(service.get("/ping").await.bytes, b"pong");
}

#[tokio::test]
async fn immichs_names_find_what_is_served_and_nothing_else() {
    use std::sync::Arc;

    use siglip::testing::api::{AppState, app};
    use siglip::testing::engine::Engine;

    let engine = Engine::start(super::super::engine_config());
    let names = ["mine", "google/siglip2-base-patch16-224", "siglip2-base-patch16-224"];
    engine.insert(&names, Arc::new(super::super::fake::Fake::new("mine"))).unwrap();
    engine.warmed_up().await.unwrap();
    let state = AppState::new(engine, ApiConfig::default(), None);
    let service = Service { router: app(state.clone()), state };
    let ask = async |name: &str| {
        let entries = format!(r#"{{"clip": {{"textual": {{"modelName": "{name}"}}}}}}"#);
        send(&service, &[("entries", None, None, entries.as_bytes()), ("text", None, None, b"cat")]).await
    };
    for name in ["mine", "ViT-B-16-SigLIP2__webli", "google/siglip2-base-patch16-224"] {
        assert_close(&vector(&ask(name).await.ok()), &unit(b"cat"));
    }
    for name in ["ViT-B-16-SigLIP__webli", "ViT-B-32__openai", "ViT-B-16-SigLIP2-256__webli"] {
        assert!(ask(name).await.refused(404, "/detail").contains(name));
    }
}

#[tokio::test]
async fn what_immich_must_ask_elsewhere_is_refused() {
    let service = Service::new().await;
    let (text, image) = (("text", None, None, &b"cat"[..]), ("image", Some("blob"), None, &b"PIC"[..]));
    let faces =
        br#"{"facial-recognition": {"detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}}}}"#;
    let visual = br#"{"clip": {"visual": {"modelName": "fake"}}}"#;
    let textual = br#"{"clip": {"textual": {"modelName": "fake"}}}"#;
    for (entries, parts, status, said) in [
        (&faces[..], vec![image], 422, "\"facial-recognition\" is not done here"),
        (b"{", vec![text], 422, "Invalid request format"),
        (br#"{"clip": {}}"#, vec![text], 422, "Invalid request format"),
        (br#"{"clip": {"visual": {}}}"#, vec![image], 422, "modelName"),
        (visual, vec![], 400, "Either image or text must be provided"),
        (visual, vec![text], 400, "an image"),
        (textual, vec![image], 400, "a text"),
        (visual, vec![("image", Some("blob"), None, &b"GIF"[..])], 422, "image: "),
    ] {
        let mut parts = parts;
        parts.push(("entries", None, None, entries));
        let message = send(&service, &parts).await.refused(status, "/detail");
        assert!(message.contains(said), "{message}");
    }
    assert!(send(&service, &[text]).await.refused(422, "/detail").contains("entries"));
    assert_eq!(service.json("/predict", serde_json::json!({})).await.status, 415);
}

/// Another machine learning service that says what it was sent, and fails where that is asked for.
async fn other_service() -> String {
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;

    let predict = async |headers: HeaderMap, body: String| {
        let kind = headers["content-type"].to_str().unwrap().to_owned();
        let answer = |status, text: String| (status, [("content-type", "application/json")], text);
        if body.contains("refuse me") {
            return answer(StatusCode::UNPROCESSABLE_ENTITY, "no face model".to_owned());
        }
        if body.contains("break") {
            return answer(StatusCode::INTERNAL_SERVER_ERROR, "CUDA".to_owned());
        }
        if body.contains("take long") {
            tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        }
        if body.contains("say much") {
            return answer(StatusCode::OK, "x".repeat((16 << 20) + 1));
        }
        answer(StatusCode::OK, serde_json::json!({"kind": kind, "body": body}).to_string())
    };
    let app = axum::Router::new().route("/ml/predict", post(predict));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/ml/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_immich_wants_beside_embeddings_is_asked_of_its_own_service() {
    let with = async |address: &str| {
        let immich_upstream = Some(address.parse().unwrap());
        Service::configured(ApiConfig { immich_upstream, ..ApiConfig::default() }).await
    };
    let service = with(&other_service().await).await;
    let faces = &br#"{"facial-recognition": {"detection": {"modelName": "buffalo_l"}}}"#[..];
    let of = |image: &'static [u8]| [("image", Some("blob"), None, image), ("entries", None, None, faces)];

    let (kind, body) = form(&of(b"a picture"));
    let sent = String::from_utf8(body).unwrap();
    let answer = send(&service, &of(b"a picture")).await.ok();
    // Byte for byte.
    assert_eq!((answer["kind"].as_str(), answer["body"].as_str()), (Some(&*kind), Some(&*sent)));

    let said = send(&service, &of(b"refuse me")).await.refused(422, "/detail");
    assert!(said.contains("422") && said.contains("no face model"), "{said}");
    let said = send(&service, &of(b"break")).await.refused(502, "/detail");
    assert!(said.contains("500") && said.contains("CUDA"), "{said}");
    let said = send(&service, &of(b"say much")).await.refused(502, "/detail");
    assert!(said.contains("larger than"), "{said}");
    let (kind, body) = form(&of(b"take long"));
    let late = http::Request::post("/predict").header("content-type", kind);
    let late = late.header("x-request-timeout-ms", "300").body(body.into()).unwrap();
    assert!(service.send(late).await.refused(504, "/detail").contains("300 ms"));

    // Embeddings are ours, and a model that is not here is nobody's: an index has one kind of vectors.
    let (text, textual) =
        (("text", None, None, &b"cat"[..]), &br#"{"clip": {"textual": {"modelName": "fake"}}}"#[..]);
    assert_close(
        &vector(&send(&service, &[text, ("entries", None, None, textual)]).await.ok()),
        &unit(b"cat"),
    );
    let unknown = &br#"{"clip": {"textual": {"modelName": "ViT-B-32__openai"}}}"#[..];
    send(&service, &[text, ("entries", None, None, unknown)]).await.refused(404, "/detail");
    let both = &br#"{"clip": {"textual": {"modelName": "fake"}}, "ocr": {}}"#[..];
    let said = send(&service, &[text, ("entries", None, None, both)]).await.refused(422, "/detail");
    assert!(said.contains("in one request"), "{said}");

    let nobody = with("http://127.0.0.1:1").await;
    let said = send(&nobody, &of(b"a picture")).await.refused(502, "/detail");
    assert!(said.contains("--immich-upstream"), "{said}");
}
