//! Dialects that answer with lists of vectors and scores: text-embeddings-inference, Hugging Face, Ollama, Weaviate, KServe.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use siglip::testing::api::{ApiConfig, AppState, app};
use siglip::testing::engine::Engine;

use super::super::fake::{BIAS, DIM, Fake, SCALE};
use super::super::{Answer, Service, assert_close, engine_config, fake, floats, unit};
use super::{LONG, PICTURE, data_url, picture};

fn cosine(a: &[u8], b: &[u8]) -> f32 {
    unit(a).iter().zip(unit(b)).map(|(x, y)| x * y).sum()
}

/// Options that do not hold where texts are compared, and what is said of them.
fn refused_in_comparisons() -> [(Value, &'static str); 4] {
    [
        (json!({"truncate": false}), "truncate: long texts are cut"),
        (json!({"truncate": "START"}), "truncate: long texts lose their end"),
        (json!({"truncation_direction": "left"}), "truncation_direction"),
        (json!({"prompt_name": "query"}), "no prompts"),
    ]
}

#[tokio::test]
async fn text_embeddings_inference() {
    let service = Service::new().await;
    let answer =
        service.json("/embed", json!({"inputs": ["cat", data_url(), "https://a.b/c"], "model": "x"})).await;
    let rows = answer.ok();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert_close(&floats(&rows[0]), &unit(b"cat"));
    assert_close(&floats(&rows[1]), &unit(PICTURE));
    assert_close(&floats(&rows[2]), &unit(b"https://a.b/c"));
    assert_eq!(answer.header("x-siglip-fingerprint"), "finger-fake");
    let raw = json!({"inputs": [[99, 97, 116]], "normalize": false, "truncate": true, "dimensions": DIM});
    assert_close(&floats(&service.json("/embed", raw).await.ok()[0]), &fake::vector(b"cat"));
    for (path, body, status, part) in [
        ("/embed", json!({"inputs": ["a", LONG], "truncate": false}), 422, "inputs[1]: the text is longer"),
        ("/embed", json!({"inputs": "a", "dimensions": 4}), 422, "12 dimensions"),
        ("/embed", json!({"inputs": "a", "prompt_name": "query"}), 422, "no prompts"),
        ("/embed", json!({"inputs": "a", "truncation_direction": "left"}), 422, "truncation_direction"),
        ("/embed", json!({"inputs": "a", "truncate": "START"}), 422, "truncate: long texts lose their end"),
        ("/embed", json!({"inputs": ["a", "data:image/png;base64,AAAA"]}), 422, "inputs[1]"),
        ("/embed", json!({"inputs": []}), 422, "at least one"),
        ("/embed", json!({"input": "a"}), 400, "missing field `inputs`"),
        ("/similarity", json!({"inputs": {"source_sentence": "a", "sentences": []}}), 422, "at least one"),
        ("/similarity", json!({"inputs": {"sentences": ["a"]}}), 400, "source_sentence"),
    ] {
        let answer = service.json(path, body).await;
        let message = answer.refused(status, "/error");
        assert!(message.contains(part), "{message}");
        assert_eq!(answer.json()["error_type"], "Validation");
    }
    let sentences = json!({"source_sentence": "a", "sentences": ["b"]});
    for (options, part) in refused_in_comparisons() {
        let message = service.json("/similarity", json!({"inputs": sentences, "parameters": options})).await;
        assert!(message.refused(422, "/error").contains(part), "{options}");
    }
    let typed = service.post("/embed", "application/x-www-form-urlencoded", "{}").await;
    assert!(typed.refused(415, "/error").contains("curl sends that by default"));
    let body = json!({"inputs": {"source_sentence": "cat", "sentences": ["cat", data_url()]}});
    let scores = service.json("/similarity", body).await.ok();
    assert_close(&floats(&scores), &[1.0, cosine(b"cat", PICTURE)]);
    let tokens =
        service.json("/tokenize", json!({"inputs": ["Cat", "b"], "add_special_tokens": false})).await.ok();
    let first = json!([{"id": 99, "text": "c", "special": false, "start": null, "stop": null},
                       {"id": 97, "text": "a", "special": false, "start": null, "stop": null}]);
    // The fake's last token is no end token; the real ones' is.
    assert_eq!((&tokens[0], &tokens[1]), (&first, &json!([])));
    let whole = service.json("/tokenize", json!({"inputs": "cat"})).await.ok();
    assert_eq!((whole[0].as_array().unwrap().len(), &whole[0][2]["special"]), (3, &json!(true)));
    let long = json!({"inputs": "x".repeat((1 << 20) + 1)});
    assert!(service.json("/tokenize", long).await.refused(413, "/error").contains("bytes of text"));
    let info = service.get("/info").await.ok();
    assert_eq!((&info["max_input_length"], &info["served_model_name"]), (&json!(16), &json!("fake")));
}

#[tokio::test]
async fn tokenising_is_charged_until_it_ends_and_ends_at_the_deadline() {
    let fake = Arc::new(Fake::new("fake"));
    let engine = Engine::start(engine_config());
    engine.insert(&["fake"], Arc::clone(&fake) as Arc<dyn siglip::testing::engine::Model>).unwrap();
    engine.warmed_up().await.unwrap();
    let state = AppState::new(engine, ApiConfig::default(), None);
    let service = Service { router: app(state.clone()), state };
    let ask = |header: (&str, &str)| {
        let request = Request::post("/tokenize").header(header.0, header.1);
        request.body(Body::from(json!({"inputs": ["stuck", "next"]}).to_string())).unwrap()
    };
    let before = fake.tokenized.load(Ordering::SeqCst);
    let elsewhere = service.send(ask(("x-siglip-expect-fingerprint", "another"))).await;
    assert!(elsewhere.refused(412, "/error").contains("finger-fake"));
    fake.hold();
    let late = service.send(ask(("x-request-timeout-ms", "300"))).await;
    let held = service.state.memory().total();
    fake.release();
    assert!(late.refused(504, "/error").contains("300 ms"));
    assert!(held > 0, "the text was still being tokenised");
    let since = Instant::now();
    while service.state.memory().total() > 0 {
        assert!(since.elapsed() < Duration::from_secs(5), "what was charged is given back");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(fake.tokenized.load(Ordering::SeqCst), before + 1, "nobody waits for the second text");
}

#[tokio::test]
async fn hugging_face_tells_its_tasks_apart_by_the_body() {
    let service = Service::new().await;
    let labels = json!({"candidate_labels": ["cat", "dog"], "hypothesis_template": "a {}", "extra": 1});
    let probability = |label: &str| 1.0 / (1.0 + (-(cosine(PICTURE, label.as_bytes()) * SCALE + BIAS)).exp());
    for inputs in [json!(picture()), json!({"image": data_url()})] {
        let body = service.json("/", json!({"inputs": inputs, "parameters": labels})).await.ok();
        let found = body.as_array().unwrap();
        assert_eq!(found.len(), 2);
        for entry in found {
            let label = entry["label"].as_str().unwrap();
            let score = entry["score"].as_f64().unwrap() as f32;
            assert!((score - probability(&format!("a {label}"))).abs() < 1e-5, "{body}");
        }
        assert!(found[0]["score"].as_f64() >= found[1]["score"].as_f64());
    }
    for path in
        ["/models/other", "/models/other/pipeline/feature-extraction", "/pipeline/feature-extraction/other"]
    {
        let answer = service.json(path, json!({"inputs": ["cat", data_url()]})).await;
        assert_eq!(answer.header("x-siglip-model"), "other");
        assert_close(&floats(&answer.ok()[0]), &unit(b"cat"));
        assert_close(&floats(&answer.ok()[1]), &unit(PICTURE));
    }
    let pair = json!({"inputs": {"source_sentence": "cat", "sentences": ["dog"]}, "parameters": {}});
    let scores = service.json("/models/fake/pipeline/sentence-similarity", pair.clone()).await.ok();
    let classify = |more: Value| {
        let mut parameters = labels.clone();
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"inputs": picture(), "parameters": parameters})
    };
    for (options, part) in refused_in_comparisons() {
        let mut compare = pair.clone();
        compare.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        for body in [compare, classify(options)] {
            let message = service.json("/", body).await.refused(422, "/error");
            assert!(message.contains(part), "{message}");
        }
    }
    assert_close(&floats(&scores), &[cosine(b"cat", b"dog")]);
    for (path, body, status, part) in [
        ("/models/a/b", json!({"inputs": "x"}), 404, "no model named \"a/b\""),
        ("/models/a/b/pipeline/feature-extraction", json!({"inputs": "x"}), 404, "a/b"),
        ("/pipeline/fill-mask/fake", json!({"inputs": "x"}), 422, "zero-shot-image-classification"),
        ("/pipeline/zero-shot-image-classification/fake", json!({"inputs": "x"}), 400, "candidate_labels"),
        ("/", json!({"inputs": ["x"], "parameters": {"candidate_labels": ["a", "b"]}}), 422, "one picture"),
        ("/", json!({"inputs": "AAAA", "parameters": {"candidate_labels": ["a", "b"]}}), 422, "inputs: "),
        ("/", json!({"inputs": picture(), "parameters": {"candidate_labels": []}}), 422, "labels"),
        ("/", json!({}), 400, "missing field `inputs`"),
        ("/pipeline/sentence-similarity/fake", json!({"inputs": "x"}), 400, "source_sentence"),
        ("/pipeline/feature-extraction/fake", pair, 400, "the body is that of sentence-similarity"),
        ("/pipeline/feature-extraction/fake", classify(json!({})), 400, "zero-shot-image-classification"),
        ("/pipeline/sentence-similarity/fake", classify(json!({})), 400, "zero-shot-image-classification"),
        ("/", json!({"inputs": "x", "truncate": "START"}), 422, "truncate: long texts lose their end"),
    ] {
        let message = service.json(path, body).await.refused(status, "/error");
        assert!(message.contains(part), "{path}: {message}");
    }
}

#[tokio::test]
async fn ollama() {
    let service = Service::new().await;
    let body = json!({"model": "other:latest", "input": ["cat", "dog"], "images": [picture()],
                      "options": {"num_ctx": 1}, "keep_alive": "5m"});
    let answer = service.post("/api/embed", "application/x-www-form-urlencoded", body.to_string()).await.ok();
    assert_eq!(answer["model"], "other:latest");
    for (index, content) in [&b"cat"[..], b"dog", PICTURE].into_iter().enumerate() {
        assert_close(&floats(&answer["embeddings"][index]), &unit(content));
    }
    assert_eq!(answer["prompt_eval_count"], 3 + 3 + 196);
    let one = service.json("/api/embeddings", json!({"model": "fake", "prompt": "cat"})).await;
    assert_close(&floats(&one.ok()["embedding"]), &unit(b"cat"));
    let shortest = format!("{{\"embedding\":{}}}", serde_json::to_string(&unit(b"cat")).unwrap());
    assert_eq!(String::from_utf8(one.bytes).unwrap(), shortest, "the digits of an f32");
    let one = service.json("/api/embeddings", json!({"model": "fake", "images": [picture()]})).await.ok();
    assert_close(&floats(&one["embedding"]), &unit(PICTURE));
    for (path, body, status, part) in [
        ("/api/embed", json!({"model": "nomic", "input": "a"}), 404, "nomic"),
        ("/api/embed", json!({"input": "a"}), 400, "model"),
        ("/api/embed", json!({"model": "fake"}), 400, "input"),
        ("/api/embed", json!({"model": "fake", "input": LONG, "truncate": false}), 422, "input[0]"),
        ("/api/embed", json!({"model": "fake", "input": "a", "dimensions": 3}), 422, "dimensions"),
        ("/api/embed", json!({"model": "fake", "images": ["?"]}), 422, "images[0]"),
        ("/api/embeddings", json!({"model": "fake", "prompt": "a", "images": [picture()]}), 422, "either"),
    ] {
        let message = service.json(path, body).await.refused(status, "/error");
        assert!(message.contains(part), "{path}: {message}");
    }
    let tags = service.get("/api/tags").await.ok();
    assert_eq!(tags["models"][1]["model"], "other:latest");
    assert_eq!(tags["models"][0]["digest"], "finger-fake");
}

#[tokio::test]
async fn weaviate() {
    let service = Service::new().await;
    // Its Go client sends no Content-Type, and null for an empty list.
    let send = async |body: Value| {
        service.send(Request::post("/vectorize").body(Body::from(body.to_string())).unwrap()).await
    };
    let body = send(json!({"texts": ["cat", "dog"], "images": [picture()]})).await.ok();
    assert_close(&floats(&body["textVectors"][1]), &unit(b"dog"));
    assert_close(&floats(&body["imageVectors"][0]), &unit(PICTURE));
    let body = send(json!({"texts": null, "images": [picture()]})).await.ok();
    assert_eq!((body["textVectors"].as_array().unwrap().len(), body.as_object().unwrap().len()), (0, 2));
    assert!(send(json!({"images": [picture(), "AAAA"]})).await.refused(422, "/error").contains("images[1]"));
    assert!(send(json!({"texts": [1]})).await.refused(400, "/error").contains("texts[0]"));
    assert!(send(json!(["a"])).await.refused(400, "/error").contains("not an object"));
    assert_eq!(service.get("/meta").await.ok()["dimensions"], DIM);
    for path in ["/.well-known/live", "/.well-known/ready"] {
        let answer = service.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.bytes.len()), (204, 0));
    }
}

/// Elements as a binary BYTES tensor has them.
fn tensor(elements: &[&[u8]]) -> Vec<u8> {
    let element = |of: &&[u8]| [&(of.len() as u32).to_le_bytes()[..], of].concat();
    elements.iter().flat_map(element).collect()
}

async fn infer(service: &Service, document: Value, tensor: &[u8]) -> Answer {
    let document = document.to_string();
    let request = Request::post("/v2/models/fake/infer")
        .header("inference-header-content-length", document.len())
        .header("content-type", "application/octet-stream");
    service.send(request.body([document.as_bytes(), tensor].concat().into()).unwrap()).await
}

#[tokio::test]
async fn kserve_with_json_and_with_binary_tensors() {
    let service = Service::new().await;
    let input = |name: &str, data: Value| json!({"id": "7", "inputs": [{"name": name, "datatype": "BYTES", "shape": [2], "data": data}]});
    let path = "/v2/models/fake/infer";
    let body = service.json(path, input("text", json!(["cat", ["dog"]]))).await.ok();
    assert_eq!((&body["model_name"], &body["id"]), (&json!("fake"), &json!("7")));
    let output = &body["outputs"][0];
    assert_eq!((&output["datatype"], &output["shape"]), (&json!("FP32"), &json!([2, DIM])));
    assert_close(&floats(&output["data"]), &[unit(b"cat"), unit(b"dog")].concat());

    let bytes = tensor(&[PICTURE, b"PIC"]);
    let binary = |size: usize, more: Value| {
        let mut document = json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2, 1],
                                              "parameters": {"binary_data_size": size}}]});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document
    };
    let answer =
        infer(&service, binary(bytes.len(), json!({"parameters": {"binary_data_output": true}})), &bytes)
            .await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.bytes));
    let length: usize = answer.header("inference-header-content-length").parse().unwrap();
    let (head, rows) = answer.bytes.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], rows.len());
    let numbers: Vec<f32> = rows.chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    assert_close(&numbers, &[unit(PICTURE), unit(b"PIC")].concat());
    let output = json!({"outputs": [{"name": "embedding", "parameters": {"binary_data": false}}]});
    let body = infer(&service, binary(bytes.len(), output), &bytes).await.ok();
    assert_close(&floats(&body["outputs"][0]["data"])[..DIM], &unit(PICTURE));

    let wrong = [
        (infer(&service, binary(3, json!({})), &bytes).await, 400, "binary_data_size is 3"),
        (infer(&service, binary(4, json!({})), &[255; 4]).await, 400, "ends within an element"),
        (infer(&service, binary(0, json!({})), &[]).await, 422, "at least one"),
        (service.json(path, input("pixels", json!(["a"]))).await, 400, "not \"pixels\""),
        (service.json(path, input("image", json!(["?"]))).await, 422, "image[0]"),
        (service.json(path, input("text", json!([["a", "b"]]))).await, 400, "not of several together"),
        (service.json(path, json!({"inputs": []})).await, 400, "inputs: the list is empty"),
        (service.json("/v2/models/x/infer", input("text", json!(["a"]))).await, 404, "\"x\""),
        (
            service.json("/v2/models/fake/versions/2/infer", input("text", json!(["a"]))).await,
            404,
            "version 1",
        ),
    ];
    for (answer, status, part) in wrong {
        let message = answer.refused(status, "/error");
        assert!(message.contains(part), "{message}");
    }
    let request =
        Request::post(path).header("inference-header-content-length", "99").body("{}".into()).unwrap();
    assert!(service.send(request).await.refused(400, "/error").contains("more than the body"));
    let gzip = Request::post(path).header("content-encoding", "gzip").body("x".into()).unwrap();
    assert!(service.send(gzip).await.refused(415, "/error").contains("compressed"));
    let model = service.get("/v2/models/fake/versions/1").await.ok();
    assert_eq!(model["outputs"][0]["shape"], json!([-1, DIM]));
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/fake/ready"] {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }
    service.get("/v2/models/x/ready").await.refused(404, "/error");
}
