//! One input at a time, many of them, and bulk work beside interactive work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream;
use siglip::testing::engine::{
    Class, EmbedOptions, EngineConfig, EngineError, Input, Load, Order, WhenFull, WorkError,
};

use super::fake::*;

fn background() -> EmbedOptions {
    EmbedOptions { class: Class::Background, when_full: WhenFull::Wait, ..client(9) }
}

/// What a stream of inputs may fail with.
type Failure = WorkError;

/// Numbered pictures, and how many of them were taken.
fn numbered(count: usize) -> (impl stream::Stream<Item = (usize, Result<Input, Failure>)>, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let inputs = stream::iter(0..count).map(move |i| {
        counter.fetch_add(1, Ordering::SeqCst);
        (i, Ok(image(&format!("n{i}"))))
    });
    (inputs, taken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submitted_input_is_a_future_of_its_embedding() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let pending = model.submit(image("a"), client(1)).await.unwrap();
    assert_eq!(engine.load().items, 1, "it is in the engine before anybody waits for it");
    fake.gate.wait_for(1);
    let dropped = model.submit(image("b"), client(1)).await.unwrap();
    drop(dropped);
    eventually("its place is free", || engine.load().items == 1);
    fake.gate.open();
    assert_eq!(pending.await.unwrap().vector[..], vector(b"a"));
    let known = model.submit(image("no-header"), client(1)).await.unwrap();
    assert!(matches!(known.await, Err(WorkError::Model(_))));
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_gives_results_in_order_and_holds_no_more_than_its_window() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let (inputs, taken) = numbered(100);
    let results = tokio::spawn(async move {
        let results = model.embed_stream(inputs, background(), Order::AsSent, 12);
        results.map(|(i, result)| (i, result.unwrap().vector.to_vec())).collect::<Vec<_>>().await
    });
    fake.gate.wait_for(1);
    eventually("the window is full", || engine.load().items == 12);
    tokio::task::yield_now().await;
    assert!(taken.load(Ordering::SeqCst) <= 13, "{taken:?} were taken");
    fake.gate.open();
    let results = results.await.unwrap();
    let expected: Vec<_> = (0..100).map(|i| (i, vector(format!("n{i}").as_bytes()))).collect();
    assert_eq!(results, expected);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_input_is_an_error_in_its_place_and_the_stream_goes_on() {
    let (_engine, model) = start(&Fake::new(), config());
    let inputs = [image("a"), image("bad"), image("fail:c"), text("d")];
    let inputs = stream::iter(inputs.into_iter().enumerate().map(|(i, input)| (i, Ok(input))));
    let results = model.embed_stream::<_, Failure>(inputs, background(), Order::AsCompleted, 4);
    let mut results: Vec<_> = results.map(|(i, result)| (i, result.is_ok())).collect().await;
    results.sort_unstable();
    assert_eq!(results, [(0, true), (1, false), (2, false), (3, true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_work_waits_where_interactive_work_is_refused() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, EngineConfig { max_queue_items: 16, ..config() });
    let full = send(&engine, &model, images("a", 16), client(1));
    assert!(matches!(model.embed(images("b", 1), client(2)).await, Err(EngineError::Overloaded { .. })));
    let (inputs, _) = numbered(400);
    let bulk = tokio::spawn({
        let model = model.clone();
        async move {
            let results = model.embed_stream(inputs, background(), Order::AsSent, 100);
            results.filter(|(_, result)| std::future::ready(result.is_ok())).count().await
        }
    });
    tokio::task::yield_now().await;
    assert!(!bulk.is_finished());
    // More batches than these sixteen can make, fewer than the bulk needs.
    fake.gate.allow(16);
    full.await.unwrap().unwrap();
    // It fills half of the places and leaves the others.
    eventually("half of the places", || engine.load().items == 8);
    let beside_it = model.clone();
    // Not refused, though some of the batches that were let through may be left for it.
    let beside = tokio::spawn(async move { beside_it.embed(images("c", 6), client(2)).await });
    fake.gate.open();
    beside.await.unwrap().unwrap();
    assert_eq!(bulk.await.unwrap(), 400);
    assert_eq!(engine.load(), Load::default());
    // What never fits is not waited for.
    let error = model.embed(images("d", 9), background()).await.unwrap_err();
    assert!(matches!(error, EngineError::TooLarge(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_place_ends_with_the_engine() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, EngineConfig { max_queue_items: 2, ..config() });
    let full = send(&engine, &model, images("a", 2), client(1));
    let waiting = tokio::spawn({
        let model = model.clone();
        async move { model.embed(images("b", 1), background()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    engine.drain(std::time::Duration::ZERO).await;
    assert_eq!(waiting.await.unwrap(), Err(EngineError::ShuttingDown));
    assert!(full.await.unwrap().is_err());
    fake.gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_work_yields_within_one_batch() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let bulk = send(&engine, &model, images("bulk", 60), background());
    fake.gate.wait_for(1);
    eventually("two batches ahead", || fake.prepared().len() >= 20);
    // Both are prepared and computed before any more of the bulk.
    let picture = send(&engine, &model, images("picture", 1), client(1));
    let text = send(&engine, &model, vec![text("cat")], client(2));
    eventually("preparation", || {
        let prepared = fake.prepared();
        prepared.iter().any(|name| name == "picture0") && prepared.iter().any(|name| name == "cat")
    });
    // Nobody sees when the thread has put down what it prepared: the next one of the bulk is behind it.
    let behind = settle(&engine, &model, &fake, client(1));
    fake.gate.allow(3);
    for request in [picture, text] {
        request.await.unwrap().unwrap();
    }
    assert!(!bulk.is_finished());
    let batches = fake.batches();
    assert!(batches[0].iter().all(|name| name.starts_with("bulk")), "{batches:?}");
    assert!(
        batches[1..3].iter().flatten().all(|name| !name.starts_with("bulk")),
        "interactive work comes next, and nothing of the bulk rides along: {batches:?}"
    );
    fake.gate.open();
    behind.await.unwrap().unwrap();
    assert_eq!(ok(&bulk.await.unwrap().unwrap()).len(), 60);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_overtakes_the_pictures_that_wait() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let pictures = send(&engine, &model, images("a", 50), client(1));
    fake.gate.wait_for(1);
    eventually("two batches ahead", || fake.prepared().len() >= 20);
    let text = send(&engine, &model, vec![text("cat")], client(2));
    eventually("the text", || fake.prepared().iter().any(|name| name == "cat"));
    // The text lane has a thread of its own: when it has come to a second text, the first is ready.
    let second = send(&engine, &model, vec![super::fake::text("dog")], client(2));
    eventually("the second text", || fake.prepared().iter().any(|name| name == "dog"));
    fake.gate.allow(2);
    text.await.unwrap().unwrap();
    let batches = fake.batches();
    assert!(batches[0][0].starts_with('a') && !batches[1][0].starts_with('a'), "{batches:?}");
    fake.gate.open();
    second.await.unwrap().unwrap();
    pictures.await.unwrap().unwrap();
}
