//! Dialects that answer with documents: OpenAI's variants, Cohere, Voyage, Vertex, Roboflow, clip-as-service.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::fake::DIM;
use super::super::{Service, assert_close, fake, floats, unit};
use super::{LONG, PICTURE, VERTEX, data_url, picture};

#[tokio::test]
async fn openais_request_as_others_write_it() {
    let service = Service::new().await;
    let content = |part: Value| json!({"messages": [{"role": "user", "content": part}], "model": "fake"});
    let by_url = json!([{"type": "image_url", "image_url": {"url": data_url(), "detail": "low"}}]);
    for (path, body, wanted) in [
        ("/v1/embeddings", content(by_url.clone()), unit(PICTURE)),
        ("/embeddings", content(json!("cat")), unit(b"cat")),
        ("/v1/embeddings", content(json!([{"type": "text", "text": "cat"}])), unit(b"cat")),
        ("/v1/embeddings", json!({"input": [picture()], "modality": "image"}), unit(PICTURE)),
        ("/embeddings", json!({"input": [data_url()]}), unit(PICTURE)),
        ("/v1/embeddings", json!({"input": {"image": picture()}, "task": "retrieval.query"}), unit(PICTURE)),
        ("/v1/embeddings", json!({"input": ["cat"], "normalized": false}), fake::vector(b"cat")),
        ("/v1/embeddings", json!({"input": [{"bytes": picture()}], "encoding_type": "float"}), unit(PICTURE)),
        ("/v1/embeddings", json!({"input": [{"url": data_url()}], "late_chunking": false}), unit(PICTURE)),
        (
            "/v1/embeddings",
            json!({"input": [LONG], "truncate": true, "input_type": null}),
            unit(&LONG.as_bytes()[..16]),
        ),
    ] {
        let answer = service.json(path, body.clone()).await.ok();
        assert_eq!(answer["data"].as_array().unwrap().len(), 1, "{body}");
        assert_close(&floats(&answer["data"][0]["embedding"]), &wanted);
    }
    let both = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": data_url()}]);
    for (body, status, part) in [
        (content(both), 400, "not of several together"),
        (content(json!([{"type": "video_url", "video_url": "x"}])), 400, "texts and pictures only"),
        (json!({"messages": [{"content": "a"}], "input": "a"}), 400, "either input or messages"),
        (json!({"input": ["a", LONG], "truncate": "NONE"}), 422, "input[1]: the text is longer"),
        (json!({"input": "a", "truncate": "START"}), 422, "never their beginning"),
        (json!({"input": "a", "normalize": true, "normalized": true}), 400, "either"),
        (json!({"input": "a", "output_dimension": 4, "output_dtype": null}), 422, "12 dimensions"),
        (json!({"input": "a", "late_chunking": true}), 422, "late_chunking"),
        (json!({"input": "a", "encoding_type": "float", "embedding_type": "float"}), 400, "either"),
        (json!({"inputt": "a"}), 400, "unknown field `inputt`"),
    ] {
        for path in ["/embeddings", "/v1/embeddings"] {
            let answer = service.json(path, body.clone()).await;
            let message = answer.refused(status, "/error/message");
            assert!(message.contains(part), "{message}");
            // Where Jina's and Voyage's clients look for it, and infinity's, which reads a list at 422.
            let detail = answer.refused(status, if status == 422 { "/detail/0/msg" } else { "/detail" });
            assert_eq!(detail.split('…').next(), Some(&message[..detail.find('…').unwrap_or(message.len())]));
        }
    }
    let long = service.json("/v1/embeddings", json!({"input": "a", &"x".repeat(5000): 1})).await;
    assert!(long.bytes.len() < 2000 && long.refused(400, "/detail").len() < 210);
    let query = service.json("/v1/embeddings?task=x", json!({"input": "a"})).await;
    assert!(query.refused(400, "/error/message").contains("JSON body"));
    let invalid = service.json("/v1/embeddings", json!({"input": "a", "dimensions": 7})).await.json();
    assert_eq!(invalid["detail"][0]["loc"], json!(["body", "dimensions"]));
    assert_eq!(invalid["detail"][0]["type"], invalid["error"]["code"]);
    let any = json!({"input": ["cat"], "dimensions": 0});
    assert_close(
        &floats(&service.json("/v1/embeddings", any).await.ok()["data"][0]["embedding"]),
        &unit(b"cat"),
    );
    assert_eq!(service.get("/models").await.ok(), service.get("/v1/models").await.ok());
    assert_eq!(service.get("/models/other").await.ok()["id"], "other");
}

#[tokio::test]
async fn jinas_classification_is_our_own() {
    let service = Service::new().await;
    let body = json!({"model": "fake", "input": [{"image": picture()}], "labels": ["cat", "dog"]});
    let answer = service.json("/v1/classify", body).await.ok();
    let entry = &answer["data"][0];
    assert_eq!((&entry["object"], &entry["index"]), (&json!("classification"), &json!(0)));
    assert_eq!(entry["prediction"], entry["predictions"][0]["label"]);
    assert!(entry["score"].is_f64() && answer["usage"]["total_tokens"].is_u64());
}

#[tokio::test]
async fn cohere_gives_every_element_type_at_once() {
    let service = Service::new().await;
    let types = json!(["float", "int8", "uint8", "binary", "ubinary", "base64", "float"]);
    let body = json!({"model": "fake", "input_type": "search_query", "texts": ["cat", "dog"],
                      "embedding_types": types, "max_tokens": 9});
    let answer = service.json("/v2/embed", body).await.ok();
    assert_eq!(answer["response_type"], "embeddings_by_type");
    assert_eq!(answer["meta"]["billed_units"]["input_tokens"], 6);
    let all = answer["embeddings"].as_object().unwrap();
    assert_eq!(all.len(), 6);
    let vector = unit(b"dog");
    assert_close(&floats(&all["float"][1]), &vector);
    let int8: Vec<i64> = vector.iter().map(|x| (x * 127.0).round() as i64).collect();
    assert_eq!(all["int8"][1], json!(int8));
    assert_eq!(all["uint8"][1], json!(int8.iter().map(|x| x + 128).collect::<Vec<_>>()));
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(STANDARD.decode(all["base64"][1].as_str().unwrap()).unwrap(), bytes);
    let native = json!({"input": ["cat", "dog"], "embedding_type": "binary"});
    let native = service.json("/v1/embeddings", native).await.ok();
    assert_eq!(all["binary"][1], native["data"][1]["embedding"]);
    assert_eq!(all["ubinary"][0].as_array().unwrap().len(), DIM.div_ceil(8));

    let inputs = json!([{"content": [{"type": "image_url", "image_url": {"url": data_url()}}]},
                        {"content": [{"type": "text", "text": "cat"}]}]);
    for body in [json!({"inputs": inputs}), json!({"images": [data_url()]})] {
        let mut body = body;
        body["model"] = "fake".into();
        let answer = service.json("/v2/embed", body).await.ok();
        assert_close(&floats(&answer["embeddings"]["float"][0]), &unit(PICTURE));
        assert_eq!(answer["meta"]["billed_units"]["images"], 1);
    }
    let both = json!([{"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]}]);
    for (body, status, part) in [
        (json!({"model": "embed-v4.0", "texts": ["a"]}), 404, "embed-v4.0"),
        (json!({"texts": ["a"]}), 400, "model"),
        (json!({"model": "fake"}), 400, "texts"),
        (json!({"model": "fake", "texts": []}), 422, "texts: at least one"),
        (json!({"model": "fake", "texts": ["a"], "images": ["x"]}), 400, "one of texts"),
        (json!({"model": "fake", "texts": ["a"], "output_dimension": 256}), 422, "output_dimension"),
        (json!({"model": "fake", "texts": ["a", LONG], "truncate": "NONE"}), 422, "texts[1]"),
        (json!({"model": "fake", "texts": ["a"], "truncate": "START"}), 422, "truncate"),
        (json!({"model": "fake", "inputs": both}), 400, "inputs[0].content"),
        (json!({"model": "fake", "images": ["AAAA"]}), 422, "images[0]"),
        (json!({"model": "fake", "texts": ["a"], "embedding_types": ["int4"]}), 400, "int4"),
    ] {
        let message = service.json("/v2/embed", body).await.refused(status, "/message");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn voyage() {
    let service = Service::new().await;
    let path = "/v1/multimodalembeddings";
    let input = |part: Value| json!({"content": [part]});
    let inputs = json!([
        input(json!({"type": "text", "text": "cat"})),
        input(json!({"type": "image_base64", "image_base64": data_url()}))
    ]);
    let body = json!({"model": "fake", "inputs": inputs, "input_type": null, "truncation": true,
                      "output_dtype": null, "output_dimension": DIM, "encoding_format": "base64"});
    let answer = service.json(path, body).await.ok();
    let bytes: Vec<u8> = unit(PICTURE).iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(STANDARD.decode(answer["data"][1]["embedding"].as_str().unwrap()).unwrap(), bytes);
    let usage = json!({"text_tokens": 3, "image_pixels": 6, "video_pixels": 0, "total_tokens": 199});
    assert_eq!(answer["usage"], usage);
    let body = json!({"model": "fake", "inputs": inputs, "output_encoding": null});
    assert_close(&floats(&service.json(path, body).await.ok()["data"][0]["embedding"]), &unit(b"cat"));
    let both = json!([{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
    for (model, inputs, more, status, part) in [
        ("voyage-multimodal-3", &inputs, json!({}), 404, "voyage-multimodal-3"),
        ("fake", &both, json!({}), 400, "inputs[0].content"),
        ("fake", &json!([input(json!({"video_url": "x"}))]), json!({}), 400, "texts and pictures only"),
        ("fake", &inputs, json!({"output_dimension": 256}), 422, "output_dimension"),
        ("fake", &json!([input(json!({"text": LONG}))]), json!({"truncation": false}), 422, "inputs[0]"),
        ("fake", &json!([]), json!({}), 422, "at least one"),
    ] {
        let mut body = more;
        body["model"] = model.into();
        body["inputs"] = inputs.clone();
        let message = service.json(path, body).await.refused(status, "/detail");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn vertex() {
    let service = Service::new().await;
    let instances = json!([{"text": "cat", "image": {"bytesBase64Encoded": picture()}}, {"text": "dog"}]);
    let answer =
        service.json(VERTEX, json!({"instances": instances, "parameters": {"dimension": DIM}})).await.ok();
    let predictions = &answer["predictions"];
    assert_close(&floats(&predictions[0]["textEmbedding"]), &unit(b"cat"));
    assert_close(&floats(&predictions[0]["imageEmbedding"]), &unit(PICTURE));
    assert_close(&floats(&predictions[1]["textEmbedding"]), &unit(b"dog"));
    assert!(predictions[1].get("imageEmbedding").is_none());
    let other = VERTEX.replace("fake", "multimodalembedding@001");
    for (path, body, status, code, part) in [
        (other.as_str(), json!({"instances": [{"text": "a"}]}), 404, "NOT_FOUND", "multimodalembedding@001"),
        (VERTEX, json!({"instances": [{}]}), 422, "INVALID_ARGUMENT", "instances[0]"),
        (
            VERTEX,
            json!({"instances": [{"image": {"gcsUri": "gs://a"}}]}),
            422,
            "INVALID_ARGUMENT",
            "bytesBase64Encoded",
        ),
        (VERTEX, json!({"instances": [{"text": "a", "video": {}}]}), 422, "INVALID_ARGUMENT", "video"),
        (
            VERTEX,
            json!({"instances": [{"text": "a"}], "parameters": {"dimension": 128}}),
            422,
            "INVALID_ARGUMENT",
            "dimension",
        ),
    ] {
        let answer = service.json(path, body).await;
        let message = answer.refused(status, "/error/message");
        assert!(message.contains(part), "{message}");
        assert_eq!(answer.json()["error"]["status"], code);
        assert_eq!(answer.json()["error"]["code"], status);
    }
}

#[tokio::test]
async fn roboflow() {
    let service = Service::new().await;
    let image = json!({"type": "base64", "value": picture()});
    for body in
        [json!({"image": image}), json!({"image": [image], "clip_version_id": "fake", "api_key": "k"})]
    {
        let answer = service.json("/clip/embed_image", body).await.ok();
        assert_close(&floats(&answer["embeddings"][0]), &unit(PICTURE));
        assert_eq!(answer.get("frame_id"), Some(&Value::Null));
    }
    let answer = service.json("/clip/embed_text", json!({"text": ["cat", "dog"]})).await.ok();
    assert_close(&floats(&answer["embeddings"][1]), &unit(b"dog"));
    let cosine: f32 = unit(PICTURE).iter().zip(unit(b"cat")).map(|(x, y)| x * y).sum();
    let compare = async |prompt: Value| {
        let body =
            json!({"subject": image, "subject_type": "image", "prompt": prompt, "prompt_type": "text"});
        service.json("/clip/compare", body).await.ok()["similarity"].clone()
    };
    assert_close(&floats(&compare(json!("cat")).await), &[cosine]);
    assert_close(&floats(&compare(json!(["cat"])).await), &[cosine]);
    let named = compare(json!({"a": "cat", "b": "dog"})).await;
    assert!((named["a"].as_f64().unwrap() as f32 - cosine).abs() < 1e-5, "{named}");
    let reverse = json!({"subject": "cat", "subject_type": "text", "prompt": image, "prompt_type": "image"});
    assert_close(&floats(&service.json("/clip/compare", reverse).await.ok()["similarity"]), &[cosine]);
    for (path, body, status, part) in [
        ("/clip/embed_text", json!({"text": "a", "clip_version_id": "ViT-B-16"}), 404, "ViT-B-16"),
        ("/clip/embed_image", json!({"image": "x"}), 422, "base64"),
        ("/clip/embed_image", json!({"image": {"type": "numpy", "value": "x"}}), 400, "numpy"),
        ("/clip/embed_image", json!({"image": {"type": "base64", "value": "http://h/"}}), 400, "type"),
        ("/clip/compare", json!({"subject": image, "prompt": []}), 422, "prompt"),
        ("/clip/embed_image", json!({"image": {"type": "base64", "value": "HTTP://h/"}}), 400, "type"),
        (
            "/clip/embed_image",
            json!({"image": {"type": "url", "value": "HTTPS://h/"}}),
            422,
            "not fetched by URL",
        ),
        ("/clip/compare", json!({"subject": "a", "prompt": {"type": "url", "value": "AAAA"}}), 400, "type"),
        ("/clip/compare", json!({"subject": "a", "prompt": {"type": "numpy", "value": "x"}}), 400, "numpy"),
        ("/clip/compare", json!({"subject": "a", "prompt": {"value": "AAAA"}}), 400, "missing field `type`"),
        ("/clip/compare", json!({"subject": image, "prompt": "a", "prompt_type": "sound"}), 422, "sound"),
        ("/clip/compare", json!({"subject": [image, image], "prompt": "a"}), 422, "one subject"),
    ] {
        let message = service.json(path, body).await.refused(status, "/message");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn clip_as_service() {
    let service = Service::new().await;
    let data = json!([{"id": "a", "text": "cat"}, {"uri": data_url()}, {"blob": picture()}]);
    let answer = service.json("/post", json!({"data": data, "execEndpoint": "/"})).await.ok();
    assert_eq!((&answer["data"][0]["id"], &answer["data"][1]["id"]), (&json!("a"), &json!("1")));
    for (index, wanted) in [&b"cat"[..], PICTURE, PICTURE].into_iter().enumerate() {
        assert_close(&floats(&answer["data"][index]["embedding"]), &unit(wanted));
    }
    for (body, status, part) in [
        (json!({"data": data, "execEndpoint": "/rank"}), 422, "/rank"),
        (json!({"data": [{"text": "a", "uri": "b"}]}), 422, "data[0]"),
        (json!({"data": [{"blob": "AAAA"}]}), 422, "data[0]"),
        (json!({"docs": []}), 400, "data"),
    ] {
        let message = service.json("/post", body).await.refused(status, "/header/status/description");
        assert!(message.contains(part), "{message}");
    }
}
