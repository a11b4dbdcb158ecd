//! `POST /v1/embeddings/images`.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Service, assert_close, floats, form, unit};

const PATH: &str = "/v1/embeddings/images";

#[tokio::test]
async fn a_picture_as_the_whole_body() {
    let service = Service::new().await;
    for kind in ["image/jpeg", "IMAGE/png; x=y", "application/octet-stream"] {
        let body = service.post(PATH, kind, "PIC1").await.ok();
        assert_close(&floats(&body["data"][0]["embedding"]), &unit(b"PIC1"));
        assert_eq!(body["usage"]["prompt_tokens"], 196);
    }
    let path = format!("{PATH}?model=other&embedding_type=ubinary&encoding_format=base64");
    let body = service.post(&path, "image/jpeg", "PIC1").await.ok();
    assert_eq!(body["model"], "other");
    assert_eq!(STANDARD.decode(body["data"][0]["embedding"].as_str().unwrap()).unwrap().len(), 2);
    let unnamed = Request::post(PATH).body(Body::from("PIC1")).unwrap();
    assert_close(&floats(&service.send(unnamed).await.ok()["data"][0]["embedding"]), &unit(b"PIC1"));
    let message = service.post(PATH, "image/jpeg", "").await.error(422, "invalid_image");
    assert!(message.starts_with("image: "), "{message}");
}

#[tokio::test]
async fn a_form_with_many_files() {
    let service = Service::new().await;
    let (kind, body) = form(&[
        ("image", Some("cat.jpg"), Some("image/jpeg"), b"PIC1"),
        ("whatever", Some("dog.bin"), None, b"PIC2\r\n--X"),
        ("normalize", None, None, b"true"),
        ("image", None, None, STANDARD.encode("PIC3").as_bytes()),
        ("x", None, Some("image/png"), b"PIC4"),
    ]);
    let answer = service.post(PATH, &kind, body).await.ok();
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), 4);
    for (entry, picture) in data.iter().zip([&b"PIC1"[..], b"PIC2\r\n--X", b"PIC3", b"PIC4"]) {
        assert_close(&floats(&entry["embedding"]), &unit(picture));
    }
}

#[tokio::test]
async fn forms_say_which_file_is_wrong() {
    let service = Service::new().await;
    let (kind, body) = form(&[("a", Some("a.png"), None, b"PIC1"), ("b", Some("b.png"), None, b"nothing")]);
    let message = service.post(PATH, &kind, body).await.error(422, "invalid_image");
    assert!(message.starts_with("image[1] (b.png): "), "{message}");

    let (kind, body) = form(&[("model", None, None, b"fake")]);
    service.post(PATH, &kind, body).await.error(422, "invalid_value");
    let (kind, body) = form(&[("a", Some("a"), None, b"PIC"), ("normalise", None, None, b"true")]);
    let message = service.post(PATH, &kind, body).await.error(400, "invalid_request");
    assert!(message.contains("normalise"), "{message}");
    let (_, body) = form(&[("a", Some("a"), None, b"PIC")]);
    service.post(PATH, "multipart/form-data", body.clone()).await.error(400, "malformed_form");
    service.post(PATH, "multipart/form-data; boundary=YY", body.clone()).await.error(400, "malformed_form");
    let cut = body[..body.len() - 12].to_vec();
    service.post(PATH, "multipart/form-data; boundary=XX", cut).await.error(400, "malformed_form");
    service.post(PATH, "text/plain", "PIC").await.error(415, "unsupported_media_type");
    service.post(&format!("{PATH}?size=3"), "image/png", "PIC").await.error(400, "invalid_request");
}

#[tokio::test]
async fn json_holds_pictures_only() {
    let service = Service::new().await;
    let picture = STANDARD.encode("PIC1");
    let body = service.json(&format!("{PATH}?model=other"), json!({"input": [picture]})).await.ok();
    assert_close(&floats(&body["data"][0]["embedding"]), &unit(b"PIC1"));
    assert_eq!(body["model"], "other");
    let message =
        service.json(PATH, json!({"input": [picture, {"text": "a"}]})).await.error(422, "wrong_modality");
    assert!(message.starts_with("input[1]: "), "{message}");
}

#[tokio::test]
async fn curls_default_is_no_obstacle_to_a_picture() {
    let service = Service::new().await;
    let form = "application/x-www-form-urlencoded";
    // A JPEG by its first bytes, which the fake model cannot read: it was taken for a picture.
    service.post(PATH, form, &b"\xff\xd8\xff\xe0"[..]).await.error(422, "invalid_image");
    let message = service.post(PATH, form, "PIC").await.error(415, "unsupported_media_type");
    assert!(message.contains("--data-binary") && !message.contains("application/json'"), "{message}");
    service.post(&format!("{PATH}?normalize=maybe"), "image/png", "PIC").await.error(400, "invalid_request");
}

#[tokio::test]
async fn the_example_of_the_contract_is_taken_as_pictures() {
    let service = Service::new().await;
    let document = service.get("/openapi.json").await.ok();
    let content = &document["paths"][PATH]["post"]["requestBody"]["content"]["application/json"];
    // The fake model reads no PNG: that it says so shows that the example was decoded.
    service.json(PATH, content["example"].clone()).await.error(422, "invalid_image");
}

#[tokio::test]
async fn every_option_works_in_a_form() {
    let service = Service::new().await;
    let (kind, body) = form(&[
        ("image", Some("a.jpg"), None, b"PIC1"),
        ("image", Some("b.jpg"), None, b"nothing"),
        ("model", None, None, b"other"),
        ("partial", None, None, b"true"),
        ("canonicalization", None, None, b"none"),
        ("dimensions", None, None, b"12"),
        ("embedding_type", None, None, b"int8"),
        ("encoding_format", None, None, b"base64"),
    ]);
    let answer = service.post(PATH, &kind, body).await.ok();
    assert_eq!((&answer["model"], &answer["data"][1]["object"]), (&"other".into(), &"error".into()));
    assert!(answer["data"][0]["embedding"].is_string());
    let (kind, body) = form(&[("image", Some("a.jpg"), None, b"PIC1"), ("top_k", None, None, b"1")]);
    let message = service.post(PATH, &kind, body).await.error(400, "invalid_request");
    assert!(message.contains("unknown field `top_k`"), "{message}");
}
