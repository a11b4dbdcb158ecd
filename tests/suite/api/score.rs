//! `POST /v1/score`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use siglip::testing::model::scores::{cosine, sigmoid};

use super::fake::{BIAS, SCALE, vector};
use super::{Service, assert_close, floats};

const PATH: &str = "/v1/score";

#[tokio::test]
async fn three_matrices() {
    let service = Service::new().await;
    let pictures: Vec<String> = ["PIC1", "PIC2"].iter().map(|p| STANDARD.encode(p)).collect();
    let request =
        json!({"images": pictures, "texts": ["cat", [100, 111, 103], {"text": "car"}], "token_ids": true});
    let body = service.json(PATH, request).await.ok();
    assert_eq!(body["object"], "scores");
    for (row, picture) in [b"PIC1", b"PIC2"].into_iter().enumerate() {
        let cosines: Vec<f32> =
            ["cat", "dog", "car"].iter().map(|t| cosine(&vector(picture), &vector(t.as_bytes()))).collect();
        let logits: Vec<f32> = cosines.iter().map(|c| c * SCALE + BIAS).collect();
        assert_close(&floats(&body["cosine"][row]), &cosines);
        assert_close(&floats(&body["logit"][row]), &logits);
        let probabilities: Vec<f32> = logits.iter().map(|&l| sigmoid(l)).collect();
        assert_close(&floats(&body["probability"][row]), &probabilities);
    }
    assert_eq!(body["usage"]["total_tokens"], 2 * 196 + 9);
}

#[tokio::test]
async fn what_cannot_be_scored_is_named() {
    let service = Service::new().await;
    let picture = STANDARD.encode("PIC1");
    for (request, status, part) in [
        (json!({"images": [picture]}), 400, "missing field `texts`"),
        (json!({"images": [], "texts": ["a"]}), 422, "images: "),
        (json!({"images": [picture], "texts": []}), 422, "texts: "),
        (json!({"images": [picture, {"text": "a"}], "texts": ["a"]}), 422, "images[1]: "),
        (json!({"images": picture, "texts": ["a", {"image": picture}]}), 422, "texts[1]: "),
        (json!({"images": [picture, STANDARD.encode("x")], "texts": "a"}), 422, "images[1]: "),
    ] {
        let answer = service.json(PATH, request.clone()).await;
        assert_eq!(answer.status, status, "{request}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{request}: {message}");
    }
}
