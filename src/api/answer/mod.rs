//! From vectors and documents to the bytes and headers of an answer.

mod array;
mod quantize;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

pub use array::{npy, rows};
pub use quantize::{EmbeddingType, Quantized};

use crate::api::edge::body::off_runtime;
use crate::api::edge::buffer::charged;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::budget::Charge;
use crate::engine::{ModelHandle, Timings};

/// Names the embedding space: the model's fingerprint, and the request's own rules where they change vectors.
pub const FINGERPRINT: HeaderName = HeaderName::from_static("x-siglip-fingerprint");
/// The model that answered.
pub const MODEL: HeaderName = HeaderName::from_static("x-siglip-model");
/// Rows and columns of a bare array.
pub const SHAPE: HeaderName = HeaderName::from_static("x-siglip-shape");
/// Element type of a bare array, as NumPy names it.
pub const DTYPE: HeaderName = HeaderName::from_static("x-siglip-dtype");

/// Builds an answer, not on the runtime where it is large. `memory` is charged for what building it takes at most; the answer
/// holds its length until it is sent.
///
/// # Errors
/// Those of `work`.
pub async fn build(
    mut memory: Charge,
    work: impl FnOnce() -> ApiResult<Vec<u8>> + Send + 'static,
) -> ApiResult<Bytes> {
    // What it takes at most is several times what it usually is.
    off_runtime(memory.bytes() / 4, move || {
        let mut bytes = work()?;
        bytes.shrink_to_fit();
        memory.shrink(memory.bytes().saturating_sub(bytes.capacity()));
        Ok(charged(bytes, memory))
    })
    .await
}

/// Writes a document as JSON or MessagePack, which are at most `room` bytes.
///
/// # Errors
/// 500 if it cannot be written, or for formats that hold no documents.
pub fn document<T: Serialize>(document: &T, format: Format, room: usize) -> ApiResult<Vec<u8>> {
    // All of it at once: growing would need half as much again. What is not written to takes no memory.
    let mut bytes = Vec::with_capacity(room);
    match format {
        Format::Json => {
            serde_json::to_writer(&mut bytes, document).map_err(|e| ApiError::internal(e.to_string()))?;
        }
        Format::MsgPack => {
            rmp_serde::encode::write_named(&mut bytes, document)
                .map_err(|e| ApiError::internal(e.to_string()))?;
        }
        Format::Npy | Format::OctetStream => {
            return Err(ApiError::internal("an array format for a document"));
        }
    }
    Ok(bytes)
}

/// 422: the client wants vectors of another width than the model's.
pub fn other_width(field: &str, model: &ModelHandle) -> ApiError {
    let width = model.info().embedding_dim;
    ApiError::field(field, format!("this model's embeddings have {width} dimensions and cannot be shortened"))
}

/// Bytes of a string in JSON, but for its quotation marks.
pub fn escaped(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

/// A 200 of these bytes; the middleware writes the times into `Server-Timing`.
pub fn respond(
    bytes: Bytes,
    format: Format,
    model: &ModelHandle,
    fingerprint: &str,
    timings: Timings,
) -> Response {
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Ok(fingerprint) = HeaderValue::from_str(fingerprint) {
        headers.insert(FINGERPRINT, fingerprint);
    }
    if let Ok(name) = HeaderValue::from_str(model.name()) {
        headers.insert(MODEL, name);
    }
    response.extensions_mut().insert(timings);
    response
}
