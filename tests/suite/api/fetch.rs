//! Pictures by URL: off unless allowed, never from a private address, bounded.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use siglip::testing::api::{ApiConfig, ApiKeys, FetchPolicy};
use siglip::testing::budget::MemoryBudget;
use tower::ServiceExt;

use super::{Service, assert_close, floats, unit};

/// A host on this machine that answers every path it knows.
fn host() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let n = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..n]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let redirect =
                    |to: &str| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
                let answer = match path {
                    "/picture" => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nPIC1".to_owned(),
                    "/near" => redirect("/picture"),
                    "/metadata" => redirect("http://169.254.169.254/latest"),
                    "/loopback" => redirect(&format!("http://localhost:{}/picture", address.port())),
                    "/file" => redirect("file:///etc/passwd"),
                    "/loop" => redirect("/loop"),
                    "/large" => {
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nPIC{}", "x".repeat(100_000))
                    }
                    "/mebibyte" => {
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nPIC{}", "x".repeat(1 << 20))
                    }
                    "/slow" => {
                        std::thread::sleep(Duration::from_secs(5));
                        String::new()
                    }
                    "/broken" => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
                    "/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nPI".to_owned(),
                    _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    address
}

fn policy() -> FetchPolicy {
    FetchPolicy {
        private_hosts: vec!["127.0.0.1".parse().unwrap()],
        max_bytes: 10_000,
        timeout: Duration::from_millis(700),
        ..FetchPolicy::default()
    }
}

async fn ask(service: &Service, url: &str) -> super::Answer {
    service.json("/v1/embeddings", json!({"input": [{"image": url}]})).await
}

#[tokio::test]
async fn off_unless_allowed() {
    let service = Service::new().await;
    let message = ask(&service, "http://example.com/cat.jpg").await.error(422, "url_fetch_disabled");
    assert!(message.starts_with("input[0]: ") && message.contains("--allow-url-fetch"), "{message}");
}

#[tokio::test]
async fn allowed_hosts_are_fetched_and_redirects_followed() {
    let address = host();
    let service = Service::configured(ApiConfig { fetch: Some(policy()), ..ApiConfig::default() }).await;
    for path in ["picture", "near"] {
        let body = ask(&service, &format!("http://{address}/{path}")).await.ok();
        assert_close(&floats(&body["data"][0]["embedding"]), &unit(b"PIC1"));
    }
}

#[tokio::test]
async fn what_is_not_allowed_or_not_there_is_said() {
    let address = host();
    let service = Service::configured(ApiConfig { fetch: Some(policy()), ..ApiConfig::default() }).await;
    for (path, status, code, part) in [
        ("metadata", 422, "url_not_allowed", "169.254.169.254"),
        ("loopback", 422, "url_not_allowed", "not on the public internet"),
        ("file", 422, "url_not_allowed", "\"file\""),
        ("loop", 422, "url_fetch_failed", "redirects"),
        ("large", 422, "url_fetch_failed", "larger than 10000 bytes"),
        ("nothing", 422, "url_fetch_failed", "404"),
        // Not the caller's fault: the same request may pass later.
        ("slow", 502, "url_fetch_failed", "not fetched within"),
        ("broken", 502, "url_fetch_failed", "503"),
        ("cut", 502, "url_fetch_failed", "could not be fetched"),
    ] {
        let message = ask(&service, &format!("http://{address}/{path}")).await.error(status, code);
        assert!(message.starts_with("input[0]: ") && message.contains(part), "{path}: {message}");
    }
    let port = address.port();
    ask(&service, &format!("http://localhost:{port}/picture")).await.error(422, "url_not_allowed");
    ask(&service, &format!("http://[::1]:{port}/picture")).await.error(422, "url_not_allowed");
}

#[tokio::test]
async fn partial_leaves_the_others_alone() {
    let address = host();
    let service = Service::configured(ApiConfig { fetch: Some(policy()), ..ApiConfig::default() }).await;
    let urls: Vec<Value> = ["picture", "nothing", "picture", "broken"]
        .iter()
        .map(|p| json!({"image": format!("http://{address}/{p}")}))
        .collect();
    let body = service.json("/v1/embeddings", json!({"input": urls, "partial": true})).await.ok();
    let kinds: Vec<&str> = (0..4).map(|i| body["data"][i]["object"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["embedding", "error", "embedding", "error"]);
}

#[tokio::test]
async fn what_one_request_fetches_is_bounded_and_charged() {
    let address = host();
    let policy = FetchPolicy { max_bytes: 2 << 20, timeout: Duration::from_secs(10), ..policy() };
    let fetching = async |memory: usize, together: usize| {
        let config = ApiConfig {
            fetch: Some(policy.clone()),
            max_body_bytes: together,
            memory: MemoryBudget::new(memory),
            ..ApiConfig::default()
        };
        Service::configured(config).await
    };
    let ask = async |service: &Service, n: usize| {
        let input = vec![json!({"image": format!("http://{address}/mebibyte")}); n];
        service.json("/v1/embeddings", json!({"input": input})).await
    };
    let service = fetching(256 << 20, 4 << 20).await;
    ask(&service, 3).await.ok();
    let message = ask(&service, 8).await.error(413, "payload_too_large");
    assert!(message.contains("4194304 bytes together"), "{message}");
    assert_eq!(service.state.memory().total(), 0);
    // A client may hold 16 MiB here: thirty never fit together, however often it comes again.
    let service = fetching(32 << 20, 64 << 20).await;
    ask(&service, 1).await.ok();
    let message = ask(&service, 30).await.error(413, "payload_too_large");
    assert!(message.contains("one client may hold 16777216"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_hosts_are_slow_leaves_fetches_to_the_others() {
    let address = host();
    let policy = FetchPolicy { timeout: Duration::from_secs(4), ..policy() };
    let api_keys = ApiKeys::new(["greedy", "quiet"]);
    let service =
        Service::configured(ApiConfig { fetch: Some(policy), api_keys, ..ApiConfig::default() }).await;
    let request = |key: &str, path: &str, count: usize| {
        let urls = vec![json!({"image": format!("http://{address}/{path}")}); count];
        let request = Request::post("/v1/embeddings").header("content-type", "application/json");
        request.header("x-api-key", key).body(Body::from(json!({"input": urls}).to_string())).unwrap()
    };
    // More than there are slots, each for four seconds.
    let greedy = tokio::spawn({
        let (router, request) = (service.router.clone(), request("greedy", "slow", 200));
        async move { router.oneshot(request).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    service.send(request("quiet", "picture", 4)).await.ok();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(!greedy.is_finished());
    greedy.abort();
}
