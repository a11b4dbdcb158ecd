//! `/v1/label-sets`, and classification with stored sets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use siglip::api::{ApiConfig, ApiKeys, AppState, app};
use siglip::budget::{MemoryBudget, MemoryKind};
use siglip::engine::Engine;
use siglip::labels::{LabelSets, SetLimits};
use siglip::model::scores::{cosine, sigmoid};
use siglip::model::zero_shot::mean_direction;

use super::fake::{BIAS, DIM, Fake, SCALE, vector};
use super::{Answer, Service, assert_close, engine_config};

const CLASSIFY: &str = "/v1/classify";

impl Service {
    async fn put(&self, path: &str, body: Value) -> Answer {
        self.put_if(path, body, &[]).await
    }

    async fn put_if(&self, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::put(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn delete(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::delete(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Stores a set and waits until it is encoded; its version.
    async fn stored(&self, name: &str, body: Value) -> String {
        let answer = self.put(&format!("/v1/label-sets/{name}?wait=true"), body).await;
        assert!(answer.status.is_success(), "{}", answer.json());
        let body = answer.json();
        assert_eq!(body["models"][0]["state"], "ready", "{body}");
        assert_eq!(answer.header("etag"), format!("\"{}\"", body["version"].as_str().unwrap()));
        body["version"].as_str().unwrap().to_owned()
    }

    /// A service whose sets are in a folder.
    fn kept_in(data: &std::path::Path, model: Arc<Fake>) -> Self {
        let engine = Engine::start(engine_config());
        engine.insert(&["fake"], model).unwrap();
        let config = ApiConfig::default();
        // A process that another test starts holds the lock of the service before from its fork to its exec.
        let until = Instant::now() + Duration::from_secs(10);
        let labels = loop {
            match LabelSets::open(engine.clone(), config.memory.clone(), 256, data) {
                Ok(labels) => break labels,
                Err(error) if Instant::now() > until => panic!("{error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let state = AppState::with_label_sets(engine, config, None, labels);
        Self { router: app(state.clone()), state }
    }
}

fn image(content: &[u8]) -> Value {
    json!({"image": STANDARD.encode(content)})
}

/// The logit of a picture and a label with these texts.
fn logit(picture: &[u8], texts: &[&str]) -> f32 {
    let vectors: Vec<Vec<f32>> = texts.iter().map(|text| vector(text.as_bytes())).collect();
    let direction = mean_direction(vectors.iter().map(Vec::as_slice));
    cosine(&vector(picture), &direction) * SCALE + BIAS
}

/// The logits of an answer by label.
fn logits(body: &Value) -> Vec<(String, f32)> {
    let predictions = body["data"][0]["predictions"].as_array().unwrap();
    let each = predictions
        .iter()
        .map(|p| (p["label"].as_str().unwrap().to_owned(), p["logit"].as_f64().unwrap() as f32));
    let mut found: Vec<_> = each.collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_set_answers_as_its_labels_would() {
    let service = Service::new().await;
    let set = json!({"labels": ["cat", {"name": "dog", "synonyms": ["puppy"]}, {"name": "car", "prompts": ["my van"]}],
                     "templates": ["a {}", "the {}"]});
    let version = service.stored("animals", set.clone()).await;
    let answer = service.json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "animals"})).await;
    let body = answer.ok();
    assert_eq!(body["label_set"], json!({"name": "animals", "version": version}));
    assert_eq!(answer.header("x-siglip-fingerprint"), "finger-fake");
    let wanted = [
        ("car", logit(b"PIC1", &["my van"])),
        ("cat", logit(b"PIC1", &["a cat", "the cat"])),
        ("dog", logit(b"PIC1", &["a dog", "the dog", "a puppy", "the puppy"])),
    ];
    for ((label, found), (name, wanted)) in logits(&body).iter().zip(wanted) {
        assert_eq!(label, name);
        assert!((found - wanted).abs() < 1e-4, "{label}: {found} {wanted}");
    }
    assert_eq!(body["usage"]["total_tokens"], 196, "its labels were counted when they were stored");

    let read = service.get("/v1/label-sets/animals").await;
    assert_eq!(read.header("etag"), format!("\"{version}\""));
    let read = read.ok();
    assert_eq!((&read["definition"], &read["labels"], &read["kind"]), (&set, &json!(3), &json!("texts")));
    assert_eq!((&read["persistent"], &read["models"][1]["state"]), (&json!(false), &json!("waiting")));
    service.get(&format!("/v1/label-sets/animals@{version}")).await.ok();
    let list = service.get("/v1/label-sets").await.ok();
    assert_eq!((&list["data"][0]["name"], &list["persistent"]), (&json!("animals"), &json!(false)));
    assert!(list["data"][0].get("definition").is_none());
    // The version pins what is meant.
    let pinned = format!("animals@{version}");
    service.json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": pinned})).await.ok();
    let other = json!({"input": image(b"PIC1"), "label_set": "animals@0123"});
    let message = service.json(CLASSIFY, other).await.error(404, "label_set_not_found");
    assert!(message.contains("has no version \"0123\"") && message.contains(&version), "{message}");

    assert_eq!(service.delete("/v1/label-sets/animals", &[]).await.status, 204);
    service.get("/v1/label-sets/animals").await.error(404, "label_set_not_found");
    assert_eq!(service.state.memory().of_kind(MemoryKind::Labels), 0, "what it held is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embeddings_stand_for_pictures() {
    let service = Service::new().await;
    service.stored("animals", json!({"labels": ["cat", "dog"]})).await;
    let picture = vector(b"PIC1");
    let bytes: Vec<u8> = picture.iter().flat_map(|x| x.to_le_bytes()).collect();
    let wanted = service.json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "animals"})).await.ok();
    for labels in [json!({"label_set": "animals"}), json!({"labels": ["cat", "dog"]})] {
        let mut request = labels.clone();
        request["embeddings"] = json!([picture, STANDARD.encode(&bytes)]);
        let body = service.json(CLASSIFY, request).await.ok();
        for index in 0..2 {
            let (found, wanted) = (&body["data"][index]["predictions"], &wanted["data"][0]["predictions"]);
            let scores = |of: &Value| {
                of.as_array().unwrap().iter().map(|p| p["logit"].as_f64().unwrap() as f32).collect::<Vec<_>>()
            };
            assert_close(&scores(found), &scores(wanted));
        }
        if labels.get("label_set").is_some() {
            assert_eq!(body["usage"]["total_tokens"], 0);
        }
    }
    for (embeddings, status, code, part) in [
        (json!([[1.0]]), 422, "invalid_embedding", "embeddings[0]: 1 numbers"),
        (
            json!([picture, vec![1e39; DIM]]),
            422,
            "invalid_embedding",
            "embeddings[1]: number 0 is not finite",
        ),
        (json!([]), 422, "invalid_value", "embeddings: at least one"),
        (json!([["x"]]), 400, "invalid_request", "embeddings[0]"),
        (json!("AAAA"), 400, "invalid_request", "embeddings: "),
    ] {
        let request = json!({"embeddings": embeddings, "label_set": "animals"});
        let message = service.json(CLASSIFY, request.clone()).await.error(status, code);
        assert!(message.contains(part), "{message}");
    }
    let both = json!({"embeddings": [picture], "input": image(b"PIC"), "label_set": "animals"});
    service.json(CLASSIFY, both).await.error(422, "invalid_value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_stored_or_used_is_named() {
    let service = Service::configured(ApiConfig { max_label_sets: 1.into(), ..ApiConfig::default() }).await;
    let long = "x".repeat(1001);
    for (path, set, status, code, part) in [
        ("a", json!({}), 400, "invalid_request", "missing field `labels`"),
        ("a", json!({"labels": []}), 422, "invalid_value", "labels: at least one"),
        ("a", json!({"labels": ["a", long]}), 422, "invalid_value", "labels[1]: 1001 bytes"),
        ("a", json!({"labels": ["a", "a"]}), 422, "invalid_value", "is a label already"),
        ("a", json!({"labels": ["a"], "templates": "nothing"}), 422, "invalid_value", "imagenet-80"),
        ("a", json!({"labels": ["a"], "none": {"against": "b/c"}}), 422, "invalid_value", "none.against: "),
        (
            "a",
            json!({"labels": ["a"], "model": "clip"}),
            422,
            "invalid_value",
            "model: there is no model named",
        ),
        ("a", json!({"labels": ["a"], "label": 1}), 400, "invalid_request", "unknown field `label`"),
        ("a", json!({"labels": vec![""; 100_001]}), 400, "invalid_request", "more than 100000"),
        (".a", json!({"labels": ["a"]}), 422, "invalid_value", "name: \".a\" is no name"),
    ] {
        let message = service.put(&format!("/v1/label-sets/{path}"), set).await.error(status, code);
        assert!(message.contains(part), "{part}: {message}");
    }
    service.stored("a", json!({"labels": ["cat"]})).await;
    let full = service.put("/v1/label-sets/b", json!({"labels": ["cat"]})).await;
    assert!(full.error(409, "too_many_label_sets").contains("keeps 1 label sets"));
    service.stored("a", json!({"labels": ["dog"]})).await;
    for (mut request, status, code, part) in [
        (json!({"label_set": "b"}), 404, "label_set_not_found", "no label set named \"b\""),
        (json!({"label_set": "a", "labels": ["x"]}), 422, "invalid_value", "label_set: give either"),
        (json!({"label_set": "a", "template": "{}"}), 422, "invalid_value", "template: a stored label set"),
        (json!({"label_set": "a", "none": {"against": "c"}}), 404, "label_set_not_found", "none.against: "),
        (json!({"label_set": "a", "none": 1.5}), 422, "invalid_value", "none: 1.5 is not between"),
        (json!({"label_set": "a", "none": "x"}), 400, "invalid_request", "none: "),
        (json!({}), 400, "invalid_request", "missing field `labels`"),
    ] {
        request["input"] = image(b"PIC1");
        let message = service.json(CLASSIFY, request).await.error(status, code);
        assert!(message.contains(part), "{message}");
    }
    service.delete("/v1/label-sets/b", &[]).await.error(404, "label_set_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_is_replaced_only_as_what_it_is_taken_for() {
    let service = Service::new().await;
    let (cat, dog) = (json!({"labels": ["cat"]}), json!({"labels": ["dog"]}));
    let path = "/v1/label-sets/a";
    service.put_if(path, cat.clone(), &[("if-match", "*")]).await.error(412, "version_mismatch");
    assert_eq!(service.put_if(path, cat.clone(), &[("if-none-match", "*")]).await.status, 201);
    service.put_if(path, dog.clone(), &[("if-none-match", "*")]).await.error(412, "version_mismatch");
    let first = service.stored("a", cat.clone()).await;
    let tag = format!("\"{first}\"");
    let answer = service.put_if(path, dog.clone(), &[("if-match", &tag)]).await;
    assert_eq!(answer.status, 200);
    let second = answer.json()["version"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    let message =
        service.put_if(path, cat.clone(), &[("if-match", &tag)]).await.error(412, "version_mismatch");
    assert!(message.contains(&second), "{message}");
    service.delete(path, &[("if-match", &tag)]).await.error(412, "version_mismatch");
    service.delete(&format!("{path}@0123"), &[]).await.error(422, "invalid_value");
    // The version is the hash of the content.
    assert_eq!(service.stored("a", cat).await, first);
    assert_eq!(service.stored("b", dog).await, second);
    service
        .put_if(path, json!({"labels": ["x"]}), &[("if-none-match", "\"1\"")])
        .await
        .error(400, "invalid_header");
    assert_eq!(service.delete(path, &[("if-match", &format!("\"0\", {tag}"))]).await.status, 204);
}

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
async fn thresholds_and_none() {
    let service = Service::new().await;
    let texts = ["a cat", "a dog", "a car"];
    let scores: Vec<f32> = texts.iter().map(|text| sigmoid(logit(b"PIC1", &[text]))).collect();
    let (best, worst) =
        (scores.iter().copied().fold(0.0_f32, f32::max), scores.iter().copied().fold(1.0_f32, f32::min));
    let at = |label: usize, factor: f32| (scores[label] * factor).min(1.0);
    // The cat misses its threshold, the others reach theirs.
    let labels =
        json!([{"name": "cat", "threshold": at(0, 1.01)}, {"name": "dog", "threshold": at(1, 0.99)}, "car"]);
    service.stored("a", json!({"labels": labels, "threshold": at(2, 0.99)})).await;
    let ask = async |extra: Value| {
        let mut request = json!({"input": image(b"PIC1"), "label_set": "a"});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        service.json(CLASSIFY, request).await.ok()["data"][0].clone()
    };
    let names = |entry: &Value| -> Vec<String> {
        let mut names: Vec<String> = entry["predictions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["label"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let entry = ask(json!({})).await;
    assert_eq!(names(&entry), ["car", "dog"]);
    assert!(entry.get("none").is_none());
    assert_eq!(names(&ask(json!({"threshold": 0.0})).await), ["car", "cat", "dog"]);
    // What fits says so; a threshold above all labels leaves none.
    let entry = ask(json!({"none": true, "threshold": 0.0})).await;
    assert_eq!(entry["none"]["none_fits"], false);
    let entry = ask(json!({"none": (best * 1.01).min(1.0), "threshold": 0.0})).await;
    assert_eq!(
        (&entry["none"]["none_fits"], &entry["prediction"], &entry["score"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    assert_eq!(names(&entry).len(), 3, "the scores are there all the same");
    assert!((entry["none"]["score"].as_f64().unwrap() as f32 - best).abs() < 1e-5);
    let entry = ask(json!({"none": worst * 0.99, "threshold": 0.0})).await;
    assert!(entry["none"]["none_fits"] == false && entry["prediction"].is_string());

    // A rule of the set, which a request may put aside.
    service.stored("b", json!({"labels": ["cat", "dog", "car"], "none": (best * 1.01).min(1.0)})).await;
    let entry = |extra: Value| {
        let mut request = json!({"input": image(b"PIC1"), "label_set": "b"});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        service.json(CLASSIFY, request)
    };
    assert_eq!(entry(json!({})).await.ok()["data"][0]["none"]["none_fits"], true);
    assert!(entry(json!({"none": false})).await.ok()["data"][0].get("none").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn negatives_take_their_share() {
    let service = Service::new().await;
    service.stored("a", json!({"labels": ["cat", {"name": "dog", "synonyms": ["puppy"]}]})).await;
    service.stored("nouns", json!({"labels": ["stone", "CAT", "tree", "Puppy "]})).await;
    let e = |texts: &[&str]| logit(b"PIC1", texts).exp();
    let share = |labels: f32| {
        let (negatives, own_no) = (e(&["a stone"]) + e(&["a tree"]), 1.0);
        labels / (labels + negatives + own_no)
    };
    // Labels inline or stored: negatives that say the same as one of them do not count.
    let stored = share(e(&["a cat"]) + e(&["a dog", "a puppy"]));
    let inline = share(e(&["a cat"]) + e(&["a puppy"]));
    for (labels, wanted) in
        [(json!({"label_set": "a"}), stored), (json!({"labels": ["cat", "puppy"]}), inline)]
    {
        for (threshold, none_fits) in [(wanted * 0.99, false), ((wanted * 1.01).min(1.0), wanted < 0.999)] {
            let mut request = labels.clone();
            request["input"] = image(b"PIC1");
            request["none"] = json!({"against": "nouns", "threshold": threshold});
            let none = service.json(CLASSIFY, request).await.ok()["data"][0]["none"].clone();
            assert!((none["score"].as_f64().unwrap() as f32 - wanted).abs() < 1e-4, "{none} {wanted}");
            assert_eq!(none["none_fits"], none_fits, "{none}");
        }
    }
    // A form says it as text.
    let (kind, body) = super::form(&[
        ("image", Some("a"), None, b"PIC1"),
        ("label_set", None, None, b"a"),
        ("none", None, None, br#"{"against": "nouns"}"#),
    ]);
    let none = service.post(CLASSIFY, &kind, body).await.ok()["data"][0]["none"].clone();
    assert!((none["score"].as_f64().unwrap() as f32 - stored).abs() < 1e-4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_and_their_directions_outlive_the_service() {
    let data = tempfile::tempdir().unwrap();
    let set = json!({"labels": ["held", "dog"], "threshold": 0.001});
    let (version, wanted) = {
        let service = Service::kept_in(data.path(), Arc::new(Fake::new("fake")));
        let version = service.stored("a", set.clone()).await;
        assert_eq!(service.get("/v1/label-sets/a").await.ok()["persistent"], true);
        let body = service.json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "a"})).await.ok();
        (version, body["data"].clone())
    };
    // The text cannot be computed now: its direction is there.
    let fake = Arc::new(Fake::new("fake"));
    fake.hold();
    let service = Service::kept_in(data.path(), fake);
    let read = service.get("/v1/label-sets/a").await.ok();
    assert_eq!((&read["version"], &read["definition"]), (&json!(version), &set));
    let model = service.state.engine().model(None).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    service.state.label_sets().when_ready("a", &model, until).await.unwrap();
    let body = service.json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "a"})).await.ok();
    assert_eq!(body["data"], wanted);
    assert_eq!(service.delete("/v1/label-sets/a", &[]).await.status, 204);
    drop(service);
    let left = std::fs::read_dir(data.path().join("label-sets")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["~lock"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_has_its_number_of_sets() {
    let max_label_sets = SetLimits { all: 4, per_key: 2 };
    let api_keys = ApiKeys::new(["ann", "bob"]);
    let service = Service::configured(ApiConfig { max_label_sets, api_keys, ..ApiConfig::default() }).await;
    let put = async |name: &str, key: &str| {
        let path = format!("/v1/label-sets/{name}");
        service.put_if(&path, json!({"labels": [name]}), &[("x-api-key", key)]).await
    };
    for (name, key) in [("a", "ann"), ("b", "ann"), ("c", "bob")] {
        assert_eq!(put(name, key).await.status, 201);
    }
    let message = put("d", "ann").await.error(409, "too_many_label_sets");
    assert!(message.contains("for each key 2") && message.contains("--max-label-sets-per-key"), "{message}");
    // Whoever changes a set, it stays its maker's.
    assert_eq!(
        service.put_if("/v1/label-sets/a", json!({"labels": ["x"]}), &[("x-api-key", "bob")]).await.status,
        200
    );
    assert_eq!(put("d", "bob").await.status, 201);
    put("e", "bob").await.error(409, "too_many_label_sets");
    assert_eq!(service.delete("/v1/label-sets/b", &[("x-api-key", "bob")]).await.status, 204);
    assert_eq!(put("e", "ann").await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_are_charged_to_the_budget() {
    let config = ApiConfig { memory: MemoryBudget::new(16 << 20), ..ApiConfig::default() };
    let service = Service::configured(config).await;
    let labels = |n: usize| -> Vec<String> { (0..n).map(|i| format!("{i:05}{}", "x".repeat(300))).collect() };
    let message = service
        .put("/v1/label-sets/a", json!({"labels": labels(10_000)}))
        .await
        .error(413, "payload_too_large");
    assert!(message.contains("bytes of memory are needed"), "{message}");
    service.stored("a", json!({"labels": labels(1000)})).await;
    let held = service.state.memory().of_kind(MemoryKind::Labels);
    assert!((500_000..1_500_000).contains(&held), "{held}");
    assert_eq!(service.state.memory().total(), held, "requests hold nothing any more");
    assert_eq!(service.delete("/v1/label-sets/a", &[]).await.status, 204);
    assert_eq!(service.state.memory().total(), 0);
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
async fn a_head_is_a_set_like_others() {
    let service = Service::new().await;
    let rows: Vec<f32> = [vector(b"one"), vector(b"two")].concat();
    let bytes: Vec<u8> = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, DIM], &bytes).unwrap();
    let metadata = [("labels".to_owned(), r#"["one", "two"]"#.to_owned())].into();
    let file = safetensors::serialize([("head.weight", view)], Some(metadata)).unwrap();
    let head = siglip::labels::read_head(&file, "probe").unwrap();
    let sets = service.state.label_sets().clone();
    sets.put_content("probe", head, &siglip::labels::Condition::Any).unwrap();
    let body = service
        .json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "probe", "none": true}))
        .await
        .ok();
    for (label, logit) in logits(&body) {
        let row = vector(label.as_bytes());
        let wanted: f32 = super::unit(b"PIC1").iter().zip(&row).map(|(x, row)| x * row).sum();
        assert!((logit - wanted).abs() < 1e-4, "{label}: {logit} {wanted}");
    }
    assert!(body["data"][0]["none"]["score"].as_f64().unwrap() > 0.0);
    assert_eq!(service.get("/v1/label-sets/probe").await.ok()["kind"], "head");
    let against = json!({"input": image(b"PIC1"), "label_set": "probe", "none": {"against": "probe"}});
    let message = service.json(CLASSIFY, against).await.error(422, "invalid_value");
    assert!(message.contains("a head has no texts"), "{message}");
    let examples = json!({"examples": [{"label": "one", "embedding": vector(b"x")}]});
    service.json("/v1/label-sets/probe/examples", examples).await.error(422, "invalid_value");
    let narrow = siglip::labels::HeadWeights {
        rows: vec![1.0; 3].into(),
        bias: vec![0.0].into(),
        width: 3,
        normalize: true,
        space: None,
    };
    let content = siglip::labels::Content::of(siglip::labels::Definition::of(["x".to_owned()]));
    let content = siglip::labels::Content { head: Some(Arc::new(narrow)), ..content };
    sets.put_content("narrow", content, &siglip::labels::Condition::Any).unwrap();
    let message = service
        .json(CLASSIFY, json!({"input": image(b"PIC1"), "label_set": "narrow"}))
        .await
        .error(422, "invalid_value");
    assert!(message.contains("of width 3"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_brings_its_own_labels() {
    use siglip::checkpoint::{self, HubOptions, ModelRef};
    use siglip::engine::PipelineModel;
    use siglip::pipeline::{DeviceChoice, LoadOptions, Pipeline, Precision};

    use crate::support::tiny::{Array, Family, Tiny, WIDTH};

    let folder = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.arrays.retain(|name, _| name.starts_with("vision_model.") && !name.contains(".head."));
    let values = (0..3 * WIDTH).map(|i| ((i * 7919) % 101) as f32 / 50.0 - 1.0).collect();
    tiny.arrays.insert("classifier.weight".into(), Array { shape: vec![3, WIDTH], values });
    tiny.arrays.insert("classifier.bias".into(), Array { shape: vec![3], values: vec![0.0, 2.0, 1.0] });
    tiny.config["id2label"] = json!({ "0": "cat", "1": "dog", "2": "owl" });
    tiny.write(folder.path());
    let reference: ModelRef = folder.path().to_str().unwrap().parse().unwrap();
    let hub = HubOptions::from_variables(|_| None);
    let options =
        LoadOptions { precision: Precision::F32, device: DeviceChoice::Cpu, ..LoadOptions::default() };
    let pipeline = Pipeline::load(checkpoint::open(&reference, &hub).unwrap(), &options).unwrap();
    let picture =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/examples/cat-face.png")).unwrap();
    let patches = pipeline.prepare_image(&picture, None).unwrap();
    let wanted = pipeline.model().classify_images(&[&patches]).unwrap().concat();

    let engine = Engine::start(engine_config());
    engine.insert(&["tiny"], Arc::new(PipelineModel::open(&reference, &hub, &options).unwrap())).unwrap();
    let state = AppState::new(engine, ApiConfig::default(), None);
    let service = Service { router: app(state.clone()), state };
    let body = service.json(CLASSIFY, json!({"input": image(&picture)})).await.ok();
    for ((label, logit), (name, wanted)) in
        logits(&body).iter().zip(["cat", "dog", "owl"].iter().zip(&wanted))
    {
        assert_eq!(label, name);
        assert!((logit - wanted).abs() < 1e-4 * wanted.abs().max(1.0), "{label}: {logit} {wanted}");
    }
    let sum: f64 =
        body["data"][0]["predictions"].as_array().unwrap().iter().map(|p| p["score"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5, "shares of a softmax, as it was trained");
    assert_eq!(body["label_set"]["name"], "tiny");
}
