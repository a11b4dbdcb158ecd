//! openapi.yaml is what the server serves.

use std::path::Path;

use serde_json::Value;

use super::Service;

#[tokio::test]
async fn the_committed_contract_is_what_is_served() {
    let service = Service::new().await;
    let served = yaml_serde::to_string(&service.get("/openapi.json").await.ok()).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == served,
        "openapi.yaml is not what the server serves: run UPDATE_OPENAPI=1 cargo test --release --test suite contract"
    );
    // The program holds the file as it was when it was compiled.
    if std::env::var_os("UPDATE_OPENAPI").is_none() {
        assert!(service.get("/openapi.yaml").await.bytes == committed.as_bytes());
    }
}

#[tokio::test]
async fn every_operation_is_described() {
    let service = Service::new().await;
    let answer = service.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.ok();
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let name = format!("{method} {path}");
            for field in ["summary", "operationId", "tags"] {
                assert!(operation.get(field).is_some_and(|v| !v.is_null()), "{name} has no {field}");
            }
            if path.starts_with("/v1/") && method == "post" {
                for status in ["200", "400", "401", "404", "413", "415", "422", "429", "500", "503", "504"] {
                    assert!(
                        operation["responses"].get(status).is_some(),
                        "{name} does not document {status}"
                    );
                }
            }
        }
    }
    assert_eq!(operations, 26);
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[tokio::test]
async fn an_option_is_described_for_json_query_and_form() {
    let service = Service::new().await;
    let document = service.get("/openapi.json").await.ok();
    let schema =
        |name: &str| document["components"]["schemas"][name]["properties"].as_object().unwrap().clone();
    for (path, request, form, inputs) in [
        ("/v1/embeddings", "EmbeddingsRequest", None, &["input"][..]),
        ("/v1/embeddings/images", "EmbeddingsRequest", Some("ImagesForm"), &["input"]),
        ("/v1/classify", "ClassifyRequest", Some("ClassifyForm"), &["input", "embeddings"]),
        ("/v1/score", "ScoreRequest", None, &["images", "texts"]),
        ("/v1/heatmaps", "HeatmapsRequest", None, &["images", "texts"]),
    ] {
        let parameters = document["paths"][path]["post"]["parameters"].as_array().unwrap();
        let names = |place: &str| -> Vec<&str> {
            let of = parameters.iter().filter(|parameter| parameter["in"] == place);
            of.map(|parameter| parameter["name"].as_str().unwrap()).collect()
        };
        let options: Vec<String> =
            schema(request).keys().filter(|name| !inputs.contains(&name.as_str())).cloned().collect();
        assert_eq!(names("query"), options, "{path}");
        if let Some(form) = form {
            let fields: Vec<String> = schema(form).keys().filter(|name| *name != "image").cloned().collect();
            assert_eq!(fields, options, "{path}");
        }
        for header in ["x-request-id", "x-request-timeout-ms", "x-siglip-expect-fingerprint", "If-Match"] {
            assert!(names("header").contains(&header), "{path}: {header}");
        }
        let answer = document["paths"][path]["post"]["responses"]["200"]["headers"].as_object().unwrap();
        for header in ["x-request-id", "server-timing", "x-siglip-fingerprint", "x-siglip-model"] {
            assert!(answer.contains_key(header), "{path}: {header}");
        }
        assert_eq!(answer.contains_key("x-siglip-shape"), path.starts_with("/v1/embeddings"), "{path}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.push(reference.clone());
            }
            map.values().for_each(|v| collect_references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| collect_references(v, found)),
        _ => {}
    }
}
