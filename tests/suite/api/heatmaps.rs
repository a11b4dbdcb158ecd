//! `POST /v1/heatmaps`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use siglip::testing::api::ApiConfig;
use siglip::testing::budget::MemoryBudget;
use siglip::testing::engine::EngineConfig;
use siglip::testing::image::{ImageLimits, ImageOptions, Preprocessor, ViewOptions, decode, largest_region};
use siglip::testing::model::scores::{cosine, sigmoid};

use siglip::testing::model::PatchVectors;

use super::fake::{BIAS, Fake, SCALE, SOURCE, patch, vector, view};
use super::{Service, assert_close, engine_config, floats};

const PATH: &str = "/v1/heatmaps";

fn picture(content: &str) -> String {
    STANDARD.encode(content)
}

/// The rows of a matrix one after the other.
fn matrix(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().flat_map(floats).collect()
}

#[tokio::test]
async fn a_map_for_each_pair() {
    let service = Service::new().await;
    let request = json!({
        "images": [picture("PIC1"), picture("PIC2")], "texts": ["cat", "dog"], "boxes": true, "overlay": true,
    });
    let answer = service.json(PATH, request).await;
    let body = answer.ok();
    assert_eq!(answer.header("x-siglip-fingerprint"), "finger-fake");
    let spec = siglip::testing::engine::Model::info(&Fake::new("fake")).image.clone().unwrap();
    let preprocessor = Preprocessor::new(spec, ImageLimits::default()).unwrap();
    let cover = preprocessor.cover(SOURCE, &ImageOptions::default(), &ViewOptions::default()).unwrap();
    let mut pairs = [("PIC1", "cat"), ("PIC1", "dog"), ("PIC2", "cat"), ("PIC2", "dog")].into_iter();
    for (at, map) in body["data"].as_array().unwrap().iter().enumerate() {
        let (picture, text) = pairs.next().unwrap();
        assert_eq!(
            (&map["object"], &map["image"], &map["text"]),
            (&json!("heatmap"), &json!(at / 2), &json!(at % 2))
        );
        assert_eq!((&map["rows"], &map["columns"]), (&json!(14), &json!(14)));
        assert_eq!((&map["height"], &map["width"]), (&json!(SOURCE.0), &json!(SOURCE.1)));
        let of_view = |area| cosine(&vector(&view(picture.as_bytes(), area)), &vector(text.as_bytes()));
        let cosines = cover.spread(cover.areas().map(of_view));
        let logits: Vec<f32> = cosines.iter().map(|c| c * SCALE + BIAS).collect();
        let probabilities: Vec<f32> = logits.iter().map(|&l| sigmoid(l)).collect();
        assert_close(&matrix(&map["cosine"]), &cosines);
        assert_close(&matrix(&map["logit"]), &logits);
        assert_close(&matrix(&map["probability"]), &probabilities);
        let highest = cosines.iter().copied().fold(f32::MIN, f32::max);
        let peak = map["peak"]["row"].as_u64().unwrap() as usize * 14
            + map["peak"]["column"].as_u64().unwrap() as usize;
        assert!((cosines[peak] - highest).abs() < 1e-6);
        let middle = (highest + cosines.iter().copied().fold(f32::MAX, f32::min)) / 2.0;
        // A patch on the border may fall to either side of a number that is written down.
        assert!(cosines.iter().all(|c| (c - middle).abs() > 1e-6), "another text is needed");
        let inside: Vec<bool> = cosines.iter().map(|&c| c >= middle).collect();
        let (area, patches) = largest_region(cover.grid(), &inside).unwrap();
        let pixels = cover.pixels(area);
        assert_eq!(map["box"]["patches"], patches);
        assert_eq!((&map["box"]["x"], &map["box"]["height"]), (&json!(pixels.x), &json!(pixels.height)));
        let png = STANDARD.decode(map["overlay"].as_str().unwrap()).unwrap();
        let drawn = decode(&png, &ImageLimits::default()).unwrap();
        assert_eq!((drawn.height(), drawn.width()), (2, 4), "the fake's preview");
    }
    assert_eq!(pairs.next(), None);
    let tokens: usize = cover.areas().map(|area| area.rows * area.cols).sum();
    assert!(tokens <= 8 * 196, "the budget");
    assert_eq!(body["usage"]["total_tokens"], 2 * tokens + 6);
}

#[tokio::test]
async fn methods_windows_and_thresholds() {
    let service = Service::new().await;
    let ask = async |extra: Value| {
        let mut body = json!({"images": picture("PIC1"), "texts": "cat"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = service.json(PATH, body).await.ok();
        (answer["data"][0].clone(), answer["usage"]["total_tokens"].as_u64().unwrap() as usize - 3)
    };
    let (map, _) = ask(json!({})).await;
    assert!(map.get("box").is_none() && map.get("overlay").is_none());
    let (_, tokens) = ask(json!({"window": 14})).await;
    assert_eq!(tokens, 196, "one window is the picture");
    let (_, tokens) = ask(json!({"method": "crops"})).await;
    assert_eq!(tokens, 16 * 196);
    let (_, tokens) = ask(json!({"method": "crops", "budget": 4})).await;
    assert_eq!(tokens, 4 * 196);
    let (map, tokens) = ask(json!({"method": "values"})).await;
    assert_eq!(tokens, 196, "the picture once");
    let of_patch = |at| cosine(&patch(b"PIC1", PatchVectors::Pooled, at), &vector(b"cat"));
    assert_close(&matrix(&map["cosine"]), &(0..196).map(of_patch).collect::<Vec<_>>());
    let (map, _) = ask(json!({"threshold": 1.5})).await;
    assert_eq!(map["box"], Value::Null, "no patch reaches it");
    let (map, _) = ask(json!({"threshold": 0.0})).await;
    assert_eq!(map["box"]["patches"], 196);
    assert_eq!((&map["box"]["width"], &map["box"]["height"]), (&json!(SOURCE.1), &json!(SOURCE.0)));
}

#[tokio::test]
async fn what_cannot_be_mapped_is_named() {
    let service = Service::configured(ApiConfig { max_labels: 80, ..ApiConfig::default() }).await;
    let one = picture("PIC1");
    for (request, status, part) in [
        (json!({"images": [one]}), 400, "missing field `texts`"),
        (json!({"images": [one], "label_set": "none"}), 404, "none"),
        (json!({"images": [one], "texts": ["a"], "label_set": "none"}), 422, "texts: "),
        (json!({"images": [one], "label_set": "none", "token_ids": true}), 422, "token_ids: "),
        (json!({"images": [one], "texts": ["a"], "labels": ["a"]}), 422, "labels: "),
        (json!({"images": [], "texts": ["a"]}), 422, "images: "),
        (json!({"images": [one], "texts": []}), 422, "texts: "),
        (json!({"images": [one], "texts": ["a", {"image": one}]}), 422, "texts[1]: "),
        (json!({"images": [one, {"text": "a"}], "texts": ["a"]}), 422, "images[1]: "),
        (json!({"images": [one, picture("x")], "texts": "a"}), 422, "images[1]: "),
        (json!({"images": [one, picture("PICbad")], "texts": "a"}), 422, "images[1]: "),
        (json!({"images": [one], "texts": [[300]], "token_ids": true}), 422, "texts[0]: "),
        (json!({"images": [one], "texts": ["a"], "window": 0}), 422, "window: "),
        (json!({"images": [one], "texts": ["a"], "budget": 0}), 422, "budget: "),
        (json!({"images": [one], "texts": ["a"], "budget": 65}), 422, "budget: "),
        (json!({"images": [one], "texts": ["a"], "method": "crops", "budget": 17}), 422, "budget: "),
        (json!({"images": [one], "texts": ["a"], "window": 5, "budget": 1}), 422, "images[0]: "),
        (json!({"images": [one], "texts": ["a"], "method": "magic"}), 400, "method: unknown variant"),
        (json!({"images": [one], "texts": vec!["a"; 65], "overlay": true}), 413, "overlay: 65 pairs"),
        (json!({"images": [one], "texts": vec!["a"; 81]}), 413, "texts: "),
        (json!({"images": [one], "texts": ["a"], "max_num_patches": 4}), 422, "max_num_patches"),
    ] {
        let answer = service.json(PATH, request.clone()).await;
        assert_eq!(answer.status, status, "{request}: {}", String::from_utf8_lossy(&answer.bytes));
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{request}: {message}");
    }
    service.post(PATH, "image/png", "PIC").await.error(415, "unsupported_media_type");
    assert_eq!(service.state.memory().total(), 0);
}

/// Stores a set of labels and waits until it can be used.
async fn put(service: &Service, name: &str, set: Value) {
    let path = format!("/v1/label-sets/{name}?wait=true");
    let request = http::Request::put(path).body(set.to_string().into()).unwrap();
    let answer = service.send(request).await;
    assert!(answer.status.is_success(), "{}", answer.json());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_of_a_stored_set_are_looked_for() {
    let service = Service::configured(ApiConfig { max_labels: 3, ..ApiConfig::default() }).await;
    put(&service, "pets", json!({"labels": ["cat", "dog", "a \"fish\""], "templates": ["{}"]})).await;
    let ask = async |more: Value| {
        let mut request = json!({"images": [picture("PIC1"), picture("PIC2")]});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service.json(PATH, request).await
    };
    let texts = ask(json!({"texts": ["cat", "dog", "a \"fish\""]})).await.ok();
    let body = ask(json!({"label_set": "pets"})).await.ok();
    assert_eq!((&body["label_set"]["name"], body["data"].as_array().unwrap().len()), (&json!("pets"), 6));
    for (of_set, of_texts) in body["data"].as_array().unwrap().iter().zip(texts["data"].as_array().unwrap()) {
        assert_close(&matrix(&of_set["cosine"]), &matrix(&of_texts["cosine"]));
        assert_close(&matrix(&of_set["probability"]), &matrix(&of_texts["probability"]));
        assert_eq!((&of_set["text"], of_texts.get("label")), (&of_texts["text"], None));
    }
    // Some of them, in the order that is asked for.
    let some = ask(json!({"label_set": "pets", "labels": ["a \"fish\"", "cat"]})).await.ok();
    let labels: Vec<&str> = (0..4).map(|i| some["data"][i]["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["a \"fish\"", "cat", "a \"fish\"", "cat"]);
    assert_close(&matrix(&some["data"][3]["cosine"]), &matrix(&texts["data"][3]["cosine"]));
    let message =
        ask(json!({"label_set": "pets", "labels": ["cat", "cow"]})).await.error(422, "invalid_value");
    assert!(message.contains("labels[1]") && message.contains("cow"), "{message}");
    put(&service, "many", json!({"labels": ["a", "b", "c", "d"]})).await;
    ask(json!({"label_set": "many"})).await.error(413, "payload_too_large");
    assert_eq!(ask(json!({"label_set": "many", "labels": ["d"]})).await.ok()["data"][1]["label"], "d");

    // A label with examples has the logits that a classification has: where the whole picture is one view, it is that one.
    let examples = json!({"examples": [
        {"label": "cat", "embedding": vector(b"one")}, {"label": "dog", "embedding": vector(b"two")},
    ]});
    service.json("/v1/label-sets/pets/examples", examples).await.ok();
    let whole = json!({"label_set": "pets", "labels": ["dog"], "window": 14, "method": "windows"});
    let map = ask(whole).await.ok()["data"][0].clone();
    let embedding =
        vector(&view(b"PIC1", siglip::testing::image::Area { top: 0, left: 0, rows: 14, cols: 14 }));
    let classified = json!({"label_set": "pets", "embeddings": [embedding]});
    let classified = service.json("/v1/classify", classified).await.ok();
    let of_dog =
        classified["data"][0]["predictions"].as_array().unwrap().iter().find(|p| p["label"] == "dog");
    let logit = of_dog.unwrap()["logit"].as_f64().unwrap() as f32;
    let of_map = matrix(&map["logit"]);
    assert!(of_map.iter().all(|l| (l - logit).abs() < 1e-3), "{logit} {of_map:?}");
}

#[tokio::test]
async fn views_are_counted_and_charged_before_they_are_made() {
    let memory = MemoryBudget::new(8 << 20);
    let config = ApiConfig { memory: memory.clone(), ..ApiConfig::default() };
    let engine = EngineConfig { max_queue_items: 100, memory, ..engine_config() };
    let service = Service::with(config, engine).await;
    let ask = async |count: usize, texts: usize| {
        let texts: Vec<String> = (0..texts).map(|i| format!("t{i}")).collect();
        service.json(PATH, json!({"images": vec![picture("PIC1"); count], "texts": texts, "window": 7})).await
    };
    // A window of 7 × 7 at the budget of 8 has 25 views: four pictures fill the queue.
    ask(4, 1).await.ok();
    let message = ask(5, 1).await.error(413, "payload_too_large");
    assert!(message.contains("125 inputs, at most 100 are queued"), "{message}");
    let message = ask(1, 200).await.error(413, "payload_too_large");
    assert!(message.contains("bytes of memory are needed"), "{message}");
    // Whoever leaves takes all views along.
    let slow = json!({"images": [picture("PIC1")], "texts": ["held"]});
    let left = tokio::time::timeout(Duration::from_millis(1), service.json(PATH, slow)).await;
    drop(left);
    // One batch may be on a worker still.
    let since = std::time::Instant::now();
    while service.state.engine().load().items > 0 || service.state.memory().total() > 0 {
        assert!(since.elapsed() < Duration::from_secs(20), "what was left is still there");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    ask(4, 1).await.ok();
    assert_eq!(service.state.memory().total(), 0);
}

/// Four drawings, one in each quarter.
#[cfg(feature = "demo")]
fn canvas(drawings: [&str; 4]) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/examples");
    let open = |name: &str| {
        let bytes = std::fs::read(folder.join(format!("{name}.png"))).unwrap();
        decode(&bytes, &ImageLimits::default()).unwrap()
    };
    let quarters = drawings.map(open);
    let (side, row) = (quarters[0].width(), quarters[0].width() as usize * 3);
    let mut pixels = Vec::new();
    for half in quarters.chunks(2) {
        for (left, right) in half[0].pixels().chunks(row).zip(half[1].pixels().chunks(row)) {
            pixels.extend([left, right].concat());
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2 * side, 2 * side);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    STANDARD.encode(bytes)
}

#[cfg(feature = "demo")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_model_finds_each_drawing_in_its_quarter() {
    let service = Service::demo();
    let drawings = ["guitar", "red-apple", "red-car", "sunflower"];
    let names = ["guitar", "red apple", "car", "sunflower"];
    for turn in 0..4 {
        let order = [0, 1, 2, 3].map(|quarter| (quarter + turn) % 4);
        let picture = canvas(order.map(|of| drawings[of]));
        for method in ["windows", "crops"] {
            let request = json!({"images": [picture], "texts": names, "method": method, "boxes": true});
            let body = service.json(PATH, request).await.ok();
            for (text, map) in body["data"].as_array().unwrap().iter().enumerate() {
                assert_eq!((&map["rows"], &map["columns"]), (&json!(6), &json!(6)));
                let quarter = order.iter().position(|&of| of == text).unwrap();
                let number = |at: &Value| at.as_u64().unwrap() as u32;
                let half = number(&map["width"]) / 2;
                let of = |x: u32, y: u32| (u32::from(y >= half) * 2 + u32::from(x >= half)) as usize;
                let (peak, area) = (&map["peak"], &map["box"]);
                assert_eq!(
                    of(number(&peak["x"]), number(&peak["y"])),
                    quarter,
                    "{method}: {} {map}",
                    names[text]
                );
                let middle = |start: &Value, length: &Value| number(start) + number(length) / 2;
                let middle = of(middle(&area["x"], &area["width"]), middle(&area["y"], &area["height"]));
                assert_eq!(middle, quarter, "{method}: {} {area}", names[text]);
            }
        }
    }
}
