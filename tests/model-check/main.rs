//! The engine under shuttle: every step of its threads is scheduled by the checker, in another order each time. A lost
//! wake-up shows as a deadlock, an input that is answered twice or never as a failed assertion.

mod model;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::{Memory, Tiny};
use shuttle::future::block_on;
use shuttle::thread;
use siglip::testing::engine::{
    EmbedOptions, Engine, EngineConfig, EngineError, Input, Load, ModelHandle, Output,
};

/// Schedules of each test.
const SCHEDULES: usize = 400;
/// Schedules are random, and at most so many threads are favoured over others (PCT).
const DEPTH: usize = 3;

/// Runs `test` under random schedules, and under schedules that favour one thread for long.
fn check(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, DEPTH);
}

fn config() -> EngineConfig {
    EngineConfig {
        prepare_threads: 1,
        tokenize_threads: 1,
        workers_per_replica: Some(1),
        max_batch_tokens: Some(2),
        warm_up: false,
        // Its locks are its own.
        cache_bytes: 0,
        ..EngineConfig::default()
    }
}

fn pictures(names: &[&str]) -> Vec<Input> {
    names.iter().map(|name| Input::Image(bytes::Bytes::copy_from_slice(name.as_bytes()))).collect()
}

fn ask(model: &ModelHandle, names: &[&str], client: u64) -> Result<Output, EngineError> {
    block_on(model.embed(pictures(names), EmbedOptions { client, ..EmbedOptions::default() }))
}

/// Asks on a thread of its own.
fn asking(
    model: &ModelHandle,
    names: &'static [&'static str],
    client: u64,
) -> thread::JoinHandle<Result<Output, EngineError>> {
    let model = model.clone();
    thread::spawn(move || ask(&model, names, client))
}

/// Two models, of which the second has taken the room of the first.
fn two_in_the_room_of_one() -> (Arc<Memory>, Engine, [Arc<Tiny>; 2], Vec<ModelHandle>) {
    let memory = Arc::default();
    let tinies = [Tiny::within(1, &memory), Tiny::within(1, &memory)];
    let engine = Engine::start(EngineConfig { max_model_memory: Some(model::MEMORY), ..config() });
    let models =
        (0..2).map(|i| engine.insert(&[&i.to_string()], Arc::clone(&tinies[i]) as _).unwrap()).collect();
    (memory, engine, tinies, models)
}

/// Everything came out, in order.
#[track_caller]
fn whole(answer: Result<Output, EngineError>, names: &[&str]) {
    let output = answer.expect("admitted and computed");
    let found: Vec<f32> = output.results.iter().map(|r| r.as_ref().expect("computed").vector[0]).collect();
    assert_eq!(found, names.iter().map(|name| model::value(name.as_bytes())).collect::<Vec<_>>());
}

#[test]
fn everything_admitted_is_answered_once() {
    check(|| {
        let tiny = Tiny::new(1);
        let engine = Engine::start(config());
        let model = engine.insert(&["m"], Arc::clone(&tiny) as _).unwrap();
        let one = asking(&model, &["a", "b", "c"], 1);
        let two = asking(&model, &["d"], 2);
        whole(one.join().unwrap(), &["a", "b", "c"]);
        whole(two.join().unwrap(), &["d"]);
        assert_eq!(engine.load(), Load::default());
        assert_eq!(tiny.computed(), 4, "each once");
        drop((engine, model));
    });
}

#[test]
fn what_was_admitted_when_the_engine_goes_is_answered() {
    check(|| {
        let engine = Engine::start(config());
        let model = engine.insert(&["m"], Tiny::new(1)).unwrap();
        let one = asking(&model, &["a", "b", "c"], 1);
        let two = asking(&model, &["d"], 2);
        drop(engine);
        for (answer, names) in [(one, &["a", "b", "c"][..]), (two, &["d"])] {
            match answer.join().unwrap() {
                Err(EngineError::ShuttingDown) => {}
                answer => whole(answer, names),
            }
        }
    });
}

#[test]
fn a_client_that_leaves_takes_its_inputs_with_it() {
    check(|| {
        let engine = Engine::start(config());
        let model = engine.insert(&["m"], Tiny::new(1)).unwrap();
        let stays = asking(&model, &["a", "b"], 1);
        let leaves = {
            let model = model.clone();
            thread::spawn(move || {
                block_on(async move {
                    let request = model.embed(pictures(&["c", "d", "e"]), EmbedOptions::default());
                    // Polled once, then dropped.
                    let mut request = Box::pin(request);
                    let _ = futures::poll!(request.as_mut());
                });
            })
        };
        leaves.join().unwrap();
        whole(stays.join().unwrap(), &["a", "b"]);
        drop((engine, model));
    });
}

#[test]
fn a_full_queue_refuses_and_loses_nothing() {
    check(|| {
        let engine = Engine::start(EngineConfig { max_queue_items: 3, ..config() });
        let model = engine.insert(&["m"], Tiny::new(1)).unwrap();
        let requests = [(&["a", "b"][..], 1), (&["c", "d"], 2), (&["e"], 3)];
        let answers = requests.map(|(names, client)| (asking(&model, names, client), names));
        for (answer, names) in answers {
            match answer.join().unwrap() {
                Err(EngineError::Overloaded { .. }) => {}
                answer => whole(answer, names),
            }
        }
        assert_eq!(engine.load(), Load::default());
        drop((engine, model));
    });
}

#[test]
fn two_models_in_the_room_of_one_answer_everything() {
    check(|| {
        let (memory, engine, _, models) = two_in_the_room_of_one();
        let one = asking(&models[0], &["a", "b"], 1);
        let two = asking(&models[1], &["c"], 2);
        whole(one.join().unwrap(), &["a", "b"]);
        whole(two.join().unwrap(), &["c"]);
        assert_eq!(memory.most(), 1, "never both in memory");
        assert_eq!(engine.load(), Load::default());
        drop((engine, models));
    });
}

#[test]
fn towers_that_do_not_come_back_are_told_to_everyone_who_waits() {
    check(|| {
        let (_, engine, tinies, models) = two_in_the_room_of_one();
        tinies[0].unreadable.store(true, Ordering::SeqCst);
        let one = asking(&models[0], &["a", "b"], 1);
        let two = asking(&models[0], &["c"], 2);
        for answer in [one.join().unwrap(), two.join().unwrap()] {
            assert!(matches!(answer, Err(EngineError::Loading { .. })), "{answer:?}");
        }
        assert_eq!(engine.load(), Load::default());
        drop((engine, models));
    });
}

#[test]
fn a_model_that_is_replaced_finishes_what_it_has() {
    check(|| {
        let (old, new) = (Tiny::new(1), Tiny::new(1));
        let engine = Engine::start(config());
        let model = engine.insert(&["m"], Arc::clone(&old) as _).unwrap();
        let one = asking(&model, &["a", "b", "c"], 1);
        engine.replace("m", move |_| Ok(new as _)).unwrap();
        match one.join().unwrap() {
            // It took its handle before and came when the old model had nothing left to do.
            Err(EngineError::Loading { .. }) => {}
            answer => whole(answer, &["a", "b", "c"]),
        }
        drop((engine, model));
    });
}

#[test]
fn a_lost_device_hands_its_batches_on() {
    check(|| {
        let tiny = Tiny::new(2);
        tiny.lose(0);
        let engine = Engine::start(config());
        let model = engine.insert(&["m"], Arc::clone(&tiny) as _).unwrap();
        let one = asking(&model, &["a", "b", "c"], 1);
        let two = asking(&model, &["d"], 2);
        whole(one.join().unwrap(), &["a", "b", "c"]);
        whole(two.join().unwrap(), &["d"]);
        drop((engine, model));
    });
}
