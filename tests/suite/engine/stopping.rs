//! Draining and dropping the engine.

use std::sync::Arc;
use std::time::Duration;

use siglip::testing::engine::{EngineError, Load};

use super::fake::*;

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_was_admitted_and_takes_nothing_new() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let answer = send(&engine, &model, images("a", 50), client(1));
    fake.gate.wait_for(1);
    assert!(engine.ready());
    let drain = tokio::spawn({
        let engine = engine.clone();
        async move { engine.drain(LONG).await }
    });
    eventually("the drain to begin", || !engine.ready());
    assert_eq!(model.embed(images("b", 1), client(1)).await.unwrap_err(), EngineError::ShuttingDown);
    fake.gate.open();
    assert_eq!(ok(&answer.await.unwrap().unwrap()).len(), 50);
    let report = drain.await.unwrap();
    assert_eq!((report.finished, report.abandoned), (50, 0));
    // The threads have ended: nobody but the engine's handle holds the model.
    drop((engine, model));
    assert_eq!(Arc::strong_count(&fake), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_when_the_time_is_up_is_told_so() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let running = send(&engine, &model, images("a", 1), client(1));
    fake.gate.wait_for(1);
    let queued = send(&engine, &model, images("b", 40), client(2));
    let report = engine.drain(Duration::from_millis(5)).await;
    assert_eq!((report.finished, report.abandoned), (0, 41));
    for answer in [running, queued] {
        assert_eq!(answer.await.unwrap().unwrap_err(), EngineError::ShuttingDown);
    }
    fake.gate.open();
    eventually("the batch that was running", || engine.load() == Load::default());
    assert_eq!(fake.computed(), ["a0"]);
    // A second drain has nothing to do.
    let report = engine.drain(LONG).await;
    assert_eq!((report.finished, report.abandoned), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_threads_end_with_the_last_handle() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, config());
    model.embed(images("a", 5), client(1)).await.unwrap();
    let other = engine.clone();
    drop(engine);
    model.embed(images("b", 5), client(1)).await.unwrap();
    drop(other);
    assert_eq!(model.embed(images("c", 1), client(1)).await.unwrap_err(), EngineError::ShuttingDown);
    drop(model);
    eventually("the threads", || Arc::strong_count(&fake) == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_before_the_warm_up_is_told() {
    let fake = Fake::held();
    let limits = siglip::testing::engine::EngineConfig { warm_up: true, ..config() };
    let (engine, _) = start(&fake, limits);
    fake.gate.wait_for(1);
    engine.drain(Duration::from_millis(1)).await;
    assert_eq!(engine.warmed_up().await.unwrap_err(), EngineError::ShuttingDown);
    fake.gate.open();
}
