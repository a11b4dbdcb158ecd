//! Scores on the model's workers: queued, bounded, cancelled like any other work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use siglip::testing::engine::{EngineConfig, EngineError, Labels, Load, ModelHandle, ScoreOptions};
use siglip::testing::model::zero_shot::Ranking;
use siglip::testing::model::{LabelSet, Question, Scores};

use super::fake::*;

const SCORES: Scores = Scores { scale: 10.0, bias: -1.0 };

fn vector_of(values: [f32; 2]) -> Arc<[f32]> {
    Arc::from(values)
}

/// A label to the right, one upwards.
fn labels() -> Labels {
    Labels::Inline {
        names: ["right", "up"].map(Arc::from).into(),
        texts: vec![vector_of([5.0, 0.0]), vector_of([0.0, 0.1])],
        templates: 1,
    }
}

/// Asks for the scores of one picture, and goes on once the job is in the engine.
fn score(
    engine: &siglip::testing::engine::Engine,
    model: &ModelHandle,
    options: ScoreOptions,
) -> tokio::task::JoinHandle<Result<usize, EngineError>> {
    let (expected, model) = (engine.load().items + 1, model.clone());
    let job = tokio::spawn(async move {
        let scored = model.judge(vec![vector_of([1.0, 2.0])], labels(), SCORES, Question::default(), options);
        scored.await.map(|scored| scored.value[0].matches[0].label)
    });
    eventually("admission", || engine.load().items >= expected);
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_ranked_by_their_cosine() {
    let (engine, model) = start(&Fake::new(), config());
    let pictures = vec![vector_of([3.0, 4.0]), vector_of([1.0, 0.0])];
    let top = Ranking { top_k: Some(1), ..Ranking::default() };
    for ranking in [Ranking::default(), top] {
        let question = Question { ranking, ..Question::default() };
        let scored = model.judge(pictures.clone(), labels(), SCORES, question, ScoreOptions::default()).await;
        let scored = scored.unwrap();
        let best: Vec<usize> = scored.value.iter().map(|judged| judged.matches[0].label).collect();
        assert_eq!(best, [1, 0]);
        assert!((scored.value[0].matches[0].logit - (0.8 * 10.0 - 1.0)).abs() < 1e-5);
        assert_eq!(scored.value[0].matches.len(), ranking.top_k.unwrap_or(2));
        assert!(!scored.timings.inference.is_zero());
    }
    let cosines = model.cosines(pictures, labels(), ScoreOptions::default()).await.unwrap().value;
    assert!(cosines.iter().zip([0.6, 0.8, 1.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{cosines:?}");
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scores_are_computed_by_the_workers_and_before_more_pictures() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(1));
    fake.gate.wait_for(1);
    let pictures = send(&engine, &model, images("a", 10), client(1));
    let last = settle(&engine, &model, &fake, client(1));
    let job = score(&engine, &model, ScoreOptions::default());
    // The worker is in a batch.
    tokio::task::yield_now().await;
    assert!(!job.is_finished());
    fake.gate.allow(1);
    assert_eq!(job.await.unwrap().unwrap(), 1);
    // Its batch of pictures came after: the worker is at the gate with it, and it holds still.
    fake.gate.wait_for(2);
    assert_eq!(fake.computed().len(), 11);
    assert!(!pictures.is_finished());
    fake.gate.open();
    for request in [first, pictures, last] {
        request.await.unwrap().unwrap();
    }
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_nobody_waits_for_is_dropped_where_it_waits() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(1));
    fake.gate.wait_for(1);
    let job = score(&engine, &model, ScoreOptions::default());
    job.abort();
    eventually("its place is free", || engine.load().items == 1);
    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let late = score(&engine, &model, ScoreOptions { deadline, client: 1, tally: None });
    assert!(matches!(late.await.unwrap(), Err(EngineError::Deadline(_))));
    eventually("its place is free", || engine.load().items == 1);
    fake.gate.open();
    first.await.unwrap().unwrap();
    assert_eq!(engine.load(), Load::default());
    let past = ScoreOptions { deadline: Some(Instant::now()), client: 1, tally: None };
    let error = model.cosines(vec![], labels(), past).await.unwrap_err();
    assert!(matches!(error, EngineError::Deadline(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scores_need_room_like_inputs() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, EngineConfig { max_queue_items: 2, ..config() });
    let full = send(&engine, &model, images("a", 2), client(1));
    let error = model.cosines(vec![vector_of([1.0, 0.0])], labels(), ScoreOptions::default()).await;
    assert!(matches!(error, Err(EngineError::Overloaded { .. })));
    fake.gate.open();
    full.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_an_error_and_the_worker_goes_on() {
    let (engine, model) = start(&Fake::new(), config());
    let options = ScoreOptions::default();
    let wide = model.cosines(vec![Arc::from([1.0f32; 3])], labels(), options.clone()).await.unwrap_err();
    assert!(wide.to_string().contains("a picture of width 3 for labels of 2"), "{wide}");
    let elsewhere =
        LabelSet::new([Arc::from("x")].into(), &[vector_of([1.0, 0.0])], 1, "another".into()).unwrap();
    let other =
        model.cosines(vec![vector_of([1.0, 0.0])], Labels::Set(Arc::new(elsewhere)), options.clone()).await;
    assert!(other.unwrap_err().to_string().contains("embedding space another"));
    let fine = model.cosines(vec![vector_of([1.0, 0.0])], labels(), options.clone()).await.unwrap();
    assert_eq!(fine.value, [1.0, 0.0]);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_engine_answers_its_jobs() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(1));
    fake.gate.wait_for(1);
    let job = score(&engine, &model, ScoreOptions::default());
    let report = engine.drain(Duration::ZERO).await;
    assert_eq!(job.await.unwrap(), Err(EngineError::ShuttingDown));
    assert_eq!(report.abandoned, 2);
    assert!(first.await.unwrap().is_err());
    fake.gate.open();
}
