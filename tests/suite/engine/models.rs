//! Models that come, go and are replaced while others serve.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use siglip::Error;
use siglip::engine::{Engine, EngineError, Load, ModelState};

use super::fake::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_says_how_far_it_is_and_the_others_serve() {
    let engine = Engine::start(config());
    assert!(!engine.ready() && !engine.failing() && engine.models().is_empty());
    let (step, steps) = mpsc::channel::<()>();
    let loader = move |progress: &siglip::engine::Progress| {
        progress.downloading(10, Some(30));
        steps.recv().unwrap();
        progress.loading();
        steps.recv().unwrap();
        Ok(Fake::new() as _)
    };
    engine.add(&["slow"], loader).unwrap();
    let state = || engine.status()[0].state.clone();
    eventually("the download", || state() == ModelState::Downloading { bytes: 10, total: Some(30) });
    let error = engine.model(Some("slow")).err().unwrap();
    let EngineError::Loading { model, state: found, retry_after } = &error else { panic!("{error}") };
    assert_eq!((model.as_str(), found.label()), ("slow", "downloading"));
    assert!(!retry_after.is_zero());

    let other = engine.insert(&["other"], Fake::new()).unwrap();
    assert_eq!(ok(&other.embed(images("a", 3), client(1)).await.unwrap()).len(), 3);
    assert!(!engine.ready(), "one of those at the start is still being loaded");
    step.send(()).unwrap();
    eventually("the load", || state() == ModelState::Loading);
    step.send(()).unwrap();
    eventually("readiness", || engine.ready());
    assert_eq!(state(), ModelState::Ready);
    engine.model(None).unwrap().embed(images("b", 1), client(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_cannot_be_loaded_says_why_and_spoils_no_other() {
    let engine = Engine::start(config());
    engine.add(&["broken"], |_| Err(Error::Config("no such file".into()))).unwrap();
    engine.add(&["panics"], |_| panic!("the reader fell over")).unwrap();
    let other = engine.insert(&["other"], Fake::new()).unwrap();
    let error = engine.warmed_up().await.unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
    let reasons: Vec<_> = engine.status().into_iter().map(|status| status.state).collect();
    assert!(matches!(&reasons[0], ModelState::Failed { reason } if reason.contains("no such file")));
    assert!(
        matches!(&reasons[1], ModelState::Failed { reason } if reason.contains("fell over")),
        "{reasons:?}"
    );
    assert!(engine.ready() && !engine.failing());
    other.embed(images("a", 1), client(1)).await.unwrap();
    let error = engine.model(Some("broken")).err().unwrap();
    assert!(!error.to_string().contains("no such file"), "the reason is for operators: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_model_does_not_fail_the_process() {
    let (lost, whole) = (Fake::new(), Fake::new());
    lost.memory.store(0, Ordering::SeqCst);
    let engine = Engine::start(siglip::engine::EngineConfig { warm_up: true, ..config() });
    engine.insert(&["lost"], Arc::clone(&lost) as _).unwrap();
    engine.insert(&["whole"], Arc::clone(&whole) as _).unwrap();
    engine.warmed_up().await.unwrap_err();
    assert!(engine.ready() && !engine.failing());
    let labels: Vec<_> = engine.status().iter().map(|status| status.state.label()).collect();
    assert_eq!(labels, ["failed", "ready"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_model_serves_until_the_new_one_is_in_its_place() {
    let (old, new) = (Fake::held(), Fake::new());
    let engine = Engine::start(config());
    let handle = engine.insert(&["m"], Arc::clone(&old) as _).unwrap();
    let running = send(&engine, &handle, images("old", 15), client(1));
    old.gate.wait_for(1);

    // A load that fails changes nothing.
    engine.replace("m", |_| Err(Error::Config("no such revision".into()))).unwrap();
    let replacement = || engine.status()[0].replacement.clone();
    eventually("the failure", || matches!(replacement(), Some(ModelState::Failed { .. })));
    assert_eq!(engine.status()[0].state, ModelState::Ready);

    let (go, wait) = mpsc::channel::<()>();
    let next = Arc::clone(&new);
    engine
        .replace("m", move |_| {
            wait.recv().unwrap();
            Ok(next as _)
        })
        .unwrap();
    eventually("the load", || replacement() == Some(ModelState::Loading));
    assert!(matches!(engine.replace("m", |_| unreachable!()), Err(EngineError::Loading { .. })));
    let meanwhile = send(&engine, &engine.model(Some("m")).unwrap(), images("meanwhile", 1), client(1));
    go.send(()).unwrap();
    eventually("the replacement", || replacement().is_none());
    engine.model(Some("m")).unwrap().embed(images("new", 2), client(1)).await.unwrap();
    assert_eq!(new.computed(), ["new0", "new1"]);

    // What the old one has, it finishes; then it is freed.
    old.gate.open();
    assert_eq!(ok(&running.await.unwrap().unwrap()).len(), 15);
    meanwhile.await.unwrap().unwrap();
    drop(handle);
    eventually("the old model to be freed", || Arc::strong_count(&old) == 1);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_model_finishes_what_it_has_and_is_freed() {
    let (gone, stays) = (Fake::held(), Fake::new());
    let engine = Engine::start(config());
    let handle = engine.insert(&["gone", "alias"], Arc::clone(&gone) as _).unwrap();
    engine.insert(&["stays"], Arc::clone(&stays) as _).unwrap();
    let running = send(&engine, &handle, images("a", 25), client(1));
    gone.gate.wait_for(1);
    engine.remove("alias").unwrap();
    assert!(matches!(engine.remove("gone"), Err(EngineError::UnknownModel { .. })));
    assert!(matches!(engine.model(Some("gone")), Err(EngineError::UnknownModel { .. })));
    assert_eq!(engine.model(None).unwrap().name(), "stays");
    gone.gate.open();
    assert_eq!(ok(&running.await.unwrap().unwrap()).len(), 25);
    // Who still holds it is told to ask again by name, once it has nothing left to do.
    eventually("its end", || gone.computed().len() == 25 && Arc::strong_count(&gone) <= 2);
    let error = handle.embed(images("late", 1), client(1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Loading { .. }), "{error}");
    drop(handle);
    eventually("its memory", || Arc::strong_count(&gone) == 1);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_of_one_space_share_their_texts() {
    let engine = Engine::start(config());
    let fake = Fake::new();
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&loads);
    let (first, again) = (Arc::clone(&fake), Arc::clone(&fake));
    engine.insert(&["m"], first as _).unwrap().embed(vec![text("cat")], client(1)).await.unwrap();
    // The same checkpoint under its name again: what was computed stays valid.
    engine
        .replace("m", move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(again as _)
        })
        .unwrap();
    eventually("the load", || loads.load(Ordering::SeqCst) == 1 && engine.status()[0].replacement.is_none());
    let output = engine.model(None).unwrap().embed(vec![text("cat")], client(1)).await.unwrap();
    assert!(output.results[0].as_ref().unwrap().cached);
}
