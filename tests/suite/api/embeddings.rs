//! `POST /v1/embeddings`.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use siglip::testing::api::ApiConfig;
use siglip::testing::engine::EngineConfig;
use siglip::testing::model::PatchVectors;

use super::fake::{CONTEXT, DIM};
use super::{Service, assert_close, engine_config, fake, floats, unit};

const PATH: &str = "/v1/embeddings";

#[tokio::test]
async fn answers_as_openai_does() {
    let service = Service::new().await;
    let answer = service.json(PATH, json!({"input": ["cat", "dog"], "user": "me"})).await;
    let body = answer.ok();
    assert_eq!(body["object"], "list");
    assert_eq!(body["model"], "fake");
    assert_eq!(body["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}));
    for (index, text) in ["cat", "dog"].iter().enumerate() {
        let entry = &body["data"][index];
        assert_eq!(entry["object"], "embedding");
        assert_eq!(entry["index"], index);
        assert_close(&floats(&entry["embedding"]), &unit(text.as_bytes()));
    }
    assert_eq!(answer.header("x-siglip-fingerprint"), "finger-fake");
    assert_eq!(answer.header("content-type"), "application/json");
    let timing = answer.header("server-timing");
    for stage in ["decode;dur=", "tokenize;dur=", "queue;dur=", "inference;dur=", "total;dur="] {
        assert!(timing.contains(stage), "{timing}");
    }
}

#[tokio::test]
async fn every_form_of_input_in_one_request() {
    let service = Service::new().await;
    let picture = b"PIC\xfb\xff\xfe";
    let standard = STANDARD.encode(picture);
    let input = json!([
        "cat",
        {"text": "cat"},
        [99, 97, 116],
        format!("data:image/png;base64,{standard}"),
        {"image": standard},
        {"image": URL_SAFE_NO_PAD.encode(picture)},
        {"text": format!("data:image/png;base64,{standard}")},
        "data: not a picture",
    ]);
    let body = service.json(PATH, json!({"input": input, "token_ids": true})).await.ok();
    let vectors: Vec<_> = body["data"].as_array().unwrap().iter().map(|e| floats(&e["embedding"])).collect();
    assert_eq!(vectors.len(), 8);
    for text in &vectors[..3] {
        assert_close(text, &unit(b"cat"));
    }
    for image in &vectors[3..6] {
        assert_close(image, &unit(picture));
    }
    assert_close(&vectors[6], &unit(b"data:image/png;b"));
    assert_eq!(body["data"][6]["truncated"], true);
    assert_close(&vectors[7], &unit(b"data: not a pict"));
    assert!(body["data"][0].get("truncated").is_none());
    assert_eq!(body["usage"]["prompt_tokens"], 3 * 3 + 3 * 196 + 2 * CONTEXT);
}

#[tokio::test]
async fn one_input_without_a_list() {
    let service = Service::new().await;
    for input in [json!("cat"), json!({"text": "cat"}), json!([99, 97, 116]), json!(["cat"])] {
        let body =
            service.json(PATH, json!({"input": input, "model": "other", "token_ids": true})).await.ok();
        assert_eq!(body["data"].as_array().unwrap().len(), 1);
        assert_eq!(body["model"], "other");
        assert_close(&floats(&body["data"][0]["embedding"]), &unit(b"cat"));
    }
    let picture = STANDARD.encode(b"PIC");
    let body = service.json(PATH, json!({"input": picture, "modality": "image"})).await.ok();
    assert_close(&floats(&body["data"][0]["embedding"]), &unit(b"PIC"));
}

#[tokio::test]
async fn options_reach_the_model() {
    let service = Service::new().await;
    let first = |body: Value| floats(&body["data"][0]["embedding"]);
    let raw = service.json(PATH, json!({"input": "cat", "normalize": false})).await.ok();
    assert_close(&first(raw), &fake::vector(b"cat"));
    let rules = service.json(PATH, json!({"input": "CAT", "canonicalization": "none"})).await.ok();
    assert_close(&first(rules), &unit(b"CAT"));
    let own = service.json(PATH, json!({"input": "CAT", "dimensions": DIM})).await.ok();
    assert_close(&first(own), &unit(b"cat"));
    let shorter = service.json(PATH, json!({"input": "CAT", "dimensions": 4})).await;
    assert!(shorter.error(422, "invalid_value").contains("12 dimensions"));
    let patches = json!({"input": {"image": STANDARD.encode(b"PIC")}, "max_num_patches": 64});
    let message = service.json(PATH, patches).await.error(422, "unsupported_by_model");
    assert!(message.starts_with("input: ") && message.contains("NaFlex"), "{message}");
}

#[tokio::test]
async fn element_types_and_base64() {
    let service = Service::new().await;
    let vector = unit(b"cat");
    let embed = async |options: Value| {
        let mut body = options;
        body["input"] = "cat".into();
        service.json(PATH, body).await.ok()["data"][0]["embedding"].clone()
    };
    let decode = |value: Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let le: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(decode(embed(json!({"encoding_format": "base64"})).await), le);

    let int8: Vec<i64> = vector.iter().map(|x| (x * 127.0).round() as i64).collect();
    assert_eq!(embed(json!({"embedding_type": "int8"})).await, json!(int8));
    let uint8: Vec<i64> = int8.iter().map(|x| x + 128).collect();
    assert_eq!(embed(json!({"embedding_type": "uint8"})).await, json!(uint8));
    let packed: Vec<i64> = vector
        .chunks(8)
        .map(|c| c.iter().enumerate().map(|(i, x)| i64::from(*x > 0.0) << (7 - i)).sum())
        .collect();
    assert_eq!(embed(json!({"embedding_type": "ubinary"})).await, json!(packed));
    let signed: Vec<i64> = packed.iter().map(|x| x - 128).collect();
    assert_eq!(embed(json!({"embedding_type": "binary"})).await, json!(signed));
    let bytes: Vec<u8> = signed.iter().map(|&x| x as i8 as u8).collect();
    assert_eq!(decode(embed(json!({"embedding_type": "binary", "encoding_format": "base64"})).await), bytes);
    let half = floats(&embed(json!({"embedding_type": "float16"})).await);
    assert!(half.iter().zip(&vector).all(|(h, x)| (h - x).abs() < 1e-3));

    let refused = json!({"input": "cat", "embedding_type": "int8", "normalize": false});
    service.json(PATH, refused).await.error(422, "invalid_value");
}

async fn accepting(service: &Service, accept: &str, body: Value) -> super::Answer {
    let request = Request::post(PATH).header("content-type", "application/json").header("accept", accept);
    service.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn arrays_and_messagepack_by_accept() {
    let service = Service::new().await;
    let input = json!({"input": ["cat", "dog"]});
    let rows: Vec<u8> =
        [unit(b"cat"), unit(b"dog")].concat().iter().flat_map(|x: &f32| x.to_le_bytes()).collect();

    let octets = accepting(&service, "application/octet-stream", input.clone()).await;
    assert_eq!(octets.bytes, rows);
    assert_eq!(octets.header("x-siglip-shape"), "2,12");
    assert_eq!(octets.header("x-siglip-dtype"), "<f4");

    let npy = accepting(&service, "application/x-npy", input.clone()).await;
    assert_eq!(npy.header("content-type"), "application/x-npy");
    assert!(npy.bytes.starts_with(b"\x93NUMPY\x01\x00") && npy.bytes.ends_with(&rows));
    assert_eq!((npy.bytes.len() - rows.len()) % 64, 0);

    let msgpack = accepting(&service, "application/msgpack", input.clone()).await;
    let document: Value = rmp_serde::from_slice(&msgpack.bytes).unwrap();
    assert_close(&floats(&document["data"][1]["embedding"]), &unit(b"dog"));

    let refused = accepting(&service, "image/png", input.clone()).await;
    assert!(refused.error(406, "not_acceptable").contains("application/x-npy"));
    let partial = json!({"input": "cat", "partial": true});
    accepting(&service, "application/x-npy", partial).await.error(422, "invalid_value");
}

#[tokio::test]
async fn patches_are_a_vector_each_and_a_space_of_their_own() {
    let service = Service::new().await;
    let pictures = json!([{"image": STANDARD.encode("PIC1")}, {"image": STANDARD.encode("PIC2")}]);
    let ask = |extra: Value| {
        let mut body = json!({"input": pictures, "output": "patches", "normalize": false});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let wanted: Vec<Vec<f32>> = [b"PIC1", b"PIC2"]
        .map(|picture| (0..196).flat_map(|at| fake::patch(picture, PatchVectors::Tokens, at)).collect())
        .to_vec();
    let answer = service.json(PATH, ask(json!({}))).await;
    let body = answer.ok();
    for (index, wanted) in wanted.iter().enumerate() {
        let entry = &body["data"][index];
        assert_eq!(entry["shape"], json!([14, 14, DIM]));
        assert_close(&floats(&entry["embedding"]), wanted);
    }
    assert_eq!(body["usage"]["total_tokens"], 2 * 196);
    assert_ne!(answer.header("x-siglip-fingerprint"), "finger-fake", "not to be compared with embeddings");
    // Each patch has length 1, and an array has a row for each.
    let rows = accepting(&service, "application/octet-stream", ask(json!({"normalize": true}))).await;
    assert_eq!(rows.header("x-siglip-shape"), format!("{},{DIM}", 2 * 196));
    let numbers: Vec<f32> =
        rows.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let mut last = wanted[1][195 * DIM..].to_vec();
    siglip::testing::model::scores::l2_normalize(&mut last);
    assert_close(&numbers[391 * DIM..], &last);
    let partial = json!({"partial": true, "input": [{"image": STANDARD.encode("PIC1")}, "a text"]});
    let body = service.json(PATH, ask(partial.clone())).await.ok();
    assert_eq!(body["data"][1]["error"]["code"], "wrong_modality");
    let text = service.json(PATH, ask(json!({"input": "a text"}))).await;
    assert!(text.error(422, "wrong_modality").contains("a text has no patches"));
    // Twelve signs are no whole bytes.
    let binary = ask(json!({"embedding_type": "binary", "normalize": true}));
    service.json(PATH, binary).await.error(422, "invalid_value");
    // An ordinary request knows no shape.
    let body = service.json(PATH, json!({"input": "cat", "output": "pooled"})).await.ok();
    assert!(body["data"][0].get("shape").is_none());
    assert_eq!(service.state.memory().total(), 0);
}

#[tokio::test]
async fn one_bad_input_is_named_or_answered_in_its_place() {
    let service = Service::new().await;
    let mut input: Vec<Value> =
        (0..32).map(|i| json!({"image": STANDARD.encode(format!("PIC{i}"))})).collect();
    input[17] = json!({"image": STANDARD.encode("no picture")});
    let whole = service.json(PATH, json!({"input": input})).await;
    assert!(whole.error(422, "invalid_image").starts_with("input[17]: "));
    assert_eq!(whole.json()["error"]["param"], "input[17]");

    let long = json!({"input": ["cat", "a text of more than sixteen bytes"], "truncate": "NONE"});
    service.json(PATH, long.clone()).await.error(422, "invalid_value");
    let mut partial = long;
    partial["partial"] = true.into();
    let body = service.json(PATH, partial).await.ok();
    assert_close(&floats(&body["data"][0]["embedding"]), &unit(b"cat"));
    assert_eq!(body["data"][1]["error"]["param"], "input[1]");

    input[3] = json!({"image": "*"});
    let body = service.json(PATH, json!({"input": input, "partial": true})).await.ok();
    let data = body["data"].as_array().unwrap();
    assert_eq!(data.len(), 32);
    for (index, entry) in data.iter().enumerate() {
        assert_eq!(entry["index"], index);
        if index == 3 || index == 17 {
            assert_eq!(entry["object"], "error");
            assert_eq!(entry["error"]["param"], format!("input[{index}]"));
        } else {
            assert_close(&floats(&entry["embedding"]), &unit(format!("PIC{index}").as_bytes()));
        }
    }
    assert_eq!(data[3]["error"]["code"], "invalid_image_encoding");
    assert_eq!(body["usage"]["prompt_tokens"], 30 * 196);
}

#[tokio::test]
async fn what_is_malformed_gets_400_and_says_where() {
    let service = Service::new().await;
    for (body, code, part) in [
        ("", "malformed_json", "the body is empty"),
        ("{\"input\": [", "malformed_json", "EOF"),
        ("[]", "invalid_request", "not an object"),
        ("{\"input\": \"a\", \"encoding_format\": [\"float\"]}", "invalid_request", "encoding_format: "),
        ("{}", "invalid_request", "missing field `input`"),
        ("{\"input\": 5}", "invalid_request", "input: "),
        ("{\"input\": [\"a\", {\"txt\": \"b\"}]}", "invalid_request", "input[1]"),
        ("{\"input\": \"a\", \"normalise\": false}", "invalid_request", "unknown field `normalise`"),
        (
            "{\"input\": \"a\", \"embedding_type\": \"int4\"}",
            "invalid_request",
            "embedding_type: unknown variant",
        ),
    ] {
        let message = service.post(PATH, "application/json", body).await.error(400, code);
        assert!(message.contains(part), "{body}: {message}");
    }
    service.json(PATH, json!({"input": []})).await.error(422, "invalid_value");
    let ids = service
        .json(PATH, json!({"input": [[1], [999]], "token_ids": true}))
        .await
        .error(422, "unsupported_by_model");
    assert!(ids.starts_with("input[1]: the token id 999"), "{ids}");
    let form = service.post(PATH, "application/x-www-form-urlencoded", "input=a").await;
    assert!(form.error(415, "unsupported_media_type").contains("application/json"));
}

#[tokio::test]
async fn a_body_that_does_not_say_what_it_is_is_json() {
    let service = Service::new().await;
    let request = Request::post(PATH).body(Body::from(r#"{"input": "cat"}"#)).unwrap();
    service.send(request).await.ok();
}

#[tokio::test]
async fn limits_hold() {
    let config = ApiConfig { max_items: 3, max_body_bytes: 1000, ..ApiConfig::default() };
    let service = Service::configured(config).await;
    let pictures = |n: usize| json!({"input": vec![json!({"image": STANDARD.encode("PIC")}); n]});
    service.json(PATH, pictures(3)).await.ok();
    // Texts are counted by what they cost: OpenAI's clients send 2,048 at once.
    service.json(PATH, json!({"input": ["a", "b", "c", "d"]})).await.ok();
    let many = service.json(PATH, pictures(4)).await;
    assert!(many.error(413, "payload_too_large").contains("4 in one request; the service takes 3"));
    let large = service.json(PATH, json!({"input": "x".repeat(2000)})).await;
    assert!(large.error(413, "payload_too_large").contains("1000 bytes"));
    let unannounced = Body::from_stream(futures::stream::iter(
        (0..20).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 100]))),
    ));
    service.post(PATH, "application/json", unannounced).await.error(413, "payload_too_large");
}

#[tokio::test]
async fn unknown_models_get_the_list() {
    let service = Service::new().await;
    let answer = service.json(PATH, json!({"input": "a", "model": "clip"})).await;
    let message = answer.error(404, "model_not_found");
    assert!(message.contains("\"clip\"") && message.contains("fake, other"), "{message}");
    assert_eq!(answer.json()["error"]["param"], "model");
}

#[tokio::test]
async fn a_failed_batch_is_500_even_with_partial() {
    let service = Service::new().await;
    for partial in [false, true] {
        let answer = service.json(PATH, json!({"input": ["panic"], "partial": partial})).await;
        answer.error(500, "worker_failed");
    }
    service.json(PATH, json!({"input": "cat"})).await.ok();
}

#[tokio::test]
async fn large_requests_leave_the_runtime_and_come_back_whole() {
    let service = Service::new().await;
    let pictures: Vec<Vec<u8>> =
        (0..40).map(|i| [b"PIC".as_slice(), &vec![i as u8; 40_000]].concat()).collect();
    let input: Vec<Value> = pictures.iter().map(|p| json!({"image": STANDARD.encode(p)})).collect();
    let body = service.json(PATH, json!({"input": input})).await.ok();
    for (entry, picture) in body["data"].as_array().unwrap().iter().zip(&pictures) {
        assert_close(&floats(&entry["embedding"]), &unit(picture));
    }
}

#[tokio::test]
async fn inputs_that_may_mean_something_else_are_refused() {
    let service = Service::new().await;
    for ids in [json!([99, 97]), json!([[99, 97], [98]])] {
        let message = service.json(PATH, json!({"input": ids})).await.error(422, "token_ids_refused");
        assert!(
            message.contains("check_embedding_ctx_length=False") && message.contains("token_ids"),
            "{message}"
        );
    }
    let url = "https://example.com/cat.jpg";
    let message = service.json(PATH, json!({"input": ["a", url]})).await.error(422, "ambiguous_input");
    assert!(message.starts_with("input[1]: ") && message.contains("{\"image\": …}"), "{message}");
    let words = json!({"input": [{"text": url}, "see https://example.com"]});
    service.json(PATH, words).await.ok();
    service.json(PATH, json!({"input": url, "modality": "text"})).await.ok();
    service.json(PATH, json!({"input": {"image": url}})).await.error(422, "url_fetch_disabled");
}

#[tokio::test]
async fn the_chunks_of_langchain_and_openai_are_taken() {
    let service = Service::new().await;
    let input: Vec<String> = (0..2048).map(|i| format!("t{i}")).collect();
    let body = service.json(PATH, json!({"input": input})).await.ok();
    assert_eq!(body["data"].as_array().unwrap().len(), 2048);
}

#[tokio::test]
async fn a_requests_own_rules_are_another_embedding_space() {
    let service = Service::new().await;
    let space = async |body: Value| service.json(PATH, body).await.header("x-siglip-fingerprint").to_owned();
    let own = space(json!({"input": "CAT"})).await;
    assert_eq!(own, "finger-fake");
    assert_eq!(space(json!({"input": "CAT", "canonicalization": "hf"})).await, own, "the model's own rules");
    let none = space(json!({"input": "CAT", "canonicalization": "none"})).await;
    assert!(none != own && none.len() == 64, "{none}");
    assert_eq!(space(json!({"input": "dog", "canonicalization": "none"})).await, none);
    assert_ne!(space(json!({"input": "dog", "canonicalization": "big_vision"})).await, none);
    let picture = json!({"input": {"image": STANDARD.encode("PIC")}, "canonicalization": "none"});
    assert_eq!(space(picture).await, own, "it changes no picture");
}

#[tokio::test]
async fn another_space_than_expected_is_refused() {
    let service = Service::new().await;
    let ask = async |name: &str, value: &str, body: Value| {
        let request = Request::post(PATH).header("content-type", "application/json").header(name, value);
        service.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    for (name, value) in [
        ("x-siglip-expect-fingerprint", "finger-fake"),
        ("if-match", "\"finger-fake\""),
        ("if-match", "\"x\", \"finger-fake\""),
        ("if-match", "*"),
    ] {
        ask(name, value, json!({"input": "cat"})).await.ok();
    }
    for name in ["x-siglip-expect-fingerprint", "if-match"] {
        let message = ask(name, "\"old\"", json!({"input": "cat"})).await.error(412, "fingerprint_mismatch");
        assert!(message.contains("finger-fake") && message.contains("\"old\""), "{message}");
        let own_rules = json!({"input": "cat", "canonicalization": "none"});
        ask(name, "finger-fake", own_rules).await.error(412, "fingerprint_mismatch");
    }
}

#[tokio::test]
async fn options_come_once_from_the_query_or_the_body() {
    let service = Service::new().await;
    let body = json!({"input": "cat"});
    assert_eq!(service.json(&format!("{PATH}?model=other"), body.clone()).await.ok()["model"], "other");
    let twice = service.json(&format!("{PATH}?model=other"), json!({"input": "cat", "model": "fake"})).await;
    assert!(twice.error(400, "invalid_request").contains("model: it is in the query and in the body"));
    let unknown = service.json(&format!("{PATH}?modle=other"), body.clone()).await;
    assert!(unknown.error(400, "invalid_request").contains("unknown field `modle`, expected one of"));
    service.json(&format!("{PATH}?input=cat"), body.clone()).await.error(400, "invalid_request");
    for route in ["/v1/classify", "/v1/score"] {
        service.json(&format!("{route}?modle=x"), body.clone()).await.error(400, "invalid_request");
        service.json(&format!("{route}?model=x"), body.clone()).await.error(404, "model_not_found");
    }
}

#[tokio::test]
async fn what_is_free_to_check_is_checked_before_the_body() {
    let service = Service::new().await;
    let never = || Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let json = "application/json";
    for (path, kind, accept, status) in [
        (PATH, json, "image/png", 406),
        (PATH, "text/plain", "*/*", 415),
        ("/v1/embeddings?model=clip", json, "*/*", 404),
        ("/v1/embeddings?size=3", json, "*/*", 400),
        ("/v1/embeddings/images?size=3", "image/png", "*/*", 400),
        ("/v1/embeddings/images?model=clip", "multipart/form-data; boundary=x", "*/*", 404),
        ("/v1/classify?top_k=x", json, "*/*", 400),
        ("/v1/classify", json, "application/x-npy", 406),
        ("/v1/score?model=clip", json, "*/*", 404),
        ("/v1/nothing", json, "*/*", 404),
        ("/v1/models", json, "*/*", 405),
    ] {
        let request = Request::post(path).header("content-type", kind).header("accept", accept);
        let answer = service.send(request.body(never()).unwrap());
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), answer).await;
        assert_eq!(answer.expect("the body is not waited for").status, status, "{path}");
    }
}

#[tokio::test]
async fn nothing_is_charged_once_a_request_is_answered() {
    let service = Service::new().await;
    let picture = STANDARD.encode("PIC");
    service.json(PATH, json!({"input": ["a", {"image": picture}]})).await.ok();
    service.json(PATH, json!({"input": ["a", {"image": "*"}], "partial": true})).await.ok();
    service.json(PATH, json!({"input": ["a", {"image": "*"}]})).await.error(422, "invalid_image_encoding");
    service.json("/v1/classify", json!({"input": picture, "labels": ["a", "b"]})).await.ok();
    service.json("/v1/score", json!({"images": picture, "texts": ["a", "b"]})).await.ok();
    service.post("/v1/embeddings/images", "image/png", "PIC").await.ok();
    assert_eq!(service.state.memory().total(), 0);
}

#[tokio::test]
async fn partial_gives_what_is_done_at_the_deadline() {
    let engine = EngineConfig { max_batch_tokens: Some(CONTEXT), ..engine_config() };
    let service = Service::with(ApiConfig::default(), engine).await;
    let input: Vec<String> =
        std::iter::once("fast".to_owned()).chain((0..15).map(|i| format!("slow {i}"))).collect();
    let ask = async |partial: bool| {
        let body = json!({"input": input, "partial": partial}).to_string();
        let request = Request::post(PATH).header("content-type", "application/json");
        service.send(request.header("x-request-timeout-ms", "1500").body(Body::from(body)).unwrap()).await
    };
    let body = ask(true).await.ok();
    assert_close(&floats(&body["data"][0]["embedding"]), &unit(b"fast"));
    let late = &body["data"][15]["error"];
    assert_eq!(late["code"], "deadline_exceeded");
    assert_eq!(late["param"], "input[15]");
    service.get("/health").await.ok();
}
