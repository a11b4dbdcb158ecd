//! Admission, backpressure and memory.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use siglip::testing::engine::{EmbedOptions, EngineConfig, EngineError, Load};

use super::fake::*;

fn overloaded(error: &EngineError) -> bool {
    matches!(error, EngineError::Overloaded { retry_after, .. } if !retry_after.is_zero())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_admitted_whole_or_refused_at_once() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, EngineConfig { max_queue_items: 10, ..config() });
    let eight = send(&engine, &model, images("a", 8), client(1));
    let error = model.embed(images("b", 3), client(2)).await.unwrap_err();
    assert!(overloaded(&error), "{error}");
    assert_eq!(engine.load().items, 8, "nothing of it was admitted");
    let two = send(&engine, &model, images("c", 2), client(2));
    // The same for one and for many, whoever asks, pictures or texts.
    for inputs in [images("d", 1), images("d", 10), vec![text("d")]] {
        assert!(overloaded(&model.embed(inputs, client(3)).await.unwrap_err()));
    }
    let error = model.embed(images("e", 11), client(3)).await.unwrap_err();
    assert!(matches!(error, EngineError::TooLarge(_)), "{error}");
    fake.gate.open();
    assert_eq!(ok(&eight.await.unwrap().unwrap()).len(), 8);
    assert_eq!(ok(&two.await.unwrap().unwrap()).len(), 2);
    assert_eq!(engine.load(), Load::default());
    let computed = fake.computed();
    assert!(computed.len() == 10 && computed.iter().all(|name| name.starts_with(['a', 'c'])), "{computed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_texts_need_no_room() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, EngineConfig { max_queue_items: 2, ..config() });
    model.embed(vec![text("cat")], client(1)).await.unwrap();
    fake.gate.close();
    let full = send(&engine, &model, images("a", 2), client(1));
    let output = model.embed(vec![text("cat"); 100], client(2)).await.unwrap();
    assert!(output.results.iter().all(|result| result.as_ref().unwrap().cached));
    fake.gate.open();
    full.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_bounded_and_shrink_once_a_picture_is_prepared() {
    let fake = Fake::held();
    // It becomes 40 tokens of one pixel, at most: it waits with 120 bytes. The file is whoever sent it's.
    let padding = "x".repeat(100 - "p 40 0 ".len());
    let file = || image(&format!("p 40 0 {padding}"));
    let (engine, model) = start(&fake, EngineConfig { max_queue_bytes: 250, ..config() });
    fake.prepare_gate.close();
    let two = send(&engine, &model, vec![file(), file()], client(1));
    assert_eq!(engine.load().bytes, 240);
    assert!(overloaded(&model.embed(vec![file()], client(1)).await.unwrap_err()));
    let error = model.embed(vec![file(), file(), file()], client(1)).await.unwrap_err();
    assert!(matches!(error, EngineError::TooLarge(_)), "{error}");
    // The fake keeps the file as its pixels, 100 bytes.
    fake.prepare_gate.open();
    eventually("preparation", || engine.load().bytes == 200);
    fake.gate.open();
    two.await.unwrap().unwrap();
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_too_much_loses_nothing_that_was_admitted() {
    let fake = Fake::new();
    let limits = EngineConfig { max_queue_items: 16, prepare_threads: 2, ..config() };
    let (engine, model) = start(&fake, limits);
    let requests: Vec<_> = (0..160)
        .map(|i| {
            let (model, engine) = (model.clone(), engine.clone());
            tokio::spawn(async move {
                let inputs = images(&format!("r{i}-"), 1 + i % 3);
                let names: Vec<_> = inputs.iter().map(|input| format!("{input:?}")).collect();
                let answer = model.embed(inputs, client(i as u64 % 5)).await;
                assert!(engine.load().items <= 16);
                (names.len(), answer)
            })
        })
        .collect();
    let (mut answered, mut refused) = (0, 0);
    for request in requests {
        match request.await.unwrap() {
            (n, Ok(output)) => {
                assert_eq!(ok(&output).len(), n);
                answered += n;
            }
            (_, Err(error)) if overloaded(&error) => refused += 1,
            (_, Err(error)) => panic!("{error}"),
        }
    }
    assert!(answered > 0, "{answered} answered, {refused} refused");
    assert_eq!(fake.computed().len(), answered, "what was admitted was computed once, nothing else was");
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_nine_of_ten_and_finishes_the_tenth() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, EngineConfig { max_queue_items: 16, ..config() });
    let admitted: Vec<_> =
        (0..16).map(|i| send(&engine, &model, images(&format!("r{i}"), 1), client(i))).collect();
    for i in 0..144 {
        assert!(overloaded(&model.embed(images("late", 1), client(i)).await.unwrap_err()));
    }
    fake.gate.open();
    for answer in admitted {
        assert_eq!(ok(&answer.await.unwrap().unwrap()).len(), 1);
    }
    assert_eq!(fake.computed().len(), 16);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_prepared_than_the_next_batches_need() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let answer = send(&engine, &model, images("a", 200), client(1));
    for calls in 1.. {
        eventually("a batch or the end", || fake.gate.arrived() >= calls || answer.is_finished());
        if fake.gate.arrived() < calls {
            break;
        }
        // Two batches of ten ahead of those on the worker, whatever the thread has done meanwhile.
        let (prepared, computed) = (fake.prepared().len(), fake.computed().len());
        assert!(prepared <= computed + 20, "{prepared} prepared, {computed} computed");
        let full = (computed + 20).min(200);
        eventually("as much as is allowed", || fake.prepared().len() == full);
        fake.gate.allow(1);
        tokio::task::yield_now().await;
    }
    answer.await.unwrap().unwrap();
    assert_eq!(fake.computed().len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decoded_pixels_are_bounded_over_all_threads() {
    let fake = Fake::new();
    let limits = EngineConfig { prepare_threads: 8, max_decode_bytes: 100, ..config() };
    let (engine, model) = start(&fake, limits);
    let inputs: Vec<_> = (0..200).map(|i| image(&format!("p{i} 1 {}", [10, 40, 60, 99][i % 4]))).collect();
    model.embed(inputs, client(1)).await.unwrap();
    let peak = fake.decode_peak.load(Ordering::SeqCst);
    assert!((99..=100).contains(&peak), "{peak}");
    // One that is larger than all of it is decoded alone.
    let inputs: Vec<_> =
        (0..40).map(|i| image(&format!("q{i} 1 {}", if i == 7 { 500 } else { 30 }))).collect();
    model.embed(inputs, client(1)).await.unwrap();
    assert_eq!(fake.decode_peak.load(Ordering::SeqCst), 500);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_does_not_wait_behind_pixels() {
    let fake = Fake::unprepared();
    let (engine, model) = start(&fake, config());
    let stuck = send(&engine, &model, images("a", 3), client(1));
    fake.prepare_gate.wait_for(1);
    let text = send(&engine, &model, vec![text("cat")], client(1));
    // The text's thread has come to the gate as well, with three pictures before it in the queue.
    fake.prepare_gate.wait_for(2);
    assert_eq!(fake.prepared(), ["a0", "cat"]);
    fake.prepare_gate.open();
    text.await.unwrap().unwrap();
    stuck.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_of_a_few_bytes_holds_a_few_texts() {
    let fake = Fake::new();
    let (_engine, model) = start(&fake, EngineConfig { cache_bytes: 2000, ..config() });
    let texts: Vec<_> = (0..500).map(|i| text(&format!("text {i}"))).collect();
    model.embed(texts.clone(), EmbedOptions::default()).await.unwrap();
    let output = model.embed(texts, EmbedOptions::default()).await.unwrap();
    let cached = output.results.iter().filter(|result| result.as_ref().unwrap().cached).count();
    // An entry weighs more than 256 bytes; what the cache has not cleaned up yet comes on top.
    assert!(cached < 250, "{cached}");
    assert_eq!(ok(&output).len(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_finished_in_time_is_refused_at_once_with_what_could() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    // Nothing is known of its speed.
    let first = send(&engine, &model, images("slow", 40), client(1));
    // A worker takes what is prepared, so that there may be more batches than the four that 40 inputs need.
    let mut passed = 0;
    while !first.is_finished() {
        std::thread::sleep(Duration::from_millis(50));
        if fake.gate.arrived() > passed {
            passed += 1;
            fake.gate.allow(1);
        }
    }
    first.await.unwrap().unwrap();
    // Ten tokens in 50 ms: a thousand pictures of 4 tokens take 20 s.
    let many: Vec<_> = (0..1000).map(|i| image(&format!("many{i} 4"))).collect();
    let deadline = Some(Instant::now() + Duration::from_secs(2));
    let options = EmbedOptions { deadline, ..client(1) };
    let error = model.embed(many.clone(), options.clone()).await.unwrap_err();
    let EngineError::TooLarge(text) = &error else { panic!("{error}") };
    assert!(text.starts_with("1000 inputs would not be finished within 2 s, about "), "{text}");
    assert_eq!(engine.load(), Load::default(), "nothing of it was admitted");
    // Whoever takes what is done by then is not refused, nor a request that is small enough.
    let partial = send(&engine, &model, many, EmbedOptions { partial: true, ..options });
    partial.abort();
    fake.gate.open();
    model.embed(images("few", 3), client(1)).await.unwrap();
}
