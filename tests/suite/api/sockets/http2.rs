//! HTTP/2 keeps the times of HTTP/1.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use serde_json::Value;
use siglip::testing::api::ApiConfig;

use super::{Running, plain};

/// A connection on which pings are answered, and when it ends.
async fn connect(
    running: &Running,
    window: u32,
) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let mut builder = client::Builder::new();
    builder.initial_window_size(window);
    let (send, connection) = builder.handshake(running.connect().await).await.unwrap();
    (send, tokio::spawn(connection))
}

fn get(path: &str) -> http::Request<()> {
    http::Request::get(format!("http://x{path}")).body(()).unwrap()
}

async fn whole(body: &mut h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

#[tokio::test]
async fn work_over_http2() {
    let running = plain(ApiConfig::default()).await;
    let (send, ended) = connect(&running, 65_535).await;
    let mut send = send.ready().await.unwrap();
    let request = http::Request::post("http://x/v1/embeddings").header("content-type", "application/json");
    let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(br#"{"input": "cat"}"#), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let document: Value = serde_json::from_slice(&whole(&mut answer.into_body()).await.unwrap()).unwrap();
    assert_eq!(document["model"], "fake");
    // Longer than one window, in chunks.
    let (answer, _) = send.send_request(get("/openapi.json"), true).unwrap();
    let document = whole(&mut answer.await.unwrap().into_body()).await.unwrap();
    assert!(document.len() > 65_535 && serde_json::from_slice::<Value>(&document).is_ok());
    running.stop().await;
    ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_although_pings_are_answered() {
    let config = ApiConfig {
        keep_alive: Duration::from_millis(600),
        header_timeout: Duration::from_millis(400),
        ..ApiConfig::default()
    };
    let running = plain(config).await;
    let (send, ended) = connect(&running, 65_535).await;
    let mut send = send.ready().await.unwrap();
    let (answer, _) = send.send_request(get("/health/live"), true).unwrap();
    whole(&mut answer.await.unwrap().into_body()).await.unwrap();
    let began = Instant::now();
    let _ = tokio::time::timeout(Duration::from_secs(5), ended).await.expect("it is closed");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_ended_and_the_others_go_on() {
    let config = ApiConfig { body_timeout: Duration::from_millis(500), ..ApiConfig::default() };
    let running = plain(config).await;
    let (send, _ended) = connect(&running, 0).await;
    let mut send = send.ready().await.unwrap();
    let (stalled, _) = send.send_request(get("/openapi.json"), true).unwrap();
    let mut stalled = stalled.await.unwrap().into_body();
    let began = Instant::now();
    let end = tokio::time::timeout(Duration::from_secs(5), stalled.data()).await.expect("it is ended");
    assert!(end.expect("not an orderly end").unwrap_err().is_reset());
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    // The connection lives: a stream without a body needs no window.
    let (answer, _) = send.send_request(get("/health/live"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    drop(send);
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_finished_gets_503_over_http2_too() {
    let times = super::within(Duration::from_millis(400));
    let mut running = super::run(ApiConfig::default(), crate::api::engine_config(), None, times).await;
    running.fake.hold();
    let (send, _ended) = connect(&running, 65_535).await;
    let mut send = send.ready().await.unwrap();
    let mut answers = Vec::new();
    for i in 0..3 {
        let request =
            http::Request::post("http://x/v1/embeddings").header("content-type", "application/json");
        let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from(format!("{{\"input\": \"held {i}\"}}")), true).unwrap();
        answers.push(answer);
    }
    super::wait_for("all are admitted", || running.state.engine().load().items == 3).await;
    running.signal();
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        whole(&mut answer.into_body()).await.unwrap();
    }
    let stopped = running.ended.await.unwrap().unwrap();
    assert_eq!(stopped.requests, 3);
    running.fake.release();
}
