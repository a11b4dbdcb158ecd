//! Shares of connections: who makes room when there are too many.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use siglip::testing::api::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Running, ask_live, exchange, plain, post};

const LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A connection from another address of this machine.
async fn connect_from(address: &str, running: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(running.address).await.unwrap()
}

fn limited(max_connections: usize) -> ApiConfig {
    ApiConfig { max_connections, ..ApiConfig::default() }
}

#[tokio::test]
async fn a_client_over_the_limit_loses_its_own_oldest_connection() {
    let running = plain(limited(2)).await;
    let (mut first, mut second) = (running.connect().await, running.connect().await);
    ask_live(&mut first).await;
    ask_live(&mut second).await;
    assert!(exchange(&mut running.connect().await, LIVE).await.starts_with("HTTP/1.1 200"));
    let mut byte = [0];
    assert_eq!(first.read(&mut byte).await.unwrap_or(0), 0, "the oldest was closed");
    ask_live(&mut second).await;
    running.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn four_hundred_slow_connections_of_one_client_leave_the_others_alone() {
    let running = plain(limited(64)).await;
    let mut kept = connect_from("127.0.0.2", &running).await;
    ask_live(&mut kept).await;
    let mut slow = Vec::new();
    for i in 0..400 {
        let mut stream = connect_from("127.0.0.3", &running).await;
        let head = if i % 2 == 0 {
            "GET / HTTP/1.1\r\nx-"
        } else {
            "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n\
            content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        };
        let _ = stream.write_all(head.as_bytes()).await;
        slow.push(stream);
    }
    // The health probe, a quiet client's new connection, and the one that it had.
    let began = Instant::now();
    let probe = exchange(&mut connect_from("127.0.0.4", &running).await, LIVE).await;
    assert!(probe.starts_with("HTTP/1.1 200"), "{probe:?}");
    let work = post("/v1/embeddings", r#"{"input": "cat"}"#);
    let answer = exchange(&mut connect_from("127.0.0.2", &running).await, &work).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    ask_live(&mut kept).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(slow);
    running.stop().await;
}

#[tokio::test]
async fn where_nothing_can_be_closed_a_greedy_client_is_told_and_work_goes_on() {
    let running = plain(limited(5)).await;
    let mut working = super::stopping::held(&running, 5).await;
    let refused = exchange(&mut running.connect().await, LIVE).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused:?}");
    let document: serde_json::Value =
        serde_json::from_str(refused.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(document["error"]["code"], "overloaded");
    // Others are served from a reserve.
    if cfg!(target_os = "linux") {
        let probe = exchange(&mut connect_from("127.0.0.9", &running).await, LIVE).await;
        assert!(probe.starts_with("HTTP/1.1 200"), "{probe:?}");
    }
    running.fake.release();
    for stream in &mut working {
        assert!(super::rest(stream).await.starts_with("HTTP/1.1 200"));
    }
    running.stop().await;
}
