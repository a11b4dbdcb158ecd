//! Routes of other services: what holds for all of them here, each dialect's own words in files of their own.

mod documents;
mod forms;
mod lists;

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use siglip::testing::api::{ApiConfig, ApiKeys, Dialects};
use siglip::testing::engine::EngineConfig;

use super::{Answer, Service, engine_config, form};

/// A request that embeds one text, and where an error of its dialect has its message.
struct Case {
    dialect: &'static str,
    path: &'static str,
    body: fn(&str) -> Value,
    message: &'static str,
}

const HUGGING_FACE: &str = "/models/fake/pipeline/feature-extraction";
const VERTEX: &str = "/v1/projects/p/locations/l/publishers/google/models/fake:predict";

const PICTURE: &[u8] = b"PIC\x01\x02";
const LONG: &str = "a text of more than sixteen bytes";

fn picture() -> String {
    STANDARD.encode(PICTURE)
}

fn data_url() -> String {
    format!("data:image/png;base64,{}", picture())
}

fn cases() -> Vec<Case> {
    let case = |dialect, path, body, message| Case { dialect, path, body, message };
    vec![
        case("openai", "/embeddings", |text| json!({"input": text}), "/error/message"),
        case("tei", "/embed", |text| json!({"inputs": text}), "/error"),
        case("huggingface", HUGGING_FACE, |text| json!({"inputs": text}), "/error"),
        case("cohere", "/v2/embed", |text| json!({"model": "fake", "texts": [text]}), "/message"),
        case(
            "voyage",
            "/v1/multimodalembeddings",
            |text| json!({"model": "fake", "inputs": [{"content": [{"type": "text", "text": text}]}]}),
            "/detail",
        ),
        case("weaviate", "/vectorize", |text| json!({"texts": [text]}), "/error"),
        case("ollama", "/api/embed", |text| json!({"model": "fake", "input": text}), "/error"),
        case(
            "kserve",
            "/v2/models/fake/infer",
            |text| json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]}),
            "/error",
        ),
        case("vertex", VERTEX, |text| json!({"instances": [{"text": text}]}), "/error/message"),
        case("roboflow", "/clip/embed_text", |text| json!({"text": text}), "/message"),
        case(
            "clip-as-service",
            "/post",
            |text| json!({"data": [{"text": text}]}),
            "/header/status/description",
        ),
    ]
}

impl Answer {
    /// Checks the status of an error in a dialect, and gives the message that is at `pointer`.
    #[track_caller]
    fn refused(&self, status: u16, pointer: &str) -> String {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        let message = body.pointer(pointer).and_then(Value::as_str);
        message.unwrap_or_else(|| panic!("no {pointer} in {body}")).to_owned()
    }
}

impl Case {
    async fn send(&self, service: &Service, text: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(self.path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.send(request.body((self.body)(text).to_string().into()).unwrap()).await
    }
}

/// An Immich request of a text.
fn immich(text: &str) -> (String, Vec<u8>) {
    let entries = br#"{"clip": {"textual": {"modelName": "fake", "options": {"language": "en"}}}}"#;
    form(&[("entries", None, None, entries), ("text", None, None, text.as_bytes())])
}

#[tokio::test]
async fn whatever_is_wrong_is_said_in_the_dialects_shape() {
    let config =
        ApiConfig { api_keys: ApiKeys::new(["secret"]), max_body_bytes: 2000, ..ApiConfig::default() };
    let service = Service::configured(config).await;
    let key = ("authorization", "Bearer secret");
    for case in cases() {
        let Case { dialect, path, message, .. } = case;
        let said = case.send(&service, "cat", &[]).await.refused(401, message);
        assert!(said.contains("API key"), "{dialect}: {said}");
        assert_eq!(case.send(&service, "cat", &[key]).await.status, 200, "{dialect}");
        let request = Request::delete(path).body(Body::empty()).unwrap();
        let answer = service.send(request).await;
        assert!(answer.refused(405, message).contains("DELETE"), "{dialect}");
        assert!(answer.header("allow").contains("POST"), "{dialect}");
        let said = case.send(&service, &"x".repeat(3000), &[key]).await.refused(413, message);
        assert!(said.contains("2000 bytes"), "{dialect}: {said}");
        let late = ("x-request-timeout-ms", "40");
        let said = case.send(&service, &format!("slow {dialect}"), &[key, late]).await.refused(504, message);
        assert!(said.contains("40 ms"), "{dialect}: {said}");
        let said = case.send(&service, "cat", &[key, ("x-siglip-expect-fingerprint", "another")]).await;
        assert!(said.refused(412, message).contains("finger-fake"), "{dialect}");
        let body = Request::post(path).header("authorization", "Bearer secret").body("{\"".into()).unwrap();
        assert!(service.send(body).await.refused(400, message).contains("JSON"), "{dialect}");
    }
    for (path, message) in [
        ("/v2/nothing", "/message"),
        ("/v2/models/fake/nothing", "/error"),
        ("/api/nothing", "/error"),
        ("/clip/nothing", "/message"),
        ("/v1/nothing", "/error/message"),
    ] {
        assert!(service.get(path).await.refused(404, message).contains(path));
    }
    let (kind, body) = immich("cat");
    assert!(service.post("/predict", &kind, body).await.refused(401, "/detail").contains("API key"));
    assert_eq!(
        service.get("/predict").await.refused(405, "/detail"),
        "/predict does not answer GET; /docs lists what it does"
    );
}

#[tokio::test]
async fn full_queues_and_the_end_are_said_in_the_dialects_shape() {
    let engine = EngineConfig { max_queue_items: 1, ..engine_config() };
    let service = Service::with(ApiConfig::default(), engine).await;
    let held = tokio::spawn({
        let router = service.router.clone();
        let body = json!({"input": "slow and alone"}).to_string();
        let request = Request::post("/v1/embeddings").body(Body::from(body)).unwrap();
        async move { tower::ServiceExt::oneshot(router, request).await.unwrap().status() }
    });
    while service.state.engine().load().items == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for case in cases() {
        let answer = case.send(&service, "another text", &[]).await;
        answer.refused(429, case.message);
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{}", case.dialect);
    }
    assert_eq!(held.await.unwrap(), 200);
    service.state.begin_drain();
    for path in ["/.well-known/ready", "/v2/health/ready"] {
        assert_eq!(service.get(path).await.status, 503, "{path}");
    }
    for path in ["/.well-known/live", "/v2/health/live", "/ping", "/api/version"] {
        assert!(service.get(path).await.status.is_success(), "{path}");
    }
}

#[tokio::test]
async fn keys_are_found_where_each_client_puts_them() {
    let config = ApiConfig { api_keys: ApiKeys::new(["secret"]), ..ApiConfig::default() };
    let service = Service::configured(config).await;
    // `any:secret`
    let basic = ("authorization", "Basic YW55OnNlY3JldA==");
    let post = async |path: &str, header: (&str, &str), body: Value| {
        let request = Request::post(path).header(header.0, header.1).body(body.to_string().into()).unwrap();
        service.send(request).await.status
    };
    assert_eq!(post("/vectorize", basic, json!({"texts": ["a"]})).await, 200);
    assert_eq!(post("/embed", basic, json!({"inputs": "a"})).await, 401);
    assert_eq!(post(VERTEX, ("x-goog-api-key", "secret"), json!({"instances": [{"text": "a"}]})).await, 200);
    let none = ("x-nothing", "");
    assert_eq!(post("/clip/embed_text?api_key=secret", none, json!({"text": "a"})).await, 200);
    assert_eq!(post("/embed?api_key=secret", none, json!({"inputs": "a"})).await, 401);
    for path in ["/ping", "/.well-known/ready", "/v2/health/ready", "/v2", "/api/version"] {
        assert!(service.get(path).await.status.is_success(), "{path}");
    }
    for path in ["/models", "/meta", "/info", "/api/tags", "/v2/models/fake"] {
        assert_eq!(service.get(path).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_there_is_said_before_a_body_is_read() {
    let service = Service::new().await;
    for name in ["fake", "other"] {
        service.state.engine().remove(name).unwrap();
    }
    for path in ["/embed", "/similarity", "/tokenize", "/vectorize", "/post"] {
        let status = service.post(path, "application/json", "no JSON").await.status;
        assert_ne!(status, 400, "{path}");
        assert!(!status.is_success(), "{path}");
    }
}

#[tokio::test]
async fn only_the_dialects_that_are_chosen_are_served_and_listed() {
    let with = async |names: &str| {
        let dialects: Dialects = names.parse().unwrap();
        Service::configured(ApiConfig { dialects, ..ApiConfig::default() }).await
    };
    let service = with("tei, ollama").await;
    let page = String::from_utf8(service.get("/docs").await.bytes).unwrap();
    for case in cases() {
        let served = ["tei", "ollama"].contains(&case.dialect);
        let status = case.send(&service, "cat", &[]).await.status;
        assert_eq!(status == 200, served, "{}: {status}", case.dialect);
        assert_eq!(page.contains(&format!("<code>{}</code>", case.dialect)), served, "{}", case.dialect);
    }
    let none = with("none").await;
    assert!(!String::from_utf8(none.get("/docs").await.bytes).unwrap().contains("dialects"));
    none.json("/embed", json!({"inputs": "a"})).await.error(404, "route_not_found");
    none.json("/", json!({"inputs": "a"})).await.error(405, "method_not_allowed");
    let messages = json!({"messages": [{"role": "user", "content": "cat"}]});
    let said = none.json("/v1/embeddings", messages).await.error(400, "invalid_request");
    assert!(said.contains("unknown field `messages`"), "{said}");
}

#[tokio::test]
async fn no_route_of_a_dialect_is_in_the_contract() {
    let service = Service::new().await;
    let contract = service.get("/openapi.json").await.ok();
    let paths = contract["paths"].as_object().unwrap();
    for case in cases() {
        let documented = paths.get(case.path).is_some_and(|item| item.get("post").is_some());
        assert!(!documented, "{} {}", case.dialect, case.path);
    }
    assert!(!paths.contains_key("/predict") && !paths.contains_key("/models"));
    let request = &contract["components"]["schemas"]["EmbeddingsRequest"]["properties"];
    assert!(request.get("input").is_some() && request.get("messages").is_none());
}
