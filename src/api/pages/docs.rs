//! `/`, `/openapi.json`, `/openapi.yaml` and `/docs`. None of them asks for a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::Extension;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::playground::Playground;
use crate::api::dialects::Dialects;
use crate::api::edge::base_path::Bare;
use crate::api::edge::error::ApiError;
use crate::api::edge::negotiate::wants_html;

/// The contract, written once when the router is made.
#[derive(Debug)]
pub struct Contract {
    /// As JSON.
    pub json: String,
    /// As YAML: the committed `openapi.yaml`; a test compares the two.
    pub yaml: &'static str,
    /// The pages for people, unless they are left out.
    pub playground: Option<Playground>,
}

impl Contract {
    /// Where one reads what the routes are.
    pub fn guide(&self) -> &'static str {
        guide(self.playground.is_some())
    }
}

/// Where one reads what the routes are, with or without pages for people.
pub fn guide(playground: bool) -> &'static str {
    if playground { "/docs" } else { "/openapi.json" }
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

/// Says what this is and where it is described; gives browsers the playground.
#[utoipa::path(
    get, path = "/", tag = "operations", operation_id = "welcome", security(()),
    responses((status = 200, description = "Name, version and where to read on; for browsers the playground",
        content((Welcome = "application/json"), (String = "text/html"))))
)]
pub async fn welcome(
    Extension(contract): Extension<Arc<Contract>>,
    bare: Option<Extension<Bare>>,
    headers: HeaderMap,
) -> Response {
    let for_people = contract.playground.as_ref().filter(|_| wants_html(&headers));
    match (for_people, bare) {
        // Relative addresses would leave the path.
        (Some(_), Some(Extension(Bare(address)))) => Redirect::permanent(&address).into_response(),
        (Some(playground), None) => playground.page(&headers),
        (None, _) => {
            let (version, docs) = (env!("CARGO_PKG_VERSION"), contract.guide());
            let welcome = Welcome { name: "siglip", version, docs, openapi: "/openapi.json" };
            let vary = [(header::VARY, HeaderValue::from_static("accept"))];
            (vary, Json(welcome)).into_response()
        }
    }
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

/// The playground, at the part of it that describes the routes and lets one try them. It needs no other host.
#[utoipa::path(
    get, path = "/docs", tag = "operations", operation_id = "docs", security(()),
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 404, description = "The service was started with `--no-ui`", body = crate::api::edge::error::ErrorBody),
    )
)]
pub async fn docs(
    Extension(contract): Extension<Arc<Contract>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match &contract.playground {
        Some(playground) => playground.page(&headers),
        None => ApiError::no_route(&method, &uri, contract.guide()).into_response(),
    }
}

/// A file of the playground.
pub async fn file(
    Extension(contract): Extension<Arc<Contract>>,
    path: Result<axum::extract::Path<(String, String)>, axum::extract::rejection::PathRejection>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match &contract.playground {
        Some(playground) => playground.file(path, &headers).into_response(),
        None => ApiError::no_route(&method, &uri, contract.guide()).into_response(),
    }
}

/// The dialects that are served, as HTML for the page.
pub(super) fn listed(dialects: &Dialects) -> String {
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
