//! The spans that traces are made of. Below the level that is logged by default, so that log lines stay short.

use std::collections::HashSet;

use http::{HeaderMap, Method};
use tracing::Span;
use tracing::field::Empty;

/// All spans have this target, by which traces pick them.
pub(super) const TARGET: &str = "siglip::trace";

/// The span of one request, with the names of OpenTelemetry's conventions for HTTP servers. It continues the trace that
/// the `traceparent` header names (W3C Trace Context), where traces are sent at all.
pub(crate) fn request_span(method: &Method, route: &str, request_id: &str, headers: &HeaderMap) -> Span {
    let span = tracing::debug_span!(
        target: TARGET,
        "request",
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
        request_id,
        decode_ms = Empty,
        tokenize_ms = Empty,
        queue_ms = Empty,
        inference_ms = Empty,
    );
    #[cfg(feature = "otlp")]
    super::otlp::continue_trace(&span, headers);
    #[cfg(not(feature = "otlp"))]
    let _ = headers;
    span
}

/// The span of one batch on a worker, linked to the requests that have inputs in it.
pub(crate) fn batch_span<'a>(
    model: &str,
    lane: &str,
    items: usize,
    tokens: usize,
    requests: impl Iterator<Item = &'a Span>,
) -> Span {
    let span = tracing::debug_span!(target: TARGET, parent: None, "batch", model, lane, items, tokens);
    if !span.is_disabled() {
        let mut linked = HashSet::new();
        for request in requests.filter_map(Span::id) {
            if linked.insert(request.clone()) {
                span.follows_from(request);
            }
        }
    }
    span
}
