//! Errors as values: the status that says whose turn it is, a bounded message, and for faults of ours what the log says.
//! [`super::render`] writes them.
//!
//! 400 the request is malformed · 401 no valid key · 404 no such route, model or label set · 405 method ·
//! 406 no answer in a format the client takes · 408 the body came too slowly · 409 as many label sets as may be ·
//! 412 another embedding space or version · 413 too large ·
//! 415 a body of a kind the route does not read · 422 an input was understood and cannot be used ·
//! 429 no room, come back · 500 a fault of the service · 502 another server that was asked failed · 503 starting, stopping, or labels being encoded · 504 deadline.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::budget::Exceeded;
use crate::engine::{EngineError, WorkError};
use crate::labels::LabelError;
use crate::{Error, telemetry};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// One sentence for a person; where one input is at fault it names it (`input[3]: …`).
    #[schema(example = "input[3]: the image is empty (0 bytes)")]
    pub message: String,
    /// The class of the error.
    #[serde(rename = "type")]
    pub kind: ErrorKind,
    /// The field or input at fault, where there is one.
    #[schema(example = "input[3]")]
    pub param: Option<String>,
    /// A name for programs.
    #[schema(value_type = String, example = "invalid_image")]
    pub code: Cow<'static, str>,
}

/// Classes of errors; each belongs to one or a few statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::enum_variant_names, reason = "the names on the wire come of them")]
pub enum ErrorKind {
    /// The caller must change the request.
    InvalidRequestError,
    /// The caller must send a valid API key.
    AuthenticationError,
    /// There is no such route or model.
    NotFoundError,
    /// The service is at a limit: the same request may pass later.
    RateLimitError,
    /// The request was not finished in time.
    TimeoutError,
    /// The service is starting or stopping.
    UnavailableError,
    /// A fault of the service.
    ServerError,
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub detail: Box<ErrorDetail>,
    /// When to come back, for 429 and 503.
    pub retry_after: Option<Duration>,
    /// What the log says of a fault of ours. The caller is not told.
    pub cause: Option<Box<str>>,
}

/// Bytes of a message at most. With the place of the error, all of it quoted twice, an answer stays below 2 kB.
const MESSAGE_BYTES: usize = 600;
/// Bytes of the name of a field or input at most.
const PARAM_BYTES: usize = 96;
/// Bytes of a cause in the log at most.
const CAUSE_BYTES: usize = 2000;
/// What the caller is told of a fault of ours.
const FAULT: &str = "the service failed on this request; its log says why";

/// A text in at most about `most` bytes: the middle is left out, and control characters become spaces. Callers' texts may
/// be as long as a body, so none gets into a message in another way.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    let printable = |part: &str| part.replace(|c: char| c.is_control(), " ");
    if text.len() <= most {
        let clean = !text.contains(|c: char| c.is_control());
        return if clean { Cow::Borrowed(text) } else { Cow::Owned(printable(text)) };
    }
    let head = &text[..text.floor_char_boundary(most * 2 / 3)];
    let tail = &text[text.ceil_char_boundary(text.len() - most / 3)..];
    Cow::Owned(format!("{}…{}", printable(head), printable(tail)))
}

/// What a caller sent, in quotation marks and shortened.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text, 80))
}

/// The result of everything in this room.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error of a status; its type follows from it.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let kind = match status.as_u16() {
            401 => ErrorKind::AuthenticationError,
            404 => ErrorKind::NotFoundError,
            429 => ErrorKind::RateLimitError,
            408 | 504 => ErrorKind::TimeoutError,
            503 => ErrorKind::UnavailableError,
            400..=499 => ErrorKind::InvalidRequestError,
            _ => ErrorKind::ServerError,
        };
        let message = shortened(&message.into(), MESSAGE_BYTES).into_owned();
        let detail = ErrorDetail { message, kind, param: None, code: Cow::Borrowed(code) };
        Self { status, detail: Box::new(detail), retry_after: None, cause: None }
    }

    /// 404: there is no such route; `guide` lists those that there are.
    pub fn no_route(method: &Method, uri: &Uri, guide: &str) -> Self {
        let message =
            format!("there is no route {method} {}; {guide} lists them", shortened(uri.path(), 256));
        Self::new(StatusCode::NOT_FOUND, "route_not_found", message)
    }

    /// 400: the request is malformed.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 422: the request was understood, but something in it cannot be used.
    pub fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// 422 for one field: `param: message`.
    pub fn field(param: &str, message: impl Into<String>) -> Self {
        Self::unprocessable("invalid_value", message).at(param)
    }

    /// 413: the request is larger than a limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    }

    /// 429: there is no room now.
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// 504: not finished in time.
    pub fn deadline(limit: Duration) -> Self {
        EngineError::Deadline(limit).into()
    }

    /// 500: a fault of ours. The caller gets a fixed text, the log gets `cause`.
    pub fn internal(cause: impl AsRef<str>) -> Self {
        Self::fault("internal_error", cause.as_ref())
    }

    fn fault(code: &'static str, cause: &str) -> Self {
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, FAULT);
        Self { cause: Some(shortened(cause, CAUSE_BYTES).into()), ..error }
    }

    /// Says which field or input is at fault.
    pub fn at(mut self, param: impl AsRef<str>) -> Self {
        let param = shortened(param.as_ref(), PARAM_BYTES).into_owned();
        self.detail.message = format!("{param}: {}", self.detail.message);
        self.detail.param = Some(param);
        self
    }

    /// Whether it is about one input, the others of the request being fine: it cannot be used, or it came too late.
    pub fn is_of_one_input(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 413 | 422 | 502 | 504)
    }
}

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        if exceeded.never_fits {
            let message = format!("the request is larger than the service takes at once: {exceeded}");
            return Self::too_large(message);
        }
        metrics::counter!(telemetry::REJECTED, "reason" => "memory").increment(1);
        let message = format!("the service is at its limit ({exceeded}); try again in 1 s");
        Self::overloaded(message, Duration::from_secs(1))
    }
}

impl From<&Error> for ApiError {
    fn from(error: &Error) -> Self {
        match error {
            Error::Image(image) => Self::unprocessable("invalid_image", image.to_string()),
            Error::Text(text) => Self::unprocessable("invalid_text", text.to_string()),
            Error::Request(message) => Self::unprocessable("unsupported_by_model", message.clone()),
            Error::Compute(_) | Error::Checkpoint(_) | Error::Config(_) | Error::Io { .. } => {
                Self::internal(error.to_string())
            }
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<WorkError> for ApiError {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Model(error) => error.into(),
            WorkError::Engine(error) => error.into(),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Overloaded { retry_after, .. } => Self::overloaded(message, retry_after),
            EngineError::TooLarge(_) => Self::too_large(message),
            EngineError::Deadline(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message),
            EngineError::ShuttingDown => {
                let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message);
                Self { retry_after: Some(Duration::from_secs(1)), ..error }
            }
            EngineError::Worker(_) => Self::fault("worker_failed", &message),
            EngineError::Loading { retry_after, .. } => {
                let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "model_loading", message);
                Self { retry_after: Some(retry_after), ..error }
            }
            EngineError::NameTaken { .. } => Self::new(StatusCode::CONFLICT, "name_taken", message),
            EngineError::UnknownModel { .. } => {
                let mut error = Self::new(StatusCode::NOT_FOUND, "model_not_found", message);
                error.detail.param = Some("model".to_owned());
                error
            }
        }
    }
}

impl From<LabelError> for ApiError {
    fn from(error: LabelError) -> Self {
        let message = error.to_string();
        let later = |code, after| {
            let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message.clone());
            Self { retry_after: Some(after), ..error }
        };
        match error {
            LabelError::Invalid { field, message } => Self::field(&field, message),
            LabelError::TooLarge { field, message } => Self::too_large(message).at(field),
            LabelError::Full { .. } => Self::new(StatusCode::CONFLICT, "too_many_label_sets", message),
            LabelError::Unknown { .. } | LabelError::UnknownVersion { .. } => {
                let mut error = Self::new(StatusCode::NOT_FOUND, "label_set_not_found", message);
                error.detail.param = Some("label_set".to_owned());
                error
            }
            LabelError::Changed { .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "version_mismatch", message).at("If-Match")
            }
            LabelError::Encoding { retry_after, .. } => later("label_set_encoding", retry_after),
            LabelError::Failed { .. } => later("label_set_failed", Duration::from_secs(30)),
            LabelError::Memory(exceeded) => exceeded.into(),
            LabelError::Engine(error) => error.into(),
            LabelError::Fault(cause) => Self::internal(cause),
        }
    }
}

impl IntoResponse for ApiError {
    /// The status, the headers and the error itself: [`super::render`] writes the body.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers
                .insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs_f64().ceil().max(1.0) as u64));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_is_long_whatever_was_sent() {
        for text in ["x".repeat(1 << 20), "\u{1}".repeat(1 << 20), "\"".repeat(1 << 20), "ä…".repeat(1 << 20)]
        {
            let error = ApiError::bad_request("invalid_request", format!("unknown field `{text}`"))
                .at(&text)
                .at(&text);
            let body = serde_json::to_string(&ErrorBody { error: *error.detail }).unwrap();
            assert!(body.len() < 2000, "{}", body.len());
            let fault = ApiError::internal(&text);
            assert!(fault.cause.unwrap().len() < 7000 && !fault.detail.message.contains(&text[..2]));
            assert!(quoted(&text).len() < 300);
        }
        assert_eq!(shortened("a photo", 7), "a photo");
        assert_eq!(shortened("a\nb", 7), "a b");
        assert_eq!(shortened("123456789", 6), "1234…89");
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let after = |seconds| {
            let response = ApiError::overloaded("full", Duration::from_secs_f32(seconds)).into_response();
            response.headers()[header::RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!((after(0.2), after(1.0), after(1.9)), ("1".into(), "1".into(), "2".into()));
    }
}
