//! Through real sockets: slow clients, clients that leave, TLS, connection limits, an orderly end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use siglip::api::{ApiConfig, ApiKeys, Stopped, Tls, serve};
use siglip::engine::EngineConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Service, engine_config, fake};

struct Running {
    address: SocketAddr,
    service: Service,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<std::io::Result<Stopped>>,
}

async fn run(config: ApiConfig, engine: EngineConfig, tls: Option<Tls>, drain: Duration) -> Running {
    let service = Service::with(config, engine).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let running = serve(listener, service.router.clone(), service.state.clone(), tls, drain, shutdown);
    Running { address, service, stop: Some(stop), ended: tokio::spawn(running) }
}

async fn plain(config: ApiConfig) -> Running {
    run(config, engine_config(), None, Duration::from_secs(5)).await
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
    // So is a connection that idles after an answer.
    let mut stream = running.connect().await;
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(3), rest(&mut stream)).await.expect("closed");
    assert!(answer.starts_with("HTTP/1.1 200"));
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
    let running = run(ApiConfig::default(), engine, None, Duration::from_secs(5)).await;
    let before = fake::COMPUTED.load(Ordering::SeqCst);
    let mut streams = Vec::new();
    for i in 0..50 {
        let mut stream = running.connect().await;
        let body = json!({"input": [format!("slow {i}")]}).to_string();
        stream.write_all(post("/v1/embeddings", &body).as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let state = running.service.state.clone();
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
async fn connections_over_the_limit_are_closed_and_places_come_back() {
    let running = plain(ApiConfig { max_connections: 2, ..ApiConfig::default() }).await;
    let live = "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (mut first, mut second) = (running.connect().await, running.connect().await);
    // Both are accepted once both have been answered in part.
    first.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    second.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    first.read_exact(&mut byte).await.unwrap();
    second.read_exact(&mut byte).await.unwrap();
    assert_eq!(exchange(&mut running.connect().await, live).await, "");
    drop((first, second));
    let began = Instant::now();
    while !exchange(&mut running.connect().await, live).await.starts_with("HTTP/1.1 200") {
        assert!(began.elapsed() < Duration::from_secs(5), "the places did not come back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_here_is_answered_before_the_end() {
    let mut running = run(ApiConfig::default(), engine_config(), None, Duration::from_secs(10)).await;
    let mut idle = running.connect().await;
    let mut busy = running.connect().await;
    let body = json!({"input": ["slow 1", "slow 2"]}).to_string();
    busy.write_all(post("/v1/embeddings", &body).as_bytes()).await.unwrap();
    let state = running.service.state.clone();
    wait_for("it is admitted", || state.engine().load().items == 2).await;
    running.signal();
    let answer = rest(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(document(&answer)["data"].as_array().unwrap().len(), 2);
    let stopped =
        tokio::time::timeout(Duration::from_secs(5), running.ended).await.expect("ends").unwrap().unwrap();
    assert_eq!(stopped.engine.abandoned, 0);
    assert_eq!(rest(&mut idle).await, "", "an idle connection does not hold the service up");
    assert!(TcpStream::connect(running.address).await.is_err(), "no new connection is taken");
}

#[tokio::test]
async fn the_drain_ends_when_its_time_is_up() {
    let mut running = run(ApiConfig::default(), engine_config(), None, Duration::from_millis(300)).await;
    let mut stuck = running.connect().await;
    stuck.write_all(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.signal();
    let stopped =
        tokio::time::timeout(Duration::from_secs(3), running.ended).await.expect("ends").unwrap().unwrap();
    assert!(stopped.took >= Duration::from_millis(250), "{:?}", stopped.took);
}

#[tokio::test]
async fn tls_by_files() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Tls::from_files(&cert, &key).unwrap();
    let running = run(ApiConfig::default(), engine_config(), Some(tls), Duration::from_secs(5)).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = running.connect().await;
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(post("/v1/embeddings", r#"{"input": "cat"}"#).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(document(&answer)["data"][0]["index"], 0);
    running.stop().await;

    let swapped = Tls::from_files(&key, &cert).unwrap_err().to_string();
    assert!(swapped.contains("key.pem") || swapped.contains("cert.pem"), "{swapped}");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    assert!(
        Tls::from_files(&cert, &key).unwrap_err().to_string().contains("key.pem"),
        "a key of another certificate"
    );
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
