//! What is around the routes: health, models, errors, keys, CORS, ids, deadlines.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use siglip::testing::api::{ApiConfig, ApiKeys, AppState, Cors, app};
use siglip::testing::engine::{Engine, EngineConfig, Model};

use tower::ServiceExt;

use super::fake::Fake;
use super::{Service, engine_config};

#[tokio::test]
async fn health_and_models() {
    let service = Service::new().await;
    let health = service.get("/health").await.ok();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["models"], json!(["fake", "other"]));
    assert_eq!(service.get("/health/live").await.status, 200);
    assert_eq!(service.get("/health/ready").await.status, 200);
    let list = service.get("/v1/models").await.ok();
    assert_eq!(list["object"], "list");
    let model = service.get("/v1/models/fake").await.ok();
    assert_eq!(list["data"][0], model);
    assert_eq!(model["id"], "fake");
    assert_eq!(model["object"], "model");
    assert_eq!(model["dimensions"], 12);
    assert_eq!(model["fingerprint"], "finger-fake");
    assert_eq!(model["image"]["decode"], "exact");
    assert_eq!(model["image"]["patch_grid"], json!({"rows": 14, "cols": 14}));
    assert_eq!(model["text"]["context"], 16);
    assert_eq!(model["dtype"], "f32");
    assert!(service.get("/v1/models/no").await.error(404, "model_not_found").contains("fake, other"));

    service.state.begin_drain();
    assert_eq!(service.get("/health/ready").await.status, 503);
    assert_eq!(service.get("/health").await.json()["status"], "draining");
    assert_eq!(service.get("/health/live").await.status, 200);
    service.json("/v1/embeddings", json!({"input": "what is here is still answered"})).await.ok();
}

#[tokio::test]
async fn a_lost_device_shows_in_every_health_route() {
    let fake = Arc::new(Fake::new("fake"));
    let engine = Engine::start(engine_config());
    engine.insert(&["fake"], fake.clone()).expect("the name is free");
    engine.warmed_up().await.unwrap();
    let state = AppState::new(engine, ApiConfig::default(), None);
    let service = Service { router: app(state.clone()), state };
    fake.lost.store(true, Ordering::SeqCst);
    for i in 0..3 {
        let answer = service.json("/v1/embeddings", json!({"input": format!("text {i}")})).await;
        assert_eq!(answer.status, 500);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(!message.contains("lost"), "what failed is for the log: {message}");
        assert!(message.contains(answer.header("x-request-id")), "{message}");
    }
    // The worker judges the device once the answers are out.
    let becomes = async |status: u16| {
        for _ in 0..1000 {
            if service.get("/health/ready").await.status == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("/health/ready does not become {status}");
    };
    becomes(503).await;
    assert_eq!(service.get("/health").await.json()["status"], "failing");
    assert_eq!(service.get("/health/live").await.status, 503, "an orchestrator should restart it");
    fake.lost.store(false, Ordering::SeqCst);
    service.json("/v1/embeddings", json!({"input": "a request that works"})).await.ok();
    becomes(200).await;
    assert_eq!(service.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn metrics_and_documents() {
    let service = Service::new().await;
    let metrics = service.get("/metrics").await;
    assert_eq!(metrics.bytes, b"siglip_up 1\n");
    assert!(metrics.header("content-type").starts_with("text/plain"));
    assert_eq!(service.get("/").await.ok()["docs"], "/docs");
    let page = service.get("/docs").await;
    assert!(page.header("content-type").starts_with("text/html"));
    let text = String::from_utf8(page.bytes).unwrap();
    for other_host in ["http://", "https://", "src=\"//", "@import"] {
        assert!(!text.contains(other_host), "the page needs {other_host}");
    }
}

#[tokio::test]
async fn every_error_has_one_shape() {
    let service = Service::new().await;
    assert!(service.get("/nothing").await.error(404, "route_not_found").contains("GET /nothing"));
    let answer = service.get("/v1/embeddings").await;
    answer.error(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST");
    service.get("/v1/models/%ff").await.error(400, "invalid_request");
    service.post("/health", "text/plain", "").await.error(405, "method_not_allowed");
}

#[tokio::test]
async fn request_ids_are_kept_or_made() {
    let service = Service::new().await;
    let with = |id: &str| Request::get("/health").header("x-request-id", id).body(Body::empty()).unwrap();
    assert_eq!(service.send(with("abc-1")).await.header("x-request-id"), "abc-1");
    assert_eq!(service.send(with(&"x".repeat(200))).await.header("x-request-id").len(), 36);
    let ids: Vec<String> = [service.get("/nothing").await, service.get("/health").await]
        .map(|a| a.header("x-request-id").to_owned())
        .into();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn keys_protect_the_work_and_nothing_else() {
    let config = ApiConfig { api_keys: ApiKeys::new(["secret", "other"]), ..ApiConfig::default() };
    let service = Service::configured(config).await;
    let ask = async |header: &str, value: &str| {
        let request = Request::get("/v1/models").header(header, value).body(Body::empty()).unwrap();
        service.send(request).await
    };
    for path in ["/health", "/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json", "/"] {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }
    let missing = service.get("/v1/models").await;
    assert!(missing.error(401, "invalid_api_key").contains("Authorization: Bearer"));
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    for (header, value) in
        [("authorization", "Bearer secre"), ("authorization", "Basic secret"), ("x-api-key", "")]
    {
        ask(header, value).await.error(401, "invalid_api_key");
    }
    for (header, value) in
        [("authorization", "Bearer secret"), ("authorization", "bearer other"), ("x-api-key", "secret")]
    {
        assert_eq!(ask(header, value).await.status, 200, "{header}: {value}");
    }
    // Before the body is read: a stranger costs nothing.
    service.post("/v1/embeddings", "application/json", "{").await.error(401, "invalid_api_key");
    assert_eq!(service.get("/nothing").await.status, 404);
}

#[tokio::test]
async fn browsers_are_told_who_may_call() {
    let origin = "https://example.com";
    let preflight = |origin: &str| {
        let request = Request::options("/v1/classify").header("origin", origin);
        let request = request.header("access-control-request-headers", "authorization,x-stainless-lang");
        request.header("access-control-request-method", "POST").body(Body::empty()).unwrap()
    };
    let cors = Cors::Origins(vec![origin.parse().unwrap()]);
    let service = Service::configured(ApiConfig { cors, ..ApiConfig::default() }).await;
    let answer = service.send(preflight(origin)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), origin);
    assert_eq!(answer.header("access-control-allow-headers"), "authorization,x-stainless-lang");
    assert!(
        !service
            .send(preflight("https://evil.example"))
            .await
            .headers
            .contains_key("access-control-allow-origin")
    );
    let own = Request::options("/v1/classify").header("origin", origin);
    let own = own.header("access-control-request-method", "POST");
    let own = own.header("access-control-request-headers", "authorization,x-stainless-lang,x-stainless-os");
    let allowed = service.send(own.body(Body::empty()).unwrap()).await;
    assert_eq!(
        allowed.header("access-control-allow-headers"),
        "authorization,x-stainless-lang,x-stainless-os",
        "what OpenAI's client sends from a browser"
    );
    let open = Service::configured(ApiConfig { cors: Cors::Any, ..ApiConfig::default() }).await;
    assert_eq!(open.send(preflight(origin)).await.header("access-control-allow-origin"), "*");
    let closed = Service::new().await;
    assert!(!closed.send(preflight(origin)).await.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn deadlines_are_kept() {
    let service =
        Service::configured(ApiConfig { request_timeout: Duration::from_secs(5), ..ApiConfig::default() })
            .await;
    let ask = async |ms: &str| {
        let body = Body::from(json!({"input": format!("slow {ms}")}).to_string());
        let request = Request::post("/v1/embeddings").header("content-type", "application/json");
        service.send(request.header("x-request-timeout-ms", ms).body(body).unwrap()).await
    };
    let started = Instant::now();
    assert!(ask("50").await.error(504, "deadline_exceeded").contains("50 ms"));
    assert!(started.elapsed() < Duration::from_millis(180), "the answer does not wait for the work");
    ask("4000").await.ok();
    ask("99999999").await.ok();
    for wrong in ["0", "-1", "soon"] {
        ask(wrong).await.error(400, "invalid_header");
    }
    let short = ApiConfig { request_timeout: Duration::from_millis(50), ..ApiConfig::default() };
    let service = Service::configured(short).await;
    service.json("/v1/embeddings", json!({"input": "slow"})).await.error(504, "deadline_exceeded");
}

#[tokio::test]
async fn a_full_queue_is_429_with_retry_after() {
    let engine = EngineConfig { max_queue_items: 2, ..engine_config() };
    let service = Service::with(ApiConfig { max_items: 8, ..ApiConfig::default() }, engine).await;
    let too_large = service.json("/v1/embeddings", json!({"input": ["a", "b", "c"]})).await;
    too_large.error(413, "payload_too_large");
    let request = |i: usize| json!({"input": [format!("slow {i}"), format!("slow {i}b")]});
    let (a, b) =
        tokio::join!(service.json("/v1/embeddings", request(1)), service.json("/v1/embeddings", request(2)));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429]);
    let refused = if a.status == 429 { a } else { b };
    refused.error(429, "overloaded");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn below_a_base_path_and_without_it() {
    let base_path = "/siglip".parse().unwrap();
    let service = Service::configured(ApiConfig { base_path, ..ApiConfig::default() }).await;
    for path in ["/siglip/v1/models/fake", "/v1/models/fake", "/siglip/health/ready", "/siglip", "/siglip/"] {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }
    let answer = service.json("/siglip/v1/embeddings", json!({"input": "cat"})).await;
    assert_eq!(answer.ok()["model"], "fake");
    service.get("/siglip2/v1/models").await.error(404, "route_not_found");
}

#[tokio::test]
async fn operators_have_a_port_of_their_own() {
    let service = Service::configured(ApiConfig { admin_apart: true, ..ApiConfig::default() }).await;
    service.get("/metrics").await.error(404, "route_not_found");
    assert_eq!(service.get("/health/ready").await.status, 200, "a load balancer asks where it sends");
    let admin =
        Service { router: siglip::testing::api::admin(service.state.clone()), state: service.state.clone() };
    assert_eq!(admin.get("/metrics").await.bytes, b"siglip_up 1\n");
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    admin.json("/v1/embeddings", json!({"input": "cat"})).await.error(404, "route_not_found");
}

#[tokio::test]
async fn a_name_with_a_slash_is_a_models_name() {
    let engine = Engine::start(engine_config());
    engine.insert(&["m", "google/m"], Arc::new(Fake::new("m")) as Arc<dyn Model>).unwrap();
    engine.warmed_up().await.unwrap();
    let state = AppState::new(engine, ApiConfig::default(), None);
    let service = Service { router: app(state.clone()), state };
    assert_eq!(service.get("/v1/models/google/m").await.ok()["id"], "m");
    assert_eq!(service.get("/v1/models/google%2Fm").await.ok()["id"], "m");
    service.get("/v1/models/google/x").await.error(404, "model_not_found");
    let answer = service.json("/v1/embeddings", json!({"input": "cat", "model": "google/m"})).await;
    assert_eq!(answer.ok()["model"], "m");
}

#[tokio::test]
async fn readiness_says_how_each_model_is() {
    let service = Service::new().await;
    let ready = service.get("/health/ready").await.ok();
    assert_eq!(ready["status"], "ok");
    assert_eq!(ready["models"][1], json!({"name": "other", "state": "ready"}));

    let (release, held) = std::sync::mpsc::channel::<()>();
    let engine = Engine::start(engine_config());
    engine
        .add(&["slow"], move |progress| {
            progress.downloading(3, Some(10));
            let _ = held.recv();
            Err(siglip::testing::Error::Config("no such disk".to_owned()))
        })
        .unwrap();
    let state = AppState::new(engine, ApiConfig::default(), None);
    let service = Service { router: app(state.clone()), state };
    let ready = async || {
        let answer = service.get("/health/ready").await;
        assert_eq!(answer.status, 503);
        answer.json()
    };
    let began = Instant::now();
    while ready().await["models"][0]["state"] != "downloading" {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let state = ready().await;
    assert_eq!(state["models"][0], json!({"name": "slow", "state": "downloading", "bytes": 3, "total": 10}));
    assert_eq!(state["status"], "starting");
    let answer = service.json("/v1/embeddings", json!({"input": "cat"})).await;
    answer.error(503, "model_loading");
    assert!(answer.headers.contains_key("retry-after"));
    release.send(()).unwrap();
    while ready().await["models"][0]["state"] != "failed" {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let state = ready().await;
    assert!(state["models"][0]["reason"].as_str().unwrap().contains("no such disk"), "{state}");
    assert_eq!(state["status"], "failing");
    assert_eq!(service.get("/health/live").await.status, 200, "a restart would not mend it");
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_request_leaves_one_line_with_its_client_its_model_and_its_end() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // Where there is one subscriber, tracing asks only that of the thread which comes to a line first. That may be another test's,
    // which has none, and the line would be off for all of them: so there are two.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _set = tracing::subscriber::set_default(lines);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "anna:secret\n").unwrap();
    let api_keys = ApiKeys::with_file([], file.path()).unwrap();
    let service = Service::configured(ApiConfig { api_keys, ..ApiConfig::default() }).await;
    let body = json!({"input": ["cat", "dog"]}).to_string();
    let length = body.len();
    let request = |body: String| {
        let request = Request::post("/v1/embeddings").header("content-type", "application/json");
        request.header("x-api-key", "secret").body(Body::from(body)).unwrap()
    };
    let sent = service.send(request(body)).await.bytes.len();
    let text = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = text().lines().find(|line| line.contains("siglip::access")).unwrap().to_owned();
    for part in [
        "client=anna",
        "status=200",
        "outcome=\"ok\"",
        "model=\"fake\"",
        "inputs=2",
        "path=/v1/embeddings",
        &format!("received={length}"),
        &format!("sent={sent}"),
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    service.send(request("{".to_owned())).await;
    let line = text().lines().filter(|line| line.contains("siglip::access")).nth(1).unwrap().to_owned();
    assert!(line.contains("outcome=\"malformed_json\"") && line.contains("status=400"), "{line}");
    // An answer that nobody takes.
    let answer = service.router.clone().oneshot(request(json!({"input": "cat"}).to_string())).await.unwrap();
    drop(answer);
    let line = text().lines().filter(|line| line.contains("siglip::access")).nth(2).unwrap().to_owned();
    assert!(line.contains("outcome=\"client left\"") && line.contains("sent=0"), "{line}");
    // Probes ask all day.
    for path in ["/health/live", "/ping", "/.well-known/ready", "/v2/health/live", "/v2"] {
        assert!(service.get(path).await.status.is_success(), "{path}");
    }
    let asked = text().lines().filter(|line| line.contains("siglip::access")).skip(3).count();
    assert_eq!(asked, 1, "only /v2: {}", text());
}
