//! Around every request: its id, its deadline, one log line, its metrics, its key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use crate::api::edge::client::Client;
use crate::api::edge::ending::{Counted, Ending, Note};
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::keys;
use crate::api::state::{AppState, RequestContext};
use crate::budget::Tally;
use crate::telemetry;

/// The request's id, the client's own or a new one.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Milliseconds that the client waits at most; bounded by the service's own limit.
pub const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Where the time of a request went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Gives a request its id and deadline, and when it ends writes one line to the log, its metrics, and the headers
/// of its answer.
pub async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("none", |path| path.as_str()).to_owned();
    let span = telemetry::request_span(request.method(), &route, &id, request.headers());
    let who = Client::of(&request, &state.config().api_keys, &state.config().trusted_proxies);
    let client = state.client_id(&who);
    let note = Arc::new(Note::default());
    let ending = Ending::begin(&state, &request, route, id, who, &note, span.clone());
    let limit = state.config().request_timeout;
    let (limit, invalid) = match client_timeout(request.headers()) {
        Ok(wanted) => (wanted.map_or(limit, |wanted| wanted.min(limit)), None),
        Err(error) => (limit, Some(error)),
    };
    let (deadline, tally) = (started + limit, Tally::default());
    let context = RequestContext { started, deadline, client, tally, note: Arc::clone(&note) };
    request.extensions_mut().insert(context.clone());
    let request = request.map(|body| Body::new(Counted { body, note }));
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
    ending.answer(answer)
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

/// Lets only requests pass that show a known key, where keys are asked for.
pub async fn authenticate(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let keys = &state.config().api_keys;
    let shown = keys::shown_by(&request);
    if keys.is_empty() || shown.as_ref().is_some_and(|shown| keys.contains(shown)) {
        drop(shown);
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
