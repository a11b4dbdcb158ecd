//! An orderly end, seen by clients.

use std::time::{Duration, Instant};

use serde_json::json;
use siglip::testing::api::{ApiConfig, DrainTimes, Phase};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Running, document, exchange, post, rest, run, wait_for, within};
use crate::api::engine_config;

const READY: &str = "GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Sends requests whose work waits for the test, each on a connection of its own.
pub async fn held(running: &Running, count: usize) -> Vec<TcpStream> {
    running.fake.hold();
    let mut streams = Vec::new();
    for i in 0..count {
        let mut stream = running.connect().await;
        let body = json!({"input": [format!("held {i}")]}).to_string();
        stream.write_all(post("/v1/embeddings", &body).as_bytes()).await.unwrap();
        streams.push(stream);
    }
    wait_for("all are admitted", || running.state.engine().load().items >= count).await;
    streams
}

async fn phase(running: &Running, phase: Phase) {
    wait_for("the phase", || running.state.lifecycle().phase() == phase).await;
}

fn assert_stopping(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer:?}");
    assert!(answer.to_ascii_lowercase().contains("\r\nretry-after: "), "{answer}");
    assert_eq!(document(answer)["error"]["code"], "shutting_down");
}

#[tokio::test]
async fn what_cannot_be_finished_gets_503_and_not_a_cut_connection() {
    let mut running =
        run(ApiConfig::default(), engine_config(), None, within(Duration::from_millis(500))).await;
    let streams = held(&running, 20).await;
    // One more waits for its body and not for the engine.
    let mut slow = running.connect().await;
    let whole = post("/v1/embeddings", &" ".repeat(100));
    slow.write_all(&whole.as_bytes()[..whole.len() - 50]).await.unwrap();
    wait_for("its head is read", || running.state.lifecycle().working() == 21).await;
    let began = Instant::now();
    running.signal();
    for mut stream in streams.into_iter().chain([slow]) {
        assert_stopping(&rest(&mut stream).await);
    }
    let stopped = running.ended.await.unwrap().unwrap();
    assert_eq!((stopped.requests, stopped.engine.abandoned), (21, 20));
    assert!(stopped.took >= Duration::from_millis(450), "{:?}", stopped.took);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    running.fake.release();
}

#[tokio::test]
async fn what_was_begun_is_finished_while_new_work_gets_503() {
    let times = within(Duration::from_secs(20));
    let mut running = run(ApiConfig::default(), engine_config(), None, times).await;
    let mut idle = running.connect().await;
    let mut begun = held(&running, 2).await;
    running.signal();
    phase(&running, Phase::Refusing).await;
    let late = exchange(&mut running.connect().await, &post("/v1/embeddings", r#"{"input": "new"}"#)).await;
    assert_stopping(&late);
    assert!(exchange(&mut running.connect().await, READY).await.starts_with("HTTP/1.1 503"));
    running.fake.release();
    for stream in &mut begun {
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let stopped =
        tokio::time::timeout(Duration::from_secs(5), running.ended).await.expect("ends").unwrap().unwrap();
    assert_eq!((stopped.requests, stopped.engine.abandoned), (0, 0));
    assert_eq!(rest(&mut idle).await, "", "an idle connection does not hold the service up");
    assert!(TcpStream::connect(running.address).await.is_err(), "no new connection is taken");
}

#[tokio::test]
async fn during_the_delay_work_is_taken_and_readiness_is_off() {
    let times = DrainTimes { delay: Duration::from_millis(1500), timeout: Duration::from_secs(5) };
    let mut running = run(ApiConfig::default(), engine_config(), None, times).await;
    running.signal();
    phase(&running, Phase::Unready).await;
    assert!(exchange(&mut running.connect().await, READY).await.starts_with("HTTP/1.1 503"));
    let work = exchange(&mut running.connect().await, &post("/v1/embeddings", r#"{"input": "new"}"#)).await;
    assert!(work.starts_with("HTTP/1.1 200"), "{work}");
    let stopped = running.ended.await.unwrap().unwrap();
    assert!(stopped.took >= times.delay && stopped.took < Duration::from_secs(4), "{:?}", stopped.took);
}

#[tokio::test]
async fn connections_that_do_nothing_do_not_hold_the_end() {
    let mut running = run(ApiConfig::default(), engine_config(), None, within(Duration::from_secs(30))).await;
    let mut half = running.connect().await;
    half.write_all(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut unread = running.connect().await;
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(3);
    unread.write_all(requests.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.signal();
    let stopped =
        tokio::time::timeout(Duration::from_secs(5), running.ended).await.expect("ends").unwrap().unwrap();
    assert_eq!(stopped.requests, 0);
}
