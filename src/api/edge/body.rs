//! Reads bodies within bounds: of each one, of all together, and of the time they take.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::state::AppState;
use crate::telemetry;

/// Bytes that a permit of the budget stands for.
const UNIT: usize = 4096;
/// Work on more bytes than this leaves the async runtime's threads.
const INLINE_BYTES: usize = 32 << 10;

/// Room for the bodies of all requests at once.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    free: Arc<Semaphore>,
}

impl BodyBudget {
    /// A budget of about so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { free: Arc::new(Semaphore::new((bytes / UNIT).clamp(1, u32::MAX as usize))) }
    }

    fn take(&self, bytes: usize) -> ApiResult<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| full())?;
        Arc::clone(&self.free).try_acquire_many_owned(units).map_err(|_| full())
    }

    fn has_room(&self, bytes: u64) -> bool {
        bytes.div_ceil(UNIT as u64) <= self.free.available_permits() as u64
    }
}

fn full() -> ApiError {
    metrics::counter!(telemetry::REJECTED, "reason" => "body_memory").increment(1);
    let message = "the service is at its limit (bytes of request bodies); try again in 1 s";
    ApiError::overloaded(message, Duration::from_secs(1))
}

/// A whole body, and its place in the budget for as long as this lives.
#[derive(Debug)]
pub struct RawBody {
    /// The media type without parameters, lower case; empty without the header.
    pub media_type: String,
    /// The whole `Content-Type` header; empty without it.
    pub content_type: String,
    /// The body.
    pub bytes: Bytes,
    /// Its place in the budget, given back when this is dropped.
    _held: OwnedSemaphorePermit,
}

impl RawBody {
    /// Whether it is JSON, or says nothing of what it is.
    pub fn is_json(&self) -> bool {
        let kind = self.media_type.as_str();
        kind.is_empty()
            || kind == "application/json"
            || (kind.starts_with("application/") && kind.ends_with("+json"))
    }

    /// Whether it does not say what it is and is no JSON object either.
    pub fn is_unnamed_picture(&self) -> bool {
        self.media_type.is_empty() && self.bytes.trim_ascii_start().first() != Some(&b'{')
    }

    /// 415: a route that reads `wanted` got this body.
    pub fn unsupported(&self, wanted: &str) -> ApiError {
        let hint = match self.media_type.as_str() {
            "application/x-www-form-urlencoded" => {
                " (curl sends that by default: add -H 'Content-Type: application/json')"
            }
            _ => "",
        };
        let message = format!("this route reads {wanted}, not {:?}{hint}", self.media_type);
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
            .at("Content-Type")
    }
}

impl FromRequest<AppState> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let (parts, body) = request.into_parts();
        let content_type = match parts.headers.get(header::CONTENT_TYPE) {
            None => String::new(),
            Some(value) => value
                .to_str()
                .map_err(|_| ApiError::bad_request("invalid_header", "not visible ASCII").at("Content-Type"))?
                .to_owned(),
        };
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let config = state.config();
        let reading = read(&parts.headers, body, config.max_body_bytes, state.budget());
        let (bytes, held) = tokio::time::timeout(config.body_timeout, reading).await.map_err(|_| {
            let message = format!("the body did not arrive within {} s", config.body_timeout.as_secs_f32());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
        })??;
        Ok(Self { media_type, content_type, bytes, _held: held })
    }
}

async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    budget: &BodyBudget,
) -> ApiResult<(Bytes, OwnedSemaphorePermit)> {
    let too_large = || ApiError::too_large(format!("the body is larger than {limit} bytes"));
    // hyper has checked that the header is a number; a body without one is counted as it comes.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let refused = match announced {
        Some(length) if length > limit as u64 => Some(too_large()),
        Some(length) if !budget.has_room(length) => Some(full()),
        _ => None,
    };
    if let Some(error) = refused {
        discard(body);
        return Err(error);
    }
    let mut held = budget.take(0)?;
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request("incomplete_body", format!("the body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let length = buffer.len() + data.len();
        if length > limit {
            discard(body);
            return Err(too_large());
        }
        // Room is taken as bytes arrive, not as they are announced: announcing costs a client nothing.
        let wanted = length.div_ceil(UNIT).saturating_sub(held.num_permits());
        if wanted > 0 {
            match budget.take(wanted * UNIT) {
                Ok(more) => held.merge(more),
                Err(error) => {
                    discard(body);
                    return Err(error);
                }
            }
        }
        buffer.extend_from_slice(&data);
    }
    Ok((buffer.freeze(), held))
}

/// Reads on for a while and throws it away: a client that is still sending when the connection is closed would see
/// the reset and not the answer.
fn discard(mut body: Body) {
    const MOST: usize = 16 << 20;
    tokio::spawn(tokio::time::timeout(Duration::from_secs(5), async move {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > MOST {
                break;
            }
        }
    }));
}

/// Runs work that grows with `size` bytes: here if it is little, on the blocking pool if it is much.
pub async fn off_runtime<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    if size <= INLINE_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ApiError::internal("the runtime is stopping")),
    }
}

/// Parses JSON; an error says where in the document it is.
///
/// # Errors
/// 400 `malformed_json` where it is no JSON, 400 `invalid_request` where it is not what the route wants.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("malformed_json", "the body is empty; it should be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if !error.is_data() {
            return ApiError::bad_request("malformed_json", format!("the body is not valid JSON: {error}"));
        }
        let error = ApiError::bad_request("invalid_request", shortened(error.to_string()));
        if path == "." { error } else { error.at(path) }
    })?;
    deserializer.end().map_err(|error| {
        ApiError::bad_request("malformed_json", format!("the body is not valid JSON: {error}"))
    })?;
    Ok(value)
}

/// serde quotes the value that it did not expect, and that may be a whole picture.
fn shortened(message: String) -> String {
    const HEAD: usize = 240;
    const TAIL: usize = 120;
    if message.len() <= HEAD + TAIL {
        return message;
    }
    let head = &message[..message.floor_char_boundary(HEAD)];
    let tail = &message[message.ceil_char_boundary(message.len() - TAIL)..];
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where_and_stay_short() {
        let error = parse_json::<Vec<Vec<u32>>>(b"[[1],[2,\"x\"]]").unwrap_err();
        assert!(error.detail.message.starts_with("[1][1]: invalid type: string"), "{}", error.detail.message);
        assert_eq!(error.detail.param.as_deref(), Some("[1][1]"));
        let long = format!("\"{}\"", "ä".repeat(100_000));
        assert!(parse_json::<u32>(long.as_bytes()).unwrap_err().detail.message.len() < 500);
        for body in ["", "  ", "[1", "[1] x", "\u{feff}[1]"] {
            assert_eq!(
                parse_json::<Vec<u32>>(body.as_bytes()).unwrap_err().detail.code,
                "malformed_json",
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn the_budget_is_given_back() {
        let budget = BodyBudget::new(8 * UNIT);
        let read = |n: usize| read_all(n, &budget);
        let (bytes, held) = read(5 * UNIT).await.unwrap();
        assert_eq!(bytes.len(), 5 * UNIT);
        assert_eq!(read(4 * UNIT).await.unwrap_err().status, 429);
        drop(held);
        assert!(read(8 * UNIT).await.is_ok());
        assert_eq!(read(9 * UNIT).await.unwrap_err().status, 429);
        assert_eq!(read(17 * UNIT).await.unwrap_err().status, 413);
        assert!(read(8 * UNIT).await.is_ok(), "nothing was left behind");
    }

    async fn read_all(n: usize, budget: &BodyBudget) -> ApiResult<(Bytes, OwnedSemaphorePermit)> {
        read(&HeaderMap::new(), Body::from(vec![0; n]), 16 * UNIT, budget).await
    }
}
