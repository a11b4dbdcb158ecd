//! How a request ended: one line in the log and its metrics, once its answer is out.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use metrics::{gauge, histogram};
use tracing::Span;

use crate::api::edge::client::Client;
use crate::api::edge::error::{ApiError, shortened};
use crate::api::edge::lifecycle::Phase;
use crate::api::edge::middleware::{REQUEST_ID, SERVER_TIMING};
use crate::api::state::AppState;
use crate::engine::Timings;
use crate::telemetry;

/// Bytes of a path in the log at most.
const LOGGED_PATH: usize = 256;
/// A client that hung up before its answer, as nginx logs it; no client sees it.
const CLIENT_GONE: u16 = 499;
/// A request that the service dropped without an answer as it ended; no client sees it.
const STOPPED: u16 = 503;

/// Beginnings of the routes that probes and scrapers ask all day, ours and those of dialects.
const PROBES: [&str; 5] = ["/health", "/metrics", "/ping", "/.well-known/", "/v2/health/"];

/// What the routes learn of a request, for its line in the log.
#[derive(Debug, Default)]
pub struct Note {
    model: OnceLock<String>,
    inputs: AtomicU64,
    received: AtomicU64,
}

impl Note {
    /// The request has so many inputs for a model.
    pub fn work(&self, model: &str, inputs: usize) {
        let _ = self.model.set(model.to_owned());
        self.inputs.fetch_add(inputs as u64, Ordering::Relaxed);
    }
}

/// The body of a request, counted as it is read.
pub struct Counted {
    /// The body.
    pub body: Body,
    /// Where it is counted.
    pub note: Arc<Note>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.note.received.fetch_add(bytes, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is known of a request. It is logged and counted when this is dropped: with its answer's body, or alone when
/// its client hangs up before.
pub struct Ending {
    state: AppState,
    id: String,
    route: String,
    method: Method,
    path: String,
    client: Client,
    note: Arc<Note>,
    started: Instant,
    span: Span,
    /// The status, once there is an answer.
    status: Option<u16>,
    error: Option<ApiError>,
    sent: u64,
    /// Why the answer was not taken to its end.
    cut: Option<&'static str>,
}

impl Ending {
    /// A request has come.
    pub fn begin(
        state: &AppState,
        request: &Request,
        route: String,
        id: String,
        client: Client,
        note: &Arc<Note>,
        span: Span,
    ) -> Self {
        gauge!(telemetry::INFLIGHT).increment(1.0);
        Self {
            state: state.clone(),
            id,
            route,
            method: request.method().clone(),
            path: shortened(request.uri().path(), LOGGED_PATH).into_owned(),
            client,
            note: Arc::clone(note),
            started: Instant::now(),
            span,
            status: None,
            error: None,
            sent: 0,
            cut: None,
        }
    }

    /// Gives an answer its headers, and a body that tells when it is out.
    pub fn answer(mut self, mut answer: Response) -> Response {
        self.status = Some(answer.status().as_u16());
        self.error = answer.extensions().get::<ApiError>().cloned();
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
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Ok(timing) = HeaderValue::from_str(&server_timing(timings, self.started.elapsed())) {
            headers.insert(SERVER_TIMING, timing);
        }
        // An error is a value here; who writes it has no use for this body.
        let complete = self.error.is_some() || self.method == Method::HEAD;
        answer.map(|body| {
            Body::new(Observed { complete: complete || body.is_end_stream(), body, ending: self })
        })
    }

    fn record(&self) {
        let elapsed = self.started.elapsed();
        gauge!(telemetry::INFLIGHT).decrement(1.0);
        let stopped = self.state.lifecycle().phase() == Phase::Ended;
        let (status, outcome) = match (self.status, self.cut, &self.error) {
            (None, ..) if stopped => (STOPPED, "server stopped"),
            (None, ..) => (CLIENT_GONE, "client left"),
            (Some(status), Some(_), _) if stopped => (status, "server stopped"),
            (Some(status), Some(cut), _) => (status, cut),
            (Some(status), None, Some(error)) => (status, error.detail.code.as_ref()),
            (Some(status), None, None) if status < 400 => (status, "ok"),
            (Some(status), None, None) => (status, "error"),
        };
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

        let Self { id, method, path, client, sent, .. } = self;
        let ms = (elapsed.as_secs_f64() * 1e5).round() / 1e2;
        let model = self.note.model.get().map(String::as_str);
        let inputs = model.map(|_| self.note.inputs.load(Ordering::Relaxed));
        let received = self.note.received.load(Ordering::Relaxed);
        let error = self.error.as_ref().map(|e| e.cause.as_deref().unwrap_or(&e.detail.message));
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "siglip::access",
                    request_id = %id, %client, %method, %path, status, outcome, ms, model, inputs, received, sent, error
                )
            };
        }
        match &self.error {
            Some(_) if status >= 500 && status != 503 => line!(error),
            None if PROBES.iter().any(|beginning| self.route.starts_with(beginning)) => line!(debug),
            _ => line!(info),
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.record();
    }
}

/// The body of an answer, which knows when it is out.
struct Observed {
    body: Body,
    ending: Ending,
    /// Whether all of it was handed on, or nobody wants it.
    complete: bool,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.ending.sent += frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) => self.ending.cut = Some("answer failed"),
            None => {}
        }
        self.complete |= frame.is_none() || self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // An answer with an error status may have been replaced by one in our shape.
        let failed = self.ending.status.is_some_and(|status| status >= 400);
        if !self.complete && !failed {
            self.ending.cut.get_or_insert("client left");
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
