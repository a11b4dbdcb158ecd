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
    assert_eq!(operations, 14);
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
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
