//! Through real sockets: slow clients and clients that leave.

mod http2;
mod shares;
mod stopping;
mod tls;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use siglip::testing::api::{ApiConfig, ApiKeys, AppState, DrainTimes, Port, Stopped, Tls, app, serve};
use siglip::testing::engine::{Engine, EngineConfig, Model};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::fake::Fake;
use super::{engine_config, fake};

struct Running {
    address: SocketAddr,
    state: AppState,
    fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<std::io::Result<Stopped>>,
}

async fn run(config: ApiConfig, engine: EngineConfig, tls: Option<Tls>, times: DrainTimes) -> Running {
    let fake = Arc::new(Fake::new("fake"));
    let engine = Engine::start(engine);
    engine.insert(&["fake"], Arc::clone(&fake) as Arc<dyn Model>).unwrap();
    engine.warmed_up().await.expect("the fake model warms up");
    let state = AppState::new(engine, config, None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let port = Port {
        name: "main",
        listeners: vec![listener],
        router: app(state.clone()),
        tls,
        max_connections: state.config().max_connections,
    };
    let running = serve(vec![port], state.clone(), times, shutdown);
    Running { address, state, fake, stop: Some(stop), ended: tokio::spawn(running) }
}

/// At once not ready and refusing, then so long for what was begun.
fn within(timeout: Duration) -> DrainTimes {
    DrainTimes { delay: Duration::ZERO, timeout }
}

async fn plain(config: ApiConfig) -> Running {
    run(config, engine_config(), None, within(Duration::from_secs(5))).await
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(mut self) -> Stopped {
        self.signal();
        self.ended.await.unwrap().unwrap()
    }

    fn signal(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Sends and reads until the end.
async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is closed with unread bytes may end in a reset: what came before counts.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn document(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("head and body").1).unwrap()
}

#[tokio::test]
async fn a_request_over_a_socket() {
    let running = plain(ApiConfig::default()).await;
    let answer = exchange(&mut running.connect().await, &post("/v1/embeddings", r#"{"input": "cat"}"#)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(document(&answer)["model"], "fake");
    assert_eq!(running.stop().await.engine.abandoned, 0);
}

#[tokio::test]
async fn slow_heads_are_cut_off() {
    let config = ApiConfig { header_timeout: Duration::from_millis(300), ..ApiConfig::default() };
    let running = plain(config).await;
    for start in ["", "GET / HTTP/1.1\r\nhost: x\r\nx-"] {
        let mut stream = running.connect().await;
        stream.write_all(start.as_bytes()).await.unwrap();
        let began = Instant::now();
        let answer = tokio::time::timeout(Duration::from_secs(3), rest(&mut stream)).await.expect("closed");
        assert!(!answer.contains("200"), "{answer}");
        assert!(began.elapsed() >= Duration::from_millis(200), "{start:?}: not at once");
    }
    running.stop().await;
}

/// Sends a request on a connection that is kept, and reads its answer.
async fn ask_live(stream: &mut TcpStream) {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"live\n") {
        let mut bytes = [0; 512];
        let read = stream.read(&mut bytes).await.unwrap();
        assert!(read > 0, "closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..read]);
    }
}

#[tokio::test]
async fn connections_are_kept_for_longer_than_a_head_may_take() {
    let config = ApiConfig {
        header_timeout: Duration::from_millis(200),
        keep_alive: Duration::from_millis(1500),
        ..ApiConfig::default()
    };
    let running = plain(config).await;
    let mut stream = running.connect().await;
    for _ in 0..2 {
        ask_live(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    ask_live(&mut stream).await;
    let began = Instant::now();
    tokio::time::timeout(Duration::from_secs(10), rest(&mut stream)).await.expect("closed");
    assert!(began.elapsed() >= Duration::from_millis(1200), "{:?}", began.elapsed());
    // The head of a later request has no more time than that of the first.
    let mut stream = running.connect().await;
    ask_live(&mut stream).await;
    stream.write_all(b"GET / HT").await.unwrap();
    let began = Instant::now();
    tokio::time::timeout(Duration::from_secs(10), rest(&mut stream)).await.expect("closed");
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn slow_bodies_get_408() {
    let config = ApiConfig { body_timeout: Duration::from_millis(300), ..ApiConfig::default() };
    let running = plain(config).await;
    let mut stream = running.connect().await;
    let whole = post("/v1/embeddings", &" ".repeat(100));
    stream.write_all(&whole.as_bytes()[..whole.len() - 50]).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(3), rest(&mut stream)).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(document(&answer)["error"]["code"], "body_timeout");
    running.stop().await;
}

#[tokio::test]
async fn clients_that_do_not_read_are_dropped() {
    let config =
        ApiConfig { body_timeout: Duration::from_millis(500), max_connections: 1, ..ApiConfig::default() };
    let running = plain(config).await;
    let mut stream = running.connect().await;
    // Far more than the buffers of both sides hold.
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    stream.write_all(requests.as_bytes()).await.unwrap();
    let live = "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let began = Instant::now();
    while !exchange(&mut running.connect().await, live).await.starts_with("HTTP/1.1 200") {
        assert!(began.elapsed() < Duration::from_secs(15), "the only place was not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn clients_that_leave_leave_no_work() {
    let engine = EngineConfig { max_batch_tokens: Some(fake::CONTEXT), cache_bytes: 0, ..engine_config() };
    let running = run(ApiConfig::default(), engine, None, within(Duration::from_secs(5))).await;
    let before = fake::COMPUTED.load(Ordering::SeqCst);
    let mut streams = Vec::new();
    for i in 0..50 {
        let mut stream = running.connect().await;
        let body = json!({"input": [format!("slow {i}")]}).to_string();
        stream.write_all(post("/v1/embeddings", &body).as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let state = running.state.clone();
    wait_for("all are admitted", || state.engine().load().items >= 40).await;
    drop(streams);
    wait_for("none is left", || state.engine().load().items == 0).await;
    // Each takes 200 ms alone in its batch: had they stayed, this would have taken ten seconds.
    assert!(fake::COMPUTED.load(Ordering::SeqCst) - before < 40, "the work of those who left was dropped");
    let answer = exchange(&mut running.connect().await, &post("/v1/embeddings", r#"{"input": "cat"}"#)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    running.stop().await;
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: not within 5 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn refusals_reach_clients_that_are_still_sending() {
    let config =
        ApiConfig { api_keys: ApiKeys::new(["secret"]), max_body_bytes: 1 << 20, ..ApiConfig::default() };
    let running = plain(config).await;
    let length = 12 << 20;
    for (line, key, status) in [
        ("POST /v1/embeddings", "wrong", "401"),
        ("POST /v1/nothing", "secret", "404"),
        ("POST /v1/models", "secret", "405"),
        ("POST /v1/embeddings", "secret", "413"),
    ] {
        let mut stream = running.connect().await;
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Only what reads nothing while it sends sees the reset.
        stream.write_all(&vec![b' '; length]).await.unwrap_or_else(|error| panic!("{line}: {error}"));
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer:?}");
    }
    running.stop().await;
}
