//! `/`, `/openapi.json`, `/openapi.yaml` and `/docs`. None of them asks for a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::Extension;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::dialects::Dialects;

/// The contract, written once when the router is made.
#[derive(Debug)]
pub struct Contract {
    /// As JSON.
    pub json: String,
    /// As YAML: the committed `openapi.yaml`; a test compares the two.
    pub yaml: &'static str,
    /// The page for people.
    pub page: String,
}

/// What answers at `/`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Welcome {
    /// The program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Where its routes are described.
    pub docs: &'static str,
    /// Where the contract is.
    pub openapi: &'static str,
}

/// Says what this is and where it is described.
#[utoipa::path(
    get, path = "/", tag = "operations", operation_id = "welcome", security(()),
    responses((status = 200, description = "Name, version and where to read on", body = Welcome))
)]
pub async fn welcome() -> Json<Welcome> {
    let version = env!("CARGO_PKG_VERSION");
    Json(Welcome { name: "siglip", version, docs: "/docs", openapi: "/openapi.json" })
}

/// This document as JSON.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "openapi_json", security(()),
    responses((status = 200, description = "The contract", body = Object, content_type = "application/json"))
)]
pub async fn openapi_json(Extension(contract): Extension<Arc<Contract>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], contract.json.clone()).into_response()
}

/// This document as YAML.
#[utoipa::path(
    get, path = "/openapi.yaml", tag = "operations", operation_id = "openapi_yaml", security(()),
    responses((status = 200, description = "The contract", body = Object, content_type = "application/yaml"))
)]
pub async fn openapi_yaml(Extension(contract): Extension<Arc<Contract>>) -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], contract.yaml).into_response()
}

/// A page that describes the routes and lets one try the classification; it needs no other host.
#[utoipa::path(
    get, path = "/docs", tag = "operations", operation_id = "docs", security(()),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
pub async fn docs(Extension(contract): Extension<Arc<Contract>>) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                          connect-src 'self'; img-src blob: data:; base-uri 'none'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(contract.page.clone())).into_response()
}

/// The page, with the dialects that are served.
pub fn page(dialects: &Dialects) -> String {
    include_str!("docs.html").replace("<!-- dialects -->", &listed(dialects))
}

fn listed(dialects: &Dialects) -> String {
    let mut html = String::new();
    for dialect in dialects.iter() {
        html.push_str(&format!("<details><summary><code>{}</code>", escaped(dialect.name)));
        html.push_str(&format!("<span class=\"what\">{}</span></summary><table>", escaped(dialect.about)));
        for route in dialect.routes {
            let (verb, path) = (route.verb.name(), escaped(route.path));
            html.push_str(&format!("<tr><td><code>{verb} {path}</code></td></tr>"));
        }
        html.push_str(&format!("</table><pre>{}</pre></details>", escaped(dialect.example)));
    }
    match html.is_empty() {
        true => html,
        false => format!(
            "<h2>dialects</h2><p class=\"note\">Routes of other services, for their clients</p>{html}"
        ),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
