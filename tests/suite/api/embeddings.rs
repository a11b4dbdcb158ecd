//! `POST /v1/embeddings`.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use siglip::api::ApiConfig;

use super::fake::{CONTEXT, DIM};
use super::{Service, assert_close, fake, floats, unit};

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
    let body = service.json(PATH, json!({"input": input})).await.ok();
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
        let body = service.json(PATH, json!({"input": input, "model": "other"})).await.ok();
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
async fn one_bad_input_is_named_or_answered_in_its_place() {
    let service = Service::new().await;
    let mut input: Vec<Value> =
        (0..32).map(|i| json!({"image": STANDARD.encode(format!("PIC{i}"))})).collect();
    input[17] = json!({"image": STANDARD.encode("no picture")});
    let whole = service.json(PATH, json!({"input": input})).await;
    assert!(whole.error(422, "invalid_image").starts_with("input[17]: "));
    assert_eq!(whole.json()["error"]["param"], "input[17]");

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
        ("[]", "invalid_request", "EmbeddingsRequest"),
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
    let ids = service.json(PATH, json!({"input": [[1], [999]]})).await.error(422, "unsupported_by_model");
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
    service.json(PATH, json!({"input": ["a", "b", "c"]})).await.ok();
    let many = service.json(PATH, json!({"input": ["a", "b", "c", "d"]})).await;
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
