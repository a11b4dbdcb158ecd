//! Which version of a set answers, for which model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use siglip::testing::api::{ApiConfig, AppState, app};
use siglip::testing::budget::MemoryKind;
use siglip::testing::engine::Engine;

use super::super::fake::{Fake, vector};
use super::super::{Service, engine_config};
use super::{CLASSIFY, image};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_before_answers_until_the_new_one_is_encoded() {
    let engine = Engine::start(engine_config());
    let fake = Arc::new(Fake::new("fake"));
    engine.insert(&["fake"], fake.clone()).unwrap();
    let state = AppState::new(engine, ApiConfig::default(), None);
    let service = Service { router: app(state.clone()), state };
    let ask = async || service.json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "a"})).await;

    // Without a version that is ready: 503 with progress.
    fake.hold();
    service.put("/v1/label-sets/a", json!({"labels": ["held", "cat"]})).await;
    let answer = ask().await;
    let message = answer.error(503, "label_set_encoding");
    assert!(message.contains("0 of 2 labels are done"), "{message}");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    let model = service.get("/v1/label-sets/a").await.ok()["models"][0].clone();
    assert_eq!((&model["state"], &model["done"]), (&json!("encoding"), &json!(0)));
    fake.release();
    let first = service.stored("a", json!({"labels": ["held", "cat"]})).await;

    // While it is encoded the worker is busy: what is asked meanwhile is answered after that, by the version that it found.
    fake.hold();
    let put = service.put("/v1/label-sets/a", json!({"labels": ["held dog"]})).await;
    let second = put.json()["version"].as_str().unwrap().to_owned();
    service.get(&format!("/v1/label-sets/a@{first}")).await.ok();
    let pinned = json!({"input": image(b"PIC1"), "label_set": format!("a@{second}")});
    service.json(CLASSIFY, pinned).await.error(503, "label_set_encoding");
    let release = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        fake.release();
    };
    let (answer, ()) = tokio::join!(ask(), release);
    let body = answer.ok();
    assert_eq!(body["label_set"]["version"], first);
    assert_eq!(body["data"][0]["predictions"].as_array().unwrap().len(), 2);
    service.stored("a", json!({"labels": ["held dog"]})).await;
    assert_eq!(ask().await.ok()["label_set"]["version"], second);
    service.get(&format!("/v1/label-sets/a@{first}")).await.error(404, "label_set_not_found");
    // Thresholds are no texts: nothing is encoded for them.
    let held = service.state.memory().of_kind(MemoryKind::Labels);
    fake.hold();
    let put = service.put("/v1/label-sets/a", json!({"labels": ["held dog"], "threshold": 0.5})).await;
    assert_eq!(put.json()["models"][0]["state"], "ready");
    assert!(service.state.memory().of_kind(MemoryKind::Labels) < held + 1000);
    fake.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_follow_the_models() {
    let engine = Engine::start(engine_config());
    engine.insert(&["fake"], Arc::new(Fake::new("one"))).unwrap();
    let state = AppState::new(engine.clone(), ApiConfig::default(), None);
    tokio::spawn(state.label_sets().clone().keep_up());
    let service = Service { router: app(state.clone()), state };
    service.stored("a", json!({"labels": ["cat", "dog"]})).await;
    engine.replace("fake", |_| Ok(Arc::new(Fake::new("two")))).unwrap();
    let start = Instant::now();
    // Nobody asks for it: it is encoded all the same.
    loop {
        let models = service.get("/v1/label-sets/a").await.ok()["models"].clone();
        if models[0]["fingerprint"] == "finger-two" && models[0]["state"] == "ready" {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{models}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let answer = service.json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "a"})).await;
    answer.ok();
    assert_eq!(answer.header("x-siglip-fingerprint"), "finger-two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_model_encodes_a_set_when_it_is_asked() {
    let service = Service::new().await;
    service.put("/v1/label-sets/a", json!({"labels": ["cat", "dog"], "model": "other"})).await;
    let ask = json!({"input": image(b"PIC1"), "label_set": "a"});
    let start = Instant::now();
    loop {
        let answer = service.json(CLASSIFY, ask.clone()).await;
        if answer.status == 200 {
            break;
        }
        answer.error(503, "label_set_encoding");
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let models = service.get("/v1/label-sets/a").await.ok()["models"].clone();
    assert!(models.as_array().unwrap().iter().all(|model| model["state"] == "ready"), "{models}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_model_answers_by_the_newest_version_that_is_ready_for_it() {
    let engine = Engine::start(engine_config());
    let slow = Arc::new(Fake::new("slow"));
    engine.insert(&["fast"], Arc::new(Fake::new("fast"))).unwrap();
    engine.insert(&["slow"], slow.clone()).unwrap();
    let state = AppState::new(engine, ApiConfig::default(), None);
    let service = Service { router: app(state.clone()), state };
    let ask = async |model: &str| {
        let request = json!({"embeddings": [vector(b"PIC1")], "label_set": "a", "model": model});
        service.json(CLASSIFY, request).await.ok()["label_set"]["version"].as_str().unwrap().to_owned()
    };
    let ready = async |version: &str| {
        let until = Instant::now() + Duration::from_secs(20);
        for model in ["fast", "slow"] {
            let model = service.state.engine().model(Some(model)).unwrap();
            let found = service.state.label_sets().when_ready("a", &model, until).await.unwrap();
            assert_eq!(found.version.id(), version);
        }
    };
    let first = service.stored("a", json!({"labels": ["held cat"]})).await;
    ready(&first).await;
    let held = service.state.memory().of_kind(MemoryKind::Labels);

    // Two new versions, one after the other, before the second model has encoded any of them.
    slow.hold();
    let second = service.stored("a", json!({"labels": ["held dog"]})).await;
    let third = service.stored("a", json!({"labels": ["held owl"]})).await;
    assert_eq!(ask("fast").await, third);
    let release = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        slow.release();
    };
    let (answered, ()) = tokio::join!(ask("slow"), release);
    assert_eq!(answered, first, "the one that is ready for this model");
    ready(&third).await;
    assert_eq!(ask("slow").await, third);
    // Nobody needs the others any more: they are let go when the last model is ready.
    let start = Instant::now();
    for old in [first, second] {
        while service.get(&format!("/v1/label-sets/a@{old}")).await.status != 404 {
            assert!(start.elapsed() < Duration::from_secs(20), "{old} is still there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(service.state.memory().of_kind(MemoryKind::Labels), held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_texts_of_sets_push_no_query_out_of_the_cache() {
    let service = Service::new().await;
    let model = service.state.engine().model(None).unwrap();
    let is_cached = async |text: &str| {
        let inputs = vec![siglip::testing::engine::Input::Text(text.to_owned())];
        model.embed(inputs, Default::default()).await.unwrap().results.remove(0).unwrap().cached
    };
    assert!(!is_cached("a query").await);
    service.stored("a", json!({"labels": ["cat", "query"]})).await;
    assert!(is_cached("a query").await);
    assert!(!is_cached("a cat").await, "a text of the set was kept");
    assert!(is_cached("a cat").await, "clients' own texts are");
}
