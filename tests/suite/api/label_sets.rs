//! `/v1/label-sets`, and classification with stored sets.

mod heads;
mod limits;
#[cfg(feature = "demo")]
mod meaning;
mod versions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use siglip::testing::api::{ApiConfig, AppState, app};
use siglip::testing::budget::MemoryKind;
use siglip::testing::engine::Engine;
use siglip::testing::labels::LabelSets;
use siglip::testing::model::scores::{cosine, sigmoid};
use siglip::testing::model::zero_shot::mean_direction;

use super::fake::{BIAS, CONTEXT, DIM, Fake, SCALE, vector};
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
async fn built_in_negatives_need_not_be_stored() {
    let service = Service::new().await;
    let sets = service.state.label_sets().clone();
    let model = service.state.engine().model(None).unwrap();
    let classify =
        json!({"input": image(b"PIC1"), "labels": ["Goldfish"], "none": {"against": "imagenet-1k"}});
    let message = service.json(CLASSIFY, classify.clone()).await.error(503, "label_set_encoding");
    assert!(message.contains("of 998 labels"), "{message}");
    let until = Instant::now() + Duration::from_secs(20);
    let names = sets.when_ready("imagenet-1k", &model, until).await.unwrap().version.names().clone();
    assert_eq!(names.len(), 998);
    // The fake has no eyes for capitals, nor for what its context does not hold.
    let e = |name: &str| {
        let text: String = format!("a {name}").to_lowercase().chars().take(CONTEXT).collect();
        f64::from(logit(b"PIC1", &[&text])).exp()
    };
    let negatives: f64 = names.iter().filter(|name| ***name != *"goldfish").map(|name| e(name)).sum();
    let wanted = e("Goldfish") / (e("Goldfish") + negatives + 1.0);
    let none = service.json(CLASSIFY, classify).await.ok()["data"][0]["none"].clone();
    assert!((none["score"].as_f64().unwrap() - wanted).abs() < 1e-4, "{none} {wanted}");

    // It is no stored set, and gives way to one of its name.
    assert_eq!(service.get("/v1/label-sets").await.ok()["data"], json!([]));
    assert_eq!(service.get("/v1/label-sets/imagenet-1k").await.ok()["labels"], 998);
    service.delete("/v1/label-sets/imagenet-1k", &[]).await.error(404, "label_set_not_found");
    service.stored("imagenet-1k", json!({"labels": ["tench"]})).await;
    assert_eq!(service.get("/v1/label-sets/imagenet-1k").await.ok()["labels"], 1);
    assert_eq!(service.delete("/v1/label-sets/imagenet-1k", &[]).await.status, 204);
    assert_eq!(service.get("/v1/label-sets/imagenet-1k").await.ok()["labels"], 998);
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
