//! The engine with a model that does as the test says. Nothing here waits for time to pass: gates
//! hold the model and the preparation until the test has seen what it wants to see.

mod bounds;
mod bulk;
mod checkpoints;
mod fake;
mod faults;
mod models;
mod replicas;
mod scoring;
mod stopping;
mod turns;
mod views;

use std::sync::Arc;

use fake::*;
use siglip::testing::Error;
use siglip::testing::engine::{
    EmbedOptions, Engine, EngineConfig, EngineError, Input, ModelState, WorkError,
};
use siglip::testing::image::ImageError;
use siglip::testing::text::Canonicalization;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_and_texts_of_one_request_come_back_in_order() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, EngineConfig { prepare_threads: 4, ..config() });
    let inputs: Vec<Input> = (0..60)
        .map(|i| match i % 3 {
            // One to seven tokens: pictures of any length share a batch.
            0 => image(&format!("picture{i} {}", 1 + i % 7)),
            1 => text(&format!("text {i}")),
            _ => Input::TokenIds(vec![i, 5]),
        })
        .collect();
    let output = model.embed(inputs.clone(), EmbedOptions::default()).await.unwrap();
    assert_eq!(output.results.len(), 60);
    for (i, (input, result)) in inputs.iter().zip(&output.results).enumerate() {
        let result = result.as_ref().unwrap();
        let (expected, tokens, size) = match input {
            Input::Image(bytes) => (vector(bytes), 1 + i % 7, Some((7, 9))),
            Input::Text(text) => (text_vector(&tokens(text, Some(Canonicalization::Hf))), 2, None),
            Input::TokenIds(ids) => (vec![ids[0] as f32, ids[1] as f32], 2, None),
        };
        assert_eq!(
            (&result.vector[..], result.tokens, result.size),
            (&expected[..], tokens, size),
            "input {i}"
        );
        assert!(!result.cached && !result.truncated);
    }
    assert_eq!(fake.computed().len(), 60, "each is computed once");
    assert_eq!(engine.load(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_larger_than_a_batch_is_split_by_tokens() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, vec![image("first")], client(1));
    fake.gate.wait_for(1);
    let inputs: Vec<Input> =
        [4, 4, 4, 1, 30, 9, 1].iter().map(|n| image(&format!("tokens{n} {n}"))).collect();
    let answer = send(&engine, &model, inputs.clone(), client(1));
    // The next two batches, as much as may be ready, are prepared; then the rest follows.
    eventually("preparation", || fake.prepared().len() == 5);
    fake.gate.open();
    first.await.unwrap().unwrap();
    let output = answer.await.unwrap().unwrap();
    let expected: Vec<_> = inputs
        .iter()
        .map(|input| match input {
            Input::Image(bytes) => vector(bytes),
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(ok(&output), expected);
    let sizes =
        |names: &Vec<String>| names.iter().map(|n| n[6..].parse::<usize>().unwrap()).collect::<Vec<_>>();
    for batch in &fake.batches()[1..] {
        let tokens = sizes(batch);
        assert!(tokens.iter().sum::<usize>() <= 10 || tokens == [30], "{tokens:?}");
    }
    assert_eq!(sizes(&fake.batches()[1]), [4, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_request_has_an_empty_answer() {
    let (_engine, model) = start(&Fake::new(), config());
    assert!(model.embed(vec![], EmbedOptions::default()).await.unwrap().results.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_input_is_an_error_in_its_place() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, config());
    let inputs = vec![image("a"), image("bad"), image("no-header"), image("b"), text("c")];
    let results = model.embed(inputs, EmbedOptions::default()).await.unwrap().results;
    let bad: Vec<bool> = results
        .iter()
        .map(|result| match result {
            Ok(_) => false,
            Err(WorkError::Model(Error::Image(ImageError::Empty))) => true,
            Err(error) => panic!("{error}"),
        })
        .collect();
    assert_eq!(bad, [false, true, true, false, false]);
    assert!(!fake.prepared().contains(&"no-header".to_owned()), "its header was enough");
    let options = EmbedOptions { max_num_patches: Some(0), ..EmbedOptions::default() };
    let results = model.embed(vec![image("a")], options).await.unwrap().results;
    assert!(matches!(results[..], [Err(WorkError::Model(Error::Request(_)))]));
    assert_eq!(engine.load(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_found_by_its_name() {
    let engine = Engine::start(config());
    assert_eq!(
        engine.model(None).err().unwrap().to_string(),
        "there is no model named \"\"; this service has "
    );
    engine.insert(&["base"], Fake::new()).unwrap();
    engine.insert(&["large", "owner/large"], Fake::new()).unwrap();
    assert_eq!(engine.model(Some("owner/large")).unwrap().name(), "large");
    let taken = engine.insert(&["other", "base"], Fake::new()).err().unwrap();
    assert_eq!(taken.to_string(), "there is a model named \"base\" already");
    assert_eq!(engine.model(None).unwrap().name(), "base");
    assert_eq!(engine.model(Some("large")).unwrap().name(), "large");
    assert_eq!(engine.models().len(), 2);
    let error = engine.model(Some("huge")).err().unwrap();
    assert_eq!(error.to_string(), "there is no model named \"huge\"; this service has base, large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_model_answers_for_itself() {
    let fakes = [Fake::held(), Fake::new()];
    let engine = Engine::start(config());
    for (i, fake) in fakes.iter().enumerate() {
        engine.insert(&[&i.to_string()], Arc::clone(fake) as _).unwrap();
    }
    // The first model is stuck and its queues are full; the other one does not mind.
    let stuck = send(&engine, &engine.models()[0], images("a", 100), client(1));
    fakes[0].gate.wait_for(1);
    engine.models()[1].embed(images("b", 50), client(1)).await.unwrap();
    // A text is cached for its own model only.
    engine.models()[1].embed(vec![text("x")], client(1)).await.unwrap();
    fakes[0].gate.open();
    let output = engine.models()[0].embed(vec![text("x")], client(1)).await.unwrap();
    assert!(!output.results[0].as_ref().unwrap().cached);
    stuck.await.unwrap().unwrap();
    assert_eq!((fakes[0].computed().len(), fakes[1].computed().len()), (101, 51));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_is_computed_once() {
    let fake = Fake::new();
    let (_engine, model) = start(&fake, config());
    let ask = |input: Input, canonicalization| {
        let options = EmbedOptions { canonicalization, ..EmbedOptions::default() };
        let model = model.clone();
        async move {
            let output = model.embed(vec![input], options).await.unwrap();
            let embedding = output.results.into_iter().next().unwrap().unwrap();
            (embedding.cached, embedding.vector.to_vec(), embedding.tokens, embedding.truncated)
        }
    };
    let long = "a text that is cut off";
    let (cached, vector, tokens, truncated) = ask(text(long), None).await;
    assert!(!cached && truncated);
    assert_eq!(ask(text(long), None).await, (true, vector.clone(), tokens, true));
    // The checkpoint's own canonicalisation by its name is the same text; another one is not.
    assert_eq!(ask(text(long), Some(Canonicalization::Hf)).await, (true, vector, tokens, true));
    assert!(!ask(text(long), Some(Canonicalization::None)).await.0);
    assert!(!ask(Input::TokenIds(vec![3]), None).await.0);
    assert!(ask(Input::TokenIds(vec![3]), Some(Canonicalization::None)).await.0);
    assert_eq!(fake.computed().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_text_in_one_batch_is_computed_once() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, vec![image("first")], client(1));
    fake.gate.wait_for(1);
    let inputs = ["cat", "dog", "cat", "cat"].map(text).to_vec();
    let mut answers = vec![send(&engine, &model, inputs.clone(), client(1))];
    answers.push(send(&engine, &model, inputs, client(2)));
    eventually("preparation", || fake.prepared().len() >= 6);
    fake.gate.open();
    first.await.unwrap().unwrap();
    for answer in answers {
        let vectors = ok(&answer.await.unwrap().unwrap());
        assert_eq!(vectors[0], vectors[2]);
        assert_eq!(vectors[0], vectors[3]);
        assert_ne!(vectors[0], vectors[1]);
    }
    let counts = counts(fake.computed());
    assert_eq!(counts.len(), 3, "the picture and two texts");
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
    assert_eq!(engine.load(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_text_is_not_cached() {
    let fake = Fake::new();
    let (_engine, model) = start(&fake, config());
    fake.memory.store(0, std::sync::atomic::Ordering::SeqCst);
    let output = model.embed(vec![text("cat"), text("cat")], client(1)).await.unwrap();
    assert!(output.results.iter().all(Result::is_err));
    fake.memory.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    let output = model.embed(vec![text("cat")], client(1)).await.unwrap();
    assert!(!output.results[0].as_ref().unwrap().cached);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_up_comes_before_readiness() {
    let fake = Fake::held();
    let (engine, _) = start(&fake, EngineConfig { warm_up: true, ..config() });
    fake.gate.wait_for(1);
    assert!(!engine.ready());
    fake.gate.open();
    engine.warmed_up().await.unwrap();
    assert!(engine.ready());
    assert_eq!(fake.batches().len(), 2, "one picture and one text");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_warm_up_is_told_and_tried_again() {
    let fake = Fake::new();
    fake.memory.store(0, std::sync::atomic::Ordering::SeqCst);
    let (engine, model) = start(&fake, EngineConfig { warm_up: true, ..config() });
    let error = engine.warmed_up().await.unwrap_err();
    assert!(matches!(&error, EngineError::Worker(text) if text.starts_with("fake: ")), "{error}");
    assert!(!engine.ready() && engine.failing());
    assert!(matches!(model.state(), ModelState::Failed { reason } if reason.contains("out of memory")));
    // No request is needed: it is tried every few seconds.
    fake.memory.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    eventually("warm", || engine.ready());
    assert_eq!(model.state(), ModelState::Ready);
    engine.warmed_up().await.unwrap();
}

#[test]
fn what_happens_is_measured() {
    let recorder = siglip::testing::telemetry::prometheus().unwrap();
    metrics::with_local_recorder(&recorder, || {
        // The runtime's only thread is this one, with the recorder.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_engine, model) = start(&Fake::new(), EngineConfig { max_queue_items: 4, ..config() });
            model.embed(vec![image("a"), text("b"), image("bad")], client(1)).await.unwrap();
            model.embed(vec![text("b")], client(1)).await.unwrap();
            model.embed(images("c", 5), client(1)).await.unwrap_err();
        });
    });
    let text = recorder.handle().render();
    for line in [
        "siglip_items_total{model=\"fake\",lane=\"image\",outcome=\"ok\"} 1",
        "siglip_items_total{model=\"fake\",lane=\"image\",outcome=\"invalid\"} 1",
        "siglip_items_total{model=\"fake\",lane=\"text\",outcome=\"ok\"} 1",
        "siglip_items_total{model=\"fake\",lane=\"text\",outcome=\"cached\"} 1",
        "siglip_text_cache_hits_total{model=\"fake\"} 1",
        "siglip_text_cache_misses_total{model=\"fake\"} 1",
        "siglip_rejected_total{reason=\"too_large\"} 1",
        "siglip_queue_depth{model=\"fake\",lane=\"image\"} 0",
        "siglip_prepare_duration_seconds_count{kind=\"image\"} 2",
        "siglip_inference_duration_seconds_count{model=\"fake\",lane=\"text\"} 1",
        "siglip_batch_tokens_sum{model=\"fake\",lane=\"text\"} 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    // Each has the labels that the list of metrics says.
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = &line[..line.find(['{', ' ']).unwrap()];
        let metric = siglip::testing::telemetry::METRICS.iter().find(|metric| {
            let suffix = name.strip_prefix(metric.name);
            suffix.is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
        });
        let metric = metric.unwrap_or_else(|| panic!("{name} is not listed"));
        let labels = line[name.len()..].split('"').step_by(2).filter_map(|part| part.strip_suffix('='));
        let labels: Vec<_> = labels.map(|part| part.trim_start_matches(['{', ','])).collect();
        let labels: Vec<_> = labels.into_iter().filter(|&label| label != "le").collect();
        assert_eq!(labels, metric.labels, "{line}");
    }
}
