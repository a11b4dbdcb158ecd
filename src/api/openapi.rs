//! The contract: what the handlers say of themselves, and what is common to them.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{OpenApi, Ref, RefOr, Required};
use utoipa::{IntoResponses, Modify};

use crate::api::edge::error::ErrorBody;

/// The document without its paths, which the router adds.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "siglip",
        description = "Image-text embeddings and zero-shot classification with SigLIP, SigLIP 2 and NaFlex.\n\n\
            Options of a request may be in its query, in fields of its form or in its JSON body, each once; what a route \
            does not know is refused.\n\n\
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

fn header(text: &str, kind: Type) -> Header {
    let mut header = Header::new(Object::with_type(kind));
    header.description = Some(text.to_owned());
    header
}

/// Headers that every request may carry, and those of embedding routes only.
const REQUEST_HEADERS: [(&str, Type, &str); 2] = [
    ("x-request-id", Type::String, "Names the request in the answer and in the log; made up if left out"),
    ("x-request-timeout-ms", Type::Integer, "Milliseconds after which the answer is no longer wanted"),
];
const WORK_REQUEST_HEADERS: [(&str, Type, &str); 2] = [
    (
        "x-siglip-expect-fingerprint",
        Type::String,
        "The embedding space that the vectors are for; of another one the request is refused with 412",
    ),
    ("If-Match", Type::String, "The same as an entity tag: the fingerprint in quotation marks"),
];
const ANSWER_HEADERS: [(&str, Type, &str); 2] = [
    ("x-request-id", Type::String, "The request's name in the log"),
    ("server-timing", Type::String, "decode, tokenize, queue, inference and total, in ms"),
];
const WORK_ANSWER_HEADERS: [(&str, Type, &str); 2] = [
    ("x-siglip-fingerprint", Type::String, "Names the embedding space, the request's own rules included"),
    ("x-siglip-model", Type::String, "The model that answered"),
];
const ARRAY_ANSWER_HEADERS: [(&str, Type, &str); 2] = [
    ("x-siglip-shape", Type::String, "Rows and columns, where the answer is one array"),
    ("x-siglip-dtype", Type::String, "Element type as NumPy names it, where the answer is one array"),
];

/// Adds the headers that routes share, and the error of one that is not valid.
pub fn add_headers(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let embeds = item.post.is_some() && !path.starts_with("/v1/label-sets");
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let more = if embeds { &WORK_REQUEST_HEADERS[..] } else { &[] };
            for (name, kind, text) in REQUEST_HEADERS.iter().chain(more) {
                let mut parameter = Parameter::new(*name);
                parameter.parameter_in = ParameterIn::Header;
                parameter.required = Required::False;
                parameter.description = Some((*text).to_owned());
                let schema = Object::with_type(kind.clone());
                parameter.schema = Some(RefOr::T(schema.into()));
                operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
            }
            // A header that is not valid is refused on every route.
            let answers = &mut operation.responses.responses;
            answers.entry("400".to_owned()).or_insert_with(|| RefOr::T(error(400)));
            let Some(RefOr::T(answer)) = answers.get_mut("200") else { continue };
            let more = if embeds { &WORK_ANSWER_HEADERS[..] } else { &[] };
            let array = if path.starts_with("/v1/embeddings") { &ARRAY_ANSWER_HEADERS[..] } else { &[] };
            for (name, kind, text) in ANSWER_HEADERS.iter().chain(more).chain(array) {
                answer.headers.insert((*name).to_owned(), RefOr::T(header(text, kind.clone())));
            }
        }
    }
}

/// Errors of routes that embed.
pub struct WorkErrors;

impl IntoResponses for WorkErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[400, 401, 404, 406, 408, 412, 413, 415, 422, 429, 500, 502, 503, 504])
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
            "There is no such model or label set",
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
        412 => (
            "Another embedding space or version than x-siglip-expect-fingerprint or If-Match names",
            "invalid_request_error",
            "fingerprint_mismatch",
            "x-siglip-expect-fingerprint: the vectors would be of the embedding space 5f2a…, not of \"91cc…\"",
            Some("x-siglip-expect-fingerprint"),
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
        502 => (
            "A host that a picture was to be fetched from failed",
            "server_error",
            "url_fetch_failed",
            "input[3]: the host answered 503 Service Unavailable",
            Some("input[3]"),
        ),
        503 => (
            "The service is starting or stopping, or a label set is being encoded",
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
            "the service failed on this request; its log says why (request 3f6c…)",
            None,
        ),
    };
    let example = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).example(Some(example)).build();
    let mut response =
        ResponseBuilder::new().description(description).content("application/json", content).build();
    if matches!(status, 429 | 503) {
        response.headers.insert("retry-after".to_owned(), RefOr::T(header("Seconds", Type::Integer)));
    }
    if status == StatusCode::UNAUTHORIZED.as_u16() {
        response.headers.insert("www-authenticate".to_owned(), RefOr::T(header("Bearer", Type::String)));
    }
    response
}
