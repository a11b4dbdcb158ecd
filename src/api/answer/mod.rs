//! From vectors and documents to the bytes and headers of an answer.

mod array;
mod quantize;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

pub use array::{npy, rows};
pub use quantize::{EmbeddingType, Quantized};

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::engine::{ModelHandle, Timings};

/// Names the embedding space: the model's fingerprint.
pub const FINGERPRINT: HeaderName = HeaderName::from_static("x-siglip-fingerprint");
/// The model that answered.
pub const MODEL: HeaderName = HeaderName::from_static("x-siglip-model");
/// Rows and columns of a bare array.
pub const SHAPE: HeaderName = HeaderName::from_static("x-siglip-shape");
/// Element type of a bare array, as NumPy names it.
pub const DTYPE: HeaderName = HeaderName::from_static("x-siglip-dtype");

/// Writes a document as JSON or MessagePack.
///
/// # Errors
/// 500 if it cannot be written; 406 for formats that hold no documents.
pub fn document<T: Serialize>(document: &T, format: Format) -> ApiResult<Vec<u8>> {
    match format {
        Format::Json => serde_json::to_vec(document).map_err(|e| ApiError::internal(e.to_string())),
        Format::MsgPack => rmp_serde::to_vec_named(document).map_err(|e| ApiError::internal(e.to_string())),
        Format::Npy | Format::OctetStream => Err(ApiError::internal("an array format for a document")),
    }
}

/// A 200 of these bytes; the middleware writes the times into `Server-Timing`.
pub fn respond(bytes: Vec<u8>, format: Format, model: &ModelHandle, timings: Timings) -> Response {
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Ok(fingerprint) = HeaderValue::from_str(&model.info().fingerprint) {
        headers.insert(FINGERPRINT, fingerprint);
    }
    if let Ok(name) = HeaderValue::from_str(model.name()) {
        headers.insert(MODEL, name);
    }
    response.extensions_mut().insert(timings);
    response
}
