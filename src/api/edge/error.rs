//! Errors as they leave the service: one JSON shape, the status that says whose turn it is.
//!
//! 400 the request is malformed · 401 no valid key · 404 no such route or model · 405 method ·
//! 406 no answer in a format the client takes · 408 the body came too slowly · 413 too large ·
//! 415 a body of a kind the route does not read · 422 an input was understood and cannot be used ·
//! 429 no room, come back · 500 a fault of the service · 503 starting or stopping · 504 deadline.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::budget::Exceeded;
use crate::engine::EngineError;
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
        let detail = ErrorDetail { message: message.into(), kind, param: None, code: Cow::Borrowed(code) };
        Self { status, detail: Box::new(detail), retry_after: None }
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

    /// 500 with a message that tells the caller no more than that.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// Says which field or input is at fault.
    pub fn at(mut self, param: impl Into<String>) -> Self {
        let param = param.into();
        self.detail.message = format!("{param}: {}", self.detail.message);
        self.detail.param = Some(param);
        self
    }

    /// Whether the fault lies in the input itself, so that the other inputs of the request are fine.
    pub fn is_of_the_input(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 413 | 422)
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
            Error::Engine(engine) => engine.clone().into(),
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
            EngineError::Worker(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "worker_failed", message),
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

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: (*self.detail).clone() };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The access log reads it from here, so that an error is logged once and in one place.
        response.extensions_mut().insert(self);
        response
    }
}

/// Puts answers of libraries (a plain text with an error status) into our shape.
pub async fn in_our_shape(response: Response) -> Response {
    let status = response.status();
    let ours = response.extensions().get::<ApiError>().is_some();
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    let plain_health = status == StatusCode::SERVICE_UNAVAILABLE;
    if ours || json || plain_health || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let reason = status.canonical_reason().unwrap_or("error").to_ascii_lowercase();
    ApiError::new(status, "http_error", reason).into_response()
}
