//! Views of pictures: prepared together, computed as inputs of their own.

use bytes::Bytes;
use siglip::testing::Error;
use siglip::testing::engine::{EngineConfig, EngineError, ModelHandle, Viewed, ViewsOutput, WorkError};
use siglip::testing::image::{ImageError, ViewOptions};

use super::fake::*;

fn pictures(names: &[&str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect()
}

fn ask(model: &ModelHandle, names: &[&str]) -> tokio::task::JoinHandle<Result<ViewsOutput, EngineError>> {
    let (model, pictures) = (model.clone(), pictures(names));
    tokio::spawn(async move { model.embed_views(pictures, ViewOptions::default(), client(1)).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_picture_has_its_views_in_order_whatever_becomes_of_the_others() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, EngineConfig { prepare_threads: 2, ..config() });
    let names = ["a", "bad", "b", "no-header", "panic-prepare", "lossy", "fail:c", "d"];
    let output = ask(&model, &names).await.unwrap().unwrap();
    assert_eq!(output.results.len(), names.len());
    for (name, result) in names.iter().zip(&output.results) {
        match (*name, result) {
            ("a" | "b" | "d", Ok(Viewed { embeddings, cover, preview: None })) => {
                assert_eq!(cover.len(), 4);
                let found: Vec<Vec<f32>> = embeddings.iter().map(|e| e.vector.to_vec()).collect();
                let wanted: Vec<Vec<f32>> =
                    (0..4).map(|i| vector(format!("{name}/{i}").as_bytes())).collect();
                assert_eq!(found, wanted);
            }
            ("bad" | "no-header", Err(WorkError::Model(Error::Image(ImageError::Empty)))) => {}
            ("panic-prepare", Err(error)) => assert!(error.to_string().contains("the decoder fell over")),
            ("lossy", Err(error)) => assert!(error.to_string().contains("3 views instead of 4"), "{error}"),
            ("fail:c", Err(error)) => assert!(error.to_string().contains("shape mismatch"), "{error}"),
            (name, result) => panic!("{name}: {result:?}"),
        }
    }
    let prepared = counts(fake.prepared());
    assert!(prepared.values().all(|&times| times == 1), "a picture is decoded once: {prepared:?}");
    assert_eq!(engine.load(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_admitted_together_and_leave_together() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, EngineConfig { max_queue_items: 12, ..config() });
    let first = send(&engine, &model, vec![image("first")], client(1));
    fake.gate.wait_for(1);
    // Four pictures are sixteen inputs, and two fit beside the first input.
    let error = ask(&model, &["a", "b", "c", "d"]).await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::TooLarge(_)), "{error}");
    let left = ask(&model, &["a", "b"]);
    eventually("admission", || engine.load().items == 9);
    eventually("preparation", || fake.prepared().contains(&"b".to_owned()));
    let error = ask(&model, &["c"]).await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::Overloaded { .. }), "{error}");
    // Whoever leaves takes what waits and what is ready along.
    left.abort();
    eventually("room", || engine.load().items == 1);
    fake.gate.open();
    first.await.unwrap().unwrap();
    let stays = ask(&model, &["e"]).await.unwrap().unwrap();
    assert!(stays.results[0].is_ok());
    let computed = counts(fake.computed());
    assert_eq!(computed.len(), 5, "nothing of those who left: {computed:?}");
    assert_eq!(engine.load(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_not_cut_for_those_who_left() {
    let fake = Fake::unprepared();
    let (engine, model) = start(&fake, config());
    let left = ask(&model, &["a"]);
    fake.prepare_gate.wait_for(1);
    // The picture is being decoded when its client goes away.
    left.abort();
    eventually("the client has left", || left.is_finished());
    fake.prepare_gate.open();
    ask(&model, &["b"]).await.unwrap().unwrap();
    assert_eq!(fake.cut.load(std::sync::atomic::Ordering::SeqCst), 4, "those of the other picture");
    assert_eq!(engine.load(), Default::default());
}
