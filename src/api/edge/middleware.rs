//! Around every request: its id, its deadline, one log line, its metrics, its key.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{gauge, histogram};
use tracing::{Instrument, Span};

use crate::api::edge::client::Client;
use crate::api::edge::error::{ApiError, ApiResult, shortened};
use crate::api::edge::keys;
use crate::api::state::{AppState, RequestContext};
use crate::engine::Timings;
use crate::telemetry;

/// The request's id, the client's own or a new one.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Milliseconds that the client waits at most; bounded by the service's own limit.
pub const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Where the time of a request went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Bytes of a path in the log at most.
const LOGGED_PATH: usize = 256;
/// A client that hung up, as nginx logs it; no client sees it.
const CLIENT_GONE: u16 = 499;

/// Gives a request its id and deadline, and when it ends writes one line to the log, its metrics, and the headers
/// of its answer.
pub async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("none", |path| path.as_str()).to_owned();
    let span = telemetry::request_span(request.method(), &route, &id, request.headers());
    let ending = Ending::new(id.clone(), route, &request, started, span.clone());
    let limit = state.config().request_timeout;
    let (limit, invalid) = match client_timeout(request.headers()) {
        Ok(wanted) => (wanted.map_or(limit, |wanted| wanted.min(limit)), None),
        Err(error) => (limit, Some(error)),
    };
    let who = Client::of(&request, &state.config().api_keys, &state.config().trusted_proxies);
    let client = state.client_id(&who);
    let context = RequestContext { started, deadline: started + limit, who, client };
    request.extensions_mut().insert(context.clone());
    let answer = match invalid {
        Some(error) => error.into_response(),
        // The engine is told the deadline too; this covers the reading of bodies and fetching by URL.
        None => {
            match tokio::time::timeout_at(context.deadline.into(), next.run(request).instrument(span)).await {
                Ok(answer) => answer,
                Err(_) => context.late().into_response(),
            }
        }
    };
    ending.finish(answer, &id)
}

fn request_id(headers: &HeaderMap) -> String {
    const LONGEST: usize = 128;
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if !id.is_empty() && id.len() <= LONGEST => id.to_owned(),
        _ => uuid::Uuid::new_v4().to_string(),
    }
}

fn client_timeout(headers: &HeaderMap) -> ApiResult<Option<Duration>> {
    let Some(value) = headers.get(REQUEST_TIMEOUT) else { return Ok(None) };
    let millis = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()).filter(|&ms| ms > 0);
    millis.map(|ms| Some(Duration::from_millis(ms))).ok_or_else(|| {
        ApiError::bad_request("invalid_header", "should be a number of milliseconds greater than 0")
            .at(REQUEST_TIMEOUT.as_str())
    })
}

/// What is known of a request when it ends. Dropped without an answer when its client hangs up.
struct Ending {
    id: String,
    route: String,
    method: Method,
    path: String,
    started: Instant,
    span: Span,
    over: bool,
}

impl Ending {
    fn new(id: String, route: String, request: &Request, started: Instant, span: Span) -> Self {
        gauge!(telemetry::INFLIGHT).increment(1.0);
        let path = request.uri().path().to_owned();
        Self { id, route, method: request.method().clone(), path, started, span, over: false }
    }

    fn finish(mut self, mut answer: Response, id: &str) -> Response {
        self.over = true;
        self.record(answer.status().as_u16(), answer.extensions().get::<ApiError>());
        let timings = answer.extensions_mut().remove::<Timings>();
        if let Some(timings) = &timings {
            for (stage, took) in [
                ("decode_ms", timings.decode),
                ("tokenize_ms", timings.tokenize),
                ("queue_ms", timings.queue),
                ("inference_ms", timings.inference),
            ] {
                self.span.record(stage, took.as_secs_f64() * 1e3);
            }
        }
        let headers = answer.headers_mut();
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Ok(timing) = HeaderValue::from_str(&server_timing(timings, self.started.elapsed())) {
            headers.insert(SERVER_TIMING, timing);
        }
        answer
    }

    fn record(&self, status: u16, error: Option<&ApiError>) {
        let elapsed = self.started.elapsed();
        gauge!(telemetry::INFLIGHT).decrement(1.0);
        self.span.record("http.response.status_code", status);
        if status >= 500 {
            self.span.record("otel.status_code", "ERROR");
        }
        // The method is one of a few, or `other`: a label must not grow with what clients send.
        let method = match self.method {
            Method::GET | Method::POST | Method::HEAD | Method::OPTIONS => self.method.as_str().to_owned(),
            _ => "other".to_owned(),
        };
        let labels = [("route", self.route.clone()), ("method", method), ("status", status.to_string())];
        histogram!(telemetry::REQUEST_DURATION, &labels).record(elapsed.as_secs_f64());

        let ms = elapsed.as_secs_f64() * 1e3;
        let (id, method, path) = (&self.id, &self.method, &self.path);
        let path = shortened(path, LOGGED_PATH);
        match error.map(|e| (&e.detail.code, e.cause.as_deref().unwrap_or(&e.detail.message))) {
            Some((code, error)) if status >= 500 && status != 503 => {
                tracing::error!(target: "siglip::access", request_id = %id, %method, %path, status, ms, %code, %error);
            }
            Some((code, error)) => {
                tracing::info!(target: "siglip::access", request_id = %id, %method, %path, status, ms, %code, %error);
            }
            None if self.route.starts_with("/health") || self.route == "/metrics" => {
                tracing::debug!(target: "siglip::access", request_id = %id, %method, %path, status, ms);
            }
            None => tracing::info!(target: "siglip::access", request_id = %id, %method, %path, status, ms),
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.over {
            self.record(CLIENT_GONE, None);
        }
    }
}

/// <https://www.w3.org/TR/server-timing/>: durations in milliseconds.
fn server_timing(timings: Option<Timings>, total: Duration) -> String {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let total = ms(total);
    match timings {
        None => format!("total;dur={total:.2}"),
        Some(t) => format!(
            "decode;dur={:.2}, tokenize;dur={:.2}, queue;dur={:.2}, inference;dur={:.2}, total;dur={total:.2}",
            ms(t.decode),
            ms(t.tokenize),
            ms(t.queue),
            ms(t.inference)
        ),
    }
}

/// Lets only requests pass that show a known key, where keys are asked for.
pub async fn authenticate(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let keys = &state.config().api_keys;
    let shown = keys::shown(request.headers());
    if keys.is_empty() || shown.is_some_and(|shown| keys.contains(shown)) {
        return next.run(request).await;
    }
    let message = match shown {
        None => "an API key is needed: send it as Authorization: Bearer <key>",
        Some(_) => "the API key is not valid",
    };
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response()
}

/// A handler panicked; the log has the message from the panic hook.
pub fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::internal("a handler panicked").into_response()
}
