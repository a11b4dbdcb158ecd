//! The HTTP service through its router and through real sockets, over a model whose vectors are known.

mod admin;
mod background;
mod classify;
mod contract;
mod dialects;
mod embeddings;
mod examples;
mod fake;
mod fetch;
mod heatmaps;
mod images;
mod label_sets;
mod operations;
mod parsers;
mod playground;
mod score;
mod sockets;
mod tokenize;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;
use siglip::testing::api::{ApiConfig, AppState, app};
use siglip::testing::engine::{Engine, EngineConfig};
use tower::ServiceExt;

use fake::Fake;

/// A service over two fake models: `fake` and `other`.
struct Service {
    router: Router,
    state: AppState,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Service {
    async fn new() -> Self {
        Self::with(ApiConfig::default(), engine_config()).await
    }

    async fn configured(config: ApiConfig) -> Self {
        Self::with(config, engine_config()).await
    }

    async fn with(config: ApiConfig, engine: EngineConfig) -> Self {
        let engine = Engine::start(engine);
        for name in ["fake", "other"] {
            engine.insert(&[name], Arc::new(Fake::new(name))).expect("the name is free");
        }
        engine.warmed_up().await.expect("the fake model warms up");
        let state = AppState::new(engine, config, Some(Arc::new(|| "siglip_up 1\n".to_owned())));
        Self { router: app(state.clone()), state }
    }

    /// A service over the embedded model, in f32 on the processor.
    #[cfg(feature = "demo")]
    fn demo() -> Self {
        use siglip::testing::checkpoint::{HubOptions, ModelRef};
        use siglip::testing::engine::PipelineModel;
        use siglip::testing::pipeline::{DeviceChoice, LoadOptions, Precision};

        let options =
            LoadOptions { precision: Precision::F32, device: DeviceChoice::Cpu, ..LoadOptions::default() };
        let hub = HubOptions::from_variables(|_| None);
        let model = PipelineModel::open(&ModelRef::Demo, &hub, &options).expect("it is in the program");
        let engine = Engine::start(engine_config());
        engine.insert(&["demo"], Arc::new(model)).expect("the name is free");
        let state = AppState::new(engine, ApiConfig::default(), None);
        Self { router: app(state.clone()), state }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.router.clone().oneshot(request).await.expect("a router does not fail")).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(path).header("content-type", content_type);
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn json(&self, path: &str, body: Value) -> Answer {
        self.post(path, "application/json", body.to_string()).await
    }
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body in memory").to_bytes().to_vec();
        Self { status: parts.status, headers: parts.headers, bytes }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.bytes)))
    }

    /// The document of a success.
    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// Checks the shape of an error and gives its message.
    #[track_caller]
    fn error(&self, status: u16, code: &str) -> String {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        // On routes that a dialect shares, its clients find the message in `detail` as well.
        let beside: Vec<_> = body.as_object().unwrap().keys().filter(|key| *key != "error").collect();
        assert!(beside.is_empty() || beside == ["detail"], "{body}");
        let error = body["error"].as_object().unwrap();
        let keys: Vec<_> = error.keys().map(String::as_str).collect();
        assert_eq!(keys, ["message", "type", "param", "code"]);
        assert_eq!(error["code"], code, "{body}");
        error["message"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }
}

fn engine_config() -> EngineConfig {
    EngineConfig {
        max_queue_items: 2048,
        max_queue_bytes: 64 << 20,
        prepare_threads: 2,
        tokenize_threads: 1,
        oom_backoff: Duration::from_secs(1),
        ..EngineConfig::default()
    }
}

/// A vector of a document.
fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// The normalised vector that the fake model gives for these bytes.
fn unit(content: &[u8]) -> Vec<f32> {
    let mut vector = fake::vector(content);
    siglip::testing::model::scores::l2_normalize(&mut vector);
    vector
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-5), "{a:?} {b:?}");
}

/// A part of a form: name, file name, media type, content.
type Part<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a [u8]);

/// The content type and the body of a form.
fn form(parts: &[Part]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, kind, content) in parts {
        body.extend_from_slice(format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"").as_bytes());
        if let Some(file) = file {
            body.extend_from_slice(format!("; filename=\"{file}\"").as_bytes());
        }
        if let Some(kind) = kind {
            body.extend_from_slice(format!("\r\nContent-Type: {kind}").as_bytes());
        }
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    ("multipart/form-data; boundary=XX".to_owned(), body)
}
