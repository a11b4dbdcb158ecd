//! A model that panics, fails or runs out of memory.

use std::sync::atomic::Ordering;

use siglip::testing::Error;
use siglip::testing::engine::{EngineError, Load, WorkError};

use super::fake::*;

fn worker(result: &Result<siglip::testing::engine::Embedding, WorkError>) -> bool {
    matches!(result, Err(WorkError::Engine(EngineError::Worker(_))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_its_batch_and_the_worker_goes_on() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(1));
    fake.gate.wait_for(1);
    let poisoned = send(&engine, &model, vec![image("a"), image("panic:b"), image("c")], client(1));
    let shared = send(&engine, &model, vec![image("d")], client(1));
    let last = settle(&engine, &model, &fake, client(1));
    // All four are ready, so that they are one batch; "last" may be in it too.
    fake.gate.open();
    first.await.unwrap().unwrap();
    assert!(poisoned.await.unwrap().unwrap().results.iter().all(worker));
    let results = shared.await.unwrap().unwrap().results;
    assert!(worker(&results[0]));
    let error = results[0].as_ref().unwrap_err().to_string();
    assert_eq!(error, "the model failed on this batch: the tower fell over");
    last.await.unwrap().unwrap();
    assert_eq!(ok(&model.embed(images("after", 25), client(1)).await.unwrap()).len(), 25);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_preparation_fails_one_input() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, config());
    let inputs =
        vec![image("a"), image("panic-prepare"), image("panic-probe"), text("panic-prepare"), image("b")];
    let results = model.embed(inputs, client(1)).await.unwrap().results;
    let failed: Vec<bool> = results.iter().map(worker).collect();
    assert_eq!(failed, [false, true, true, true, false]);
    assert!(results[0].is_ok() && results[4].is_ok());
    // The threads, one of a kind, still work.
    model.embed(vec![image("c"), text("d")], client(1)).await.unwrap();
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_input_that_the_model_cannot_take_fails_alone() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(1));
    fake.gate.wait_for(1);
    let answer = send(&engine, &model, vec![image("a"), image("fail:b"), image("c")], client(1));
    let last = settle(&engine, &model, &fake, client(1));
    fake.gate.open();
    let results = answer.await.unwrap().unwrap().results;
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(&results[1], Err(WorkError::Model(Error::Compute(_)))));
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    // Together, then each alone.
    let batches = fake.batches();
    assert!(batches[1].len() >= 3 && batches[2] == ["a"] && batches[3] == ["fail:b"], "{batches:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory_halves_the_batch_and_is_remembered() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(1));
    fake.gate.wait_for(1);
    fake.memory.store(3, Ordering::SeqCst);
    let answer = send(&engine, &model, images("a", 60), client(1));
    eventually("two batches", || fake.prepared().len() == 21);
    fake.gate.open();
    first.await.unwrap().unwrap();
    assert_eq!(ok(&answer.await.unwrap().unwrap()).len(), 60);
    let sizes: Vec<usize> = fake.batches()[1..].iter().map(Vec::len).collect();
    // Ten do not fit, nor do five; two and three do. After that no batch asks for more than two.
    assert_eq!(sizes[..7], [10, 5, 2, 3, 5, 2, 3]);
    assert!(sizes[7..].iter().all(|&size| size <= 2), "{sizes:?}");
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory_on_one_input_is_its_error() {
    let fake = Fake::new();
    fake.memory.store(0, Ordering::SeqCst);
    let (engine, model) = start(&fake, config());
    let results = model.embed(images("a", 5), client(1)).await.unwrap().results;
    assert!(results.iter().all(|result| matches!(result, Err(WorkError::Model(Error::Compute(_))))));
    fake.memory.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(ok(&model.embed(images("b", 5), client(1)).await.unwrap()).len(), 5);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vector_that_is_not_finite_is_an_error_and_never_cached() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, config());
    let inputs = vec![image("a"), image("nan:b"), image("short:c"), image("d")];
    let results = model.embed(inputs, client(1)).await.unwrap().results;
    assert_eq!(results.iter().map(worker).collect::<Vec<_>>(), [false, true, true, false]);
    fake.broken.store(true, Ordering::SeqCst);
    let results = model.embed(vec![text("cat"), text("cat")], client(1)).await.unwrap().results;
    assert!(results.iter().all(worker));
    // Every vector of known inputs too: the model is failing.
    for i in 0..3 {
        assert!(worker(&model.embed(images(&format!("{i}"), 1), client(1)).await.unwrap().results[0]));
    }
    eventually("health", || engine.failing());
    fake.broken.store(false, Ordering::SeqCst);
    let output = model.embed(vec![text("cat")], client(1)).await.unwrap();
    assert!(!output.results[0].as_ref().unwrap().cached);
    eventually("health", || engine.ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_device_ends_readiness_until_it_is_back() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, config());
    assert!(engine.ready() && !engine.failing());
    // Inputs that the model cannot take are not its device.
    for _ in 0..4 {
        assert!(model.embed(vec![image("panic:a")], client(1)).await.unwrap().results[0].is_err());
    }
    assert!(engine.ready());
    fake.memory.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(model.embed(images("b", 1), client(1)).await.unwrap().results[0].is_err());
    }
    eventually("the probe fails too", || engine.failing());
    assert!(!engine.ready());
    // It still answers, and one answer is enough.
    fake.memory.store(usize::MAX, Ordering::SeqCst);
    model.embed(images("c", 1), client(1)).await.unwrap();
    eventually("readiness", || engine.ready());
    // Nor does it take a request: the model is tried now and then.
    fake.memory.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(model.embed(images("d", 1), client(1)).await.unwrap().results[0].is_err());
    }
    eventually("the probe fails again", || engine.failing());
    fake.memory.store(usize::MAX, Ordering::SeqCst);
    eventually("readiness without a request", || engine.ready());
}
