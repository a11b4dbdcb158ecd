//! Whose turn it is: clients, lanes, deadlines and those who have gone.

use std::time::{Duration, Instant};

use siglip::testing::engine::{Class, EmbedOptions, EngineError, Load};

use super::fake::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_picture_waits_a_batch_behind_a_thousand() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let mut many = vec![send(&engine, &model, images("first", 1), client(1))];
    fake.gate.wait_for(1);
    many.push(send(&engine, &model, images("many", 1000), client(1)));
    // Two batches of the thousand are ready; there is no room for more when the other client comes.
    eventually("preparation", || fake.prepared().len() == 21);
    let one = send(&engine, &model, images("one", 1), client(2));
    // The batch of ten that makes room for the one picture.
    fake.gate.allow(1);
    fake.gate.wait_for(2);
    eventually("preparation", || fake.prepared().len() == 31);
    fake.gate.allow(1);
    fake.gate.wait_for(3);
    let batches = fake.batches();
    assert!(batches[2].contains(&"one0".to_owned()), "{batches:?}");
    fake.gate.open();
    one.await.unwrap().unwrap();
    for answer in many {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(fake.computed().len(), 1002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_are_by_tokens() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(9));
    fake.gate.wait_for(1);
    let large: Vec<_> = (0..30).map(|i| image(&format!("large{i} 5"))).collect();
    let large = send(&engine, &model, large, client(1));
    let small = send(&engine, &model, images("small", 150), client(2));
    fake.gate.open();
    first.await.unwrap().unwrap();
    large.await.unwrap().unwrap();
    small.await.unwrap().unwrap();
    // After each batch both were served as much, within what is prepared ahead.
    let mut served = [0i64; 2];
    for batch in &fake.batches()[1..] {
        for name in batch {
            if name.starts_with("large") { served[0] += 5 } else { served[1] += 1 }
        }
        assert!((served[0] - served[1]).abs() <= 30, "{served:?}");
    }
    assert_eq!(served, [150, 150]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_is_not_computed() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(1));
    fake.gate.wait_for(1);
    let clients: Vec<_> =
        (0..200).map(|i| send(&engine, &model, images(&format!("gone{i}-"), 3), client(i))).collect();
    let stays = send(&engine, &model, images("stays", 2), client(7));
    assert_eq!(engine.load().items, 603);
    for client in clients {
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
    }
    // Their places are free although the worker has not moved; the one that is being prepared
    // goes as soon as its thread has seen it.
    eventually("room", || engine.load().items == 3);
    fake.gate.open();
    first.await.unwrap().unwrap();
    stays.await.unwrap().unwrap();
    assert_eq!(fake.computed(), ["first0", "stays0", "stays1"]);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_whose_client_leaves_while_it_is_decoded_is_not_computed() {
    let fake = Fake::unprepared();
    let (engine, model) = start(&fake, config());
    let gone = send(&engine, &model, images("gone", 2), client(1));
    fake.prepare_gate.wait_for(1);
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(engine.load().items, 1, "one waited, one is on the thread");
    fake.prepare_gate.open();
    model.embed(images("stays", 1), client(1)).await.unwrap();
    assert_eq!(fake.computed(), ["stays0"]);
    assert_eq!(fake.prepared(), ["gone0", "stays0"]);
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_answers_in_time_and_saves_the_work() {
    let fake = Fake::held();
    let (engine, model) = start(&fake, config());
    let first = send(&engine, &model, images("first", 1), client(1));
    fake.gate.wait_for(1);
    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let options = EmbedOptions { deadline, ..client(2) };
    // The worker stands still: the answer does not come from it.
    let error = model.embed(images("late", 30), options).await.unwrap_err();
    assert!(
        matches!(error, EngineError::Deadline(allowed) if allowed <= Duration::from_millis(20)),
        "{error}"
    );
    eventually("room", || engine.load().items == 1);
    fake.gate.open();
    first.await.unwrap().unwrap();
    model.embed(images("next", 1), client(2)).await.unwrap();
    assert_eq!(fake.computed(), ["first0", "next0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_has_passed_is_not_even_queued() {
    let fake = Fake::new();
    let (_engine, model) = start(&fake, config());
    let options = EmbedOptions { deadline: Some(Instant::now()), ..client(1) };
    let error = model.embed(images("late", 1), options).await.unwrap_err();
    assert!(matches!(error, EngineError::Deadline(_)), "{error}");
    assert!(fake.prepared().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_is_kept_changes_nothing() {
    let (_engine, model) = start(&Fake::new(), config());
    let deadline = Some(Instant::now() + Duration::from_secs(3600));
    let output = model.embed(images("a", 30), EmbedOptions { deadline, ..client(1) }).await.unwrap();
    assert_eq!(ok(&output).len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_computed_between_the_layers_of_pictures() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, config());
    fake.layers_gate.close();
    let pictures = send(&engine, &model, images("picture", 10), client(1));
    fake.gate.wait_for(1);
    // The one batch of pictures has not ended.
    model.embed(vec![text("cat")], client(2)).await.unwrap();
    model.embed(vec![text("dog")], client(2)).await.unwrap();
    // More pictures wait for it.
    let more = send(&engine, &model, images("more", 10), client(2));
    eventually("preparation", || fake.prepared().len() == 22);
    assert_eq!(fake.batches().len(), 3);
    assert!(!pictures.is_finished() && !more.is_finished());
    fake.layers_gate.open();
    let output = pictures.await.unwrap().unwrap();
    for (i, result) in output.results.iter().enumerate() {
        assert_eq!(result.as_ref().unwrap().vector[..], vector(format!("picture{i}").as_bytes()));
    }
    more.await.unwrap().unwrap();
    assert_eq!(engine.load(), Load::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_pictures_wait_between_their_layers_for_interactive_ones() {
    let fake = Fake::new();
    let (engine, model) = start(&fake, config());
    fake.layers_gate.close();
    let background = EmbedOptions { class: Class::Background, ..client(9) };
    let bulk = send(&engine, &model, images("bulk", 10), background);
    fake.gate.wait_for(1);
    let picture = send(&engine, &model, images("picture", 1), client(1));
    fake.gate.wait_for(2);
    // In the middle of both.
    model.embed(vec![text("cat")], client(2)).await.unwrap();
    assert!(!bulk.is_finished() && !picture.is_finished());
    let batches = fake.batches();
    assert!(batches[0][0].starts_with("bulk") && batches[1] == ["picture0"], "{batches:?}");
    fake.layers_gate.open();
    picture.await.unwrap().unwrap();
    bulk.await.unwrap().unwrap();
    assert_eq!(engine.load(), Load::default());
}
