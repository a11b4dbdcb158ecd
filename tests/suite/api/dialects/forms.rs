//! Immich, which sends forms.

use serde_json::Value;

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

    use siglip::api::{ApiConfig, AppState, app};
    use siglip::engine::Engine;

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
