//! The contract: what the handlers say of themselves, and what is common to them.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::Header;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{OpenApi, Ref, RefOr};
use utoipa::{IntoResponses, Modify};

use crate::api::edge::error::ErrorBody;

/// The document without its paths, which the router adds.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "siglip",
        description = "Image-text embeddings and zero-shot classification with SigLIP, SigLIP 2 and NaFlex.\n\n\
            Every answer carries `x-request-id` (the client's own, if it sent one) and `server-timing`. A request may \
            carry `x-request-timeout-ms`, after which its answer is no longer wanted.\n\n\
            Element types: vectors are normalised first. `int8` is round(127·x), `uint8` the same plus 128. \
            `ubinary` packs the signs (1 where x > 0) eight to a byte, the first in the highest bit; `binary` is \
            that byte minus 128, signed. `base64` is the little-endian bytes of the element type.",
    ),
    components(schemas(ErrorBody)),
    modifiers(&Security),
    tags(
        (name = "embeddings", description = "Vectors of texts and pictures"),
        (name = "classification", description = "Zero-shot labels and scores"),
        (name = "models", description = "What is loaded"),
        (name = "operations", description = "Health, metrics and this document"),
    ),
)]
pub struct Contract;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let header = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key")));
        components.add_security_scheme("bearer", bearer);
        components.add_security_scheme("key", header);
        let none: [&str; 0] = [];
        document.security = Some(vec![
            SecurityRequirement::default(),
            SecurityRequirement::new("bearer", none),
            SecurityRequirement::new("key", none),
        ]);
    }
}

/// Errors of routes that embed.
pub struct WorkErrors;

impl IntoResponses for WorkErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[400, 401, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504])
    }
}

/// Errors of routes that only look something up.
pub struct ReadErrors;

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[400, 401, 404, 500])
    }
}

fn errors(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    statuses.iter().map(|&status| (status.to_string(), RefOr::T(error(status)))).collect()
}

fn error(status: u16) -> Response {
    let (description, kind, code, message, param) = match status {
        400 => (
            "The request is malformed",
            "invalid_request_error",
            "malformed_json",
            "the body is not valid JSON: EOF while parsing a list at line 1 column 12",
            None,
        ),
        401 => {
            ("No valid API key", "authentication_error", "invalid_api_key", "the API key is not valid", None)
        }
        404 => (
            "There is no such model",
            "not_found_error",
            "model_not_found",
            "there is no model named \"clip\"; this service has siglip2-base-patch16-224",
            Some("model"),
        ),
        406 => (
            "No answer in a format that the client takes",
            "invalid_request_error",
            "not_acceptable",
            "this route answers as application/json, application/msgpack; the Accept header takes none of them",
            None,
        ),
        408 => (
            "The body came too slowly",
            "timeout_error",
            "body_timeout",
            "the body did not arrive within 30 s",
            None,
        ),
        413 => (
            "Larger than the service takes",
            "invalid_request_error",
            "payload_too_large",
            "the body is larger than 67108864 bytes",
            None,
        ),
        415 => (
            "A body of a kind that the route does not read",
            "invalid_request_error",
            "unsupported_media_type",
            "Content-Type: this route reads application/json, not \"text/plain\"",
            Some("Content-Type"),
        ),
        422 => (
            "An input cannot be used",
            "invalid_request_error",
            "invalid_image",
            "input[3]: the image is empty (0 bytes)",
            Some("input[3]"),
        ),
        429 => (
            "No room; come back after Retry-After",
            "rate_limit_error",
            "overloaded",
            "the service is at its limit (2048 inputs queued); try again in 1 s",
            None,
        ),
        503 => (
            "The service is stopping",
            "unavailable_error",
            "shutting_down",
            "the service is shutting down",
            None,
        ),
        504 => (
            "Not finished in time",
            "timeout_error",
            "deadline_exceeded",
            "the request was not finished within 60000 ms",
            None,
        ),
        _ => (
            "A fault of the service",
            "server_error",
            "internal_error",
            "the service failed on this request",
            None,
        ),
    };
    let example = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).example(Some(example)).build();
    let mut response =
        ResponseBuilder::new().description(description).content("application/json", content).build();
    let header = |text: &str, kind: Type| {
        let mut header = Header::new(Object::with_type(kind));
        header.description = Some(text.to_owned());
        header
    };
    if matches!(status, 429 | 503) {
        response.headers.insert("retry-after".to_owned(), RefOr::T(header("Seconds", Type::Integer)));
    }
    if status == StatusCode::UNAUTHORIZED.as_u16() {
        response.headers.insert("www-authenticate".to_owned(), RefOr::T(header("Bearer", Type::String)));
    }
    response
}
