//! Examples and thresholds of label sets.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use siglip::testing::model::scores::sigmoid;

use super::fake::vector;
use super::{Answer, Service};

const SET: &str = "/v1/label-sets/a";
const EXAMPLES: &str = "/v1/label-sets/a/examples";
const CALIBRATE: &str = "/v1/label-sets/a/calibrate";

async fn put(service: &Service, path: &str, body: Value) -> Value {
    let request = Request::put(format!("{path}?wait=true")).body(Body::from(body.to_string())).unwrap();
    let answer = service.send(request).await;
    assert!(answer.status.is_success(), "{}", answer.json());
    answer.json()
}

async fn delete(service: &Service, path: &str) -> Answer {
    service.send(Request::delete(path).body(Body::empty()).unwrap()).await
}

/// A picture that looks like others of its kind: the fake gives what its bytes hash to, so it is sent as an embedding.
fn picture(kind: &str, i: u32) -> Vec<f32> {
    let own = vector(format!("{kind} {i}").as_bytes());
    vector(kind.as_bytes()).iter().zip(own).map(|(kind, own)| kind + 0.4 * own).collect()
}

async fn best(service: &Service, embedding: &[f32]) -> String {
    let request = json!({"embeddings": [embedding], "label_set": "a"});
    service.json("/v1/classify", request).await.ok()["data"][0]["prediction"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_teach_labels_what_their_words_do_not_say() {
    let service = Service::new().await;
    let first = put(&service, SET, json!({"labels": ["ours", "theirs", "others"]})).await["version"].clone();
    let kinds = ["ours", "theirs"];
    let examples: Vec<Value> = kinds
        .iter()
        .flat_map(|kind| (0..4).map(move |i| json!({"label": kind, "embedding": picture(kind, i)})))
        .collect();
    let answer = service.json(EXAMPLES, json!({"examples": examples})).await;
    let body = answer.ok();
    assert_eq!((&body["examples"], &body["fingerprint"]), (&json!(8), &json!("finger-fake")));
    assert_ne!(body["version"], first);
    assert_eq!(answer.header("etag"), format!("\"{}\"", body["version"].as_str().unwrap()));
    let accuracy = |key: &str| body[key].as_f64().unwrap();
    assert_eq!(accuracy("accuracy_before"), 0.0, "{body}");
    assert!(accuracy("accuracy_after") >= 0.75, "{body}");
    for label in body["labels"].as_array().unwrap() {
        assert_eq!(label["examples"], 4);
        assert!((0.0..=1.0).contains(&label["words"].as_f64().unwrap()));
    }
    let mut right = 0;
    for (kind, i) in kinds.into_iter().flat_map(|kind| (10..20).map(move |i| (kind, i))) {
        right += usize::from(best(&service, &picture(kind, i)).await == kind);
    }
    assert!(right >= 16, "{right} of 20 pictures that were no examples");
    assert_eq!(service.get(SET).await.ok()["examples"], 8);

    // A set that is sent again keeps them for the labels that it still has.
    let labels = json!({"labels": ["theirs", "ours"]});
    assert_eq!(put(&service, SET, labels).await["examples"], 8);
    assert_eq!(best(&service, &picture("theirs", 30)).await, "theirs");
    assert_eq!(delete(&service, &format!("{EXAMPLES}?label=ours")).await.ok()["examples"], 4);
    delete(&service, &format!("{EXAMPLES}?label=none")).await.error(422, "invalid_value");
    let body = json!({"labels": ["ours"]}).to_string();
    let request =
        Request::delete(EXAMPLES).header("content-length", body.len()).body(Body::from(body)).unwrap();
    assert!(service.send(request).await.error(400, "invalid_request").contains("in the query"));
    assert_eq!(service.get(SET).await.ok()["examples"], 4, "nothing was removed");
    let removed = delete(&service, EXAMPLES).await.ok();
    assert_eq!(removed["examples"], 0);
    // The version is what it would be if there never had been any.
    put(&service, "/v1/label-sets/b", json!({"labels": ["theirs", "ours"]})).await;
    assert_eq!(service.get("/v1/label-sets/b").await.ok()["version"], removed["version"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_are_examples_too() {
    let service = Service::new().await;
    put(&service, SET, json!({"labels": ["x", "y"]})).await;
    let of = |label: &str, content: &[u8]| json!({"label": label, "image": STANDARD.encode(content)});
    let examples = json!({"examples": [of("x", b"PIC1"), {"labels": ["y"], "embedding": vector(b"PIC2")}]});
    assert_eq!(service.json(EXAMPLES, examples).await.ok()["examples"], 2);
    assert_eq!(
        (best(&service, &vector(b"PIC1")).await, best(&service, &vector(b"PIC2")).await),
        ("x".into(), "y".into())
    );
    for (examples, status, code, part) in [
        (json!([]), 422, "invalid_value", "examples: at least one"),
        (
            json!([of("z", b"PIC")]),
            422,
            "invalid_value",
            "examples[0]: the label set \"a\" has no label \"z\"",
        ),
        (json!([of("x", b"PIC"), of("x", b"no")]), 422, "invalid_image", "examples[1]"),
        (json!([{"label": "x", "embedding": [1.0]}]), 422, "invalid_embedding", "examples[0]: 1 numbers"),
        (json!([{"label": "x", "embedding": vec![0; 12]}]), 422, "invalid_value", "no direction"),
        (json!([{"label": "x"}]), 400, "invalid_request", "either an image or an embedding"),
        (json!([{"embedding": vec![1; 12]}]), 422, "invalid_value", "examples[0]: an example has one label"),
        (
            json!([{"label": "x", "labels": ["y"], "embedding": [1]}]),
            400,
            "invalid_request",
            "a label or labels",
        ),
    ] {
        let answer = service.json(EXAMPLES, json!({"examples": examples})).await;
        let message = answer.error(status, code);
        assert!(message.contains(part), "{message}");
    }
    // Examples are embeddings of one model.
    let other = json!({"examples": [of("x", b"PIC3")], "model": "other"});
    let message = loop {
        let answer = service.json(EXAMPLES, other.clone()).await;
        if answer.status != 503 {
            break answer.error(422, "invalid_value");
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    };
    assert!(message.contains("embedding space finger-fake"), "{message}");
    service
        .json("/v1/label-sets/none/examples", json!({"examples": []}))
        .await
        .error(404, "label_set_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thresholds_of_a_wanted_precision() {
    let service = Service::new().await;
    let version = put(&service, SET, json!({"labels": ["cat", "dog"]})).await["version"].clone();
    // Pictures by how much they look like the label's words.
    let words = vector(b"a cat");
    let like = |share: f32, i: u32| -> Vec<f32> {
        vector(format!("{i}").as_bytes())
            .iter()
            .zip(&words)
            .map(|(x, word)| share * word + (1.0 - share) * x)
            .collect()
    };
    let cats = (0..10).map(|i| json!({"label": "cat", "embedding": like(0.8, i)}));
    let others = (0..10).map(|i| json!({"labels": [], "embedding": like(0.0, 100 + i)}));
    let pictures: Vec<Value> = cats.chain(others).collect();
    let ask = async |extra: Value| {
        let mut request = json!({"pictures": pictures});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        service.json(CALIBRATE, request).await.ok()
    };
    let body = ask(json!({"precision": 1.0})).await;
    assert_eq!((&body["applied"], &body["version"]), (&json!(false), &version));
    assert_eq!(body["labels"].as_array().unwrap().len(), 1, "no picture is of a dog");
    let cat = &body["labels"][0];
    assert_eq!(
        (&cat["label"], &cat["pictures"], &cat["precision"]),
        (&json!("cat"), &json!(10), &json!(1.0))
    );
    let threshold = cat["threshold"].as_f64().unwrap() as f32;
    let score = |embedding: &[f32]| {
        let cosine = siglip::testing::model::scores::cosine(embedding, &words);
        sigmoid(cosine * super::fake::SCALE + super::fake::BIAS)
    };
    let above =
        |share: f32, first: u32| (first..first + 10).filter(|&i| score(&like(share, i)) >= threshold).count();
    assert_eq!(above(0.0, 100), 0);
    assert_eq!(above(0.8, 0) as f64 / 10.0, cat["recall"].as_f64().unwrap());
    let curve = cat["curve"].as_array().unwrap();
    assert!(curve.len() == 20 && curve[19]["recall"] == 1.0, "{curve:?}");

    let applied = ask(json!({"precision": 1.0, "apply": true})).await;
    assert_ne!(applied["version"], version);
    let labels = service.get(SET).await.ok()["definition"]["labels"].clone();
    assert_eq!(
        (&labels[0]["name"], &labels[0]["threshold"], &labels[1]),
        (&json!("cat"), &cat["threshold"], &json!("dog"))
    );
    let wrong = json!({"pictures": pictures, "precision": 1.5});
    service.json(CALIBRATE, wrong).await.error(422, "invalid_value");
    let stale = Request::post(CALIBRATE)
        .header("content-type", "application/json")
        .header("if-match", format!("\"{}\"", version.as_str().unwrap()))
        .body(Body::from(json!({"pictures": pictures, "apply": true}).to_string()));
    service.send(stale.unwrap()).await.error(412, "version_mismatch");
}
