//! Logs, traces and metrics: their set-up, and the name of every metric, in one place.

#[cfg(feature = "otlp")]
mod otlp;
mod spans;

use std::io::IsTerminal;
use std::time::Duration;

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub(crate) use spans::{batch_span, request_span};

use crate::{Error, Result};

/// See [`METRICS`].
pub const REQUEST_DURATION: &str = "siglip_request_duration_seconds";
/// See [`METRICS`].
pub const INFLIGHT: &str = "siglip_inflight_requests";
/// See [`METRICS`].
pub const REJECTED: &str = "siglip_rejected_total";
/// See [`METRICS`].
pub const CANCELLED: &str = "siglip_cancelled_total";
/// See [`METRICS`].
pub const ITEMS: &str = "siglip_items_total";
/// See [`METRICS`].
pub const QUEUE_DEPTH: &str = "siglip_queue_depth";
/// See [`METRICS`].
pub const QUEUE_WAIT: &str = "siglip_queue_wait_seconds";
/// See [`METRICS`].
pub const PREPARE_DURATION: &str = "siglip_prepare_duration_seconds";
/// See [`METRICS`].
pub const INFERENCE_DURATION: &str = "siglip_inference_duration_seconds";
/// See [`METRICS`].
pub const BATCH_ITEMS: &str = "siglip_batch_items";
/// See [`METRICS`].
pub const BATCH_TOKENS: &str = "siglip_batch_tokens";
/// See [`METRICS`].
pub const OUT_OF_MEMORY: &str = "siglip_out_of_memory_total";
/// See [`METRICS`].
pub const HANDED_ON: &str = "siglip_batches_handed_on_total";
/// See [`METRICS`].
pub const MODEL_MEMORY: &str = "siglip_model_memory_bytes";
/// See [`METRICS`].
pub const MODEL_LOADS: &str = "siglip_model_loads_total";
/// See [`METRICS`].
pub const MODEL_UNLOADS: &str = "siglip_model_unloads_total";
/// See [`METRICS`].
pub const UNUSABLE_VECTORS: &str = "siglip_unusable_vectors_total";
/// See [`METRICS`].
pub const PANICS: &str = "siglip_worker_panics_total";
/// See [`METRICS`].
pub const TEXT_CACHE_HITS: &str = "siglip_text_cache_hits_total";
/// See [`METRICS`].
pub const TEXT_CACHE_MISSES: &str = "siglip_text_cache_misses_total";
/// See [`METRICS`].
pub const TEXT_CACHE_BYTES: &str = "siglip_text_cache_bytes";

/// See [`METRICS`].
pub const CONNECTIONS: &str = "siglip_connections";
/// See [`METRICS`].
pub const CONNECTIONS_REFUSED: &str = "siglip_connections_refused_total";
/// See [`METRICS`].
pub const CONNECTIONS_CLOSED: &str = "siglip_connections_closed_total";

/// See [`METRICS`].
pub const FETCH_DURATION: &str = "siglip_fetch_duration_seconds";

/// See [`METRICS`].
pub const MEMORY: &str = "siglip_memory_bytes";
/// See [`METRICS`].
pub const MEMORY_LIMIT: &str = "siglip_memory_limit_bytes";
/// See [`METRICS`].
pub const MODEL_STATE: &str = "siglip_model_state";
/// See [`METRICS`].
pub const READY: &str = "siglip_ready";
/// See [`METRICS`].
pub const BUILD_INFO: &str = "siglip_build_info";
/// See [`METRICS`].
pub const RESIDENT_MEMORY: &str = "siglip_process_resident_memory_bytes";

/// What a metric measures with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it measures.
    pub kind: MetricKind,
    /// In what.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// From a cached text (well below a millisecond) to a request that waited for the whole queue.
const SECONDS: MetricKind = MetricKind::Histogram(&[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
]);
const ITEM_COUNTS: MetricKind =
    MetricKind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]);
const TOKEN_COUNTS: MetricKind = MetricKind::Histogram(&[
    64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0,
]);

const fn metric(
    name: &'static str,
    kind: MetricKind,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    metric(
        REQUEST_DURATION,
        SECONDS,
        Unit::Seconds,
        &["route", "method", "status"],
        "From the head of a request to the end of its answer.",
    ),
    metric(INFLIGHT, MetricKind::Gauge, Unit::Count, &[], "Requests being answered."),
    metric(CONNECTIONS, MetricKind::Gauge, Unit::Count, &["port"], "Connections open now: main, admin."),
    metric(
        CONNECTIONS_REFUSED,
        MetricKind::Counter,
        Unit::Count,
        &["port"],
        "Connections refused because there were too many and none could be closed for them.",
    ),
    metric(
        CONNECTIONS_CLOSED,
        MetricKind::Counter,
        Unit::Count,
        &["port", "reason"],
        "Connections that the service closed: share (room for another client), idle, head (no TLS handshake), stopping.",
    ),
    metric(
        MEMORY,
        MetricKind::Gauge,
        Unit::Bytes,
        &["kind"],
        "Bytes that requests hold (--max-memory): body, parsed, fetch, queue, decode, answer.",
    ),
    metric(MEMORY_LIMIT, MetricKind::Gauge, Unit::Bytes, &[], "What they may hold together (--max-memory)."),
    metric(
        MODEL_STATE,
        MetricKind::Gauge,
        Unit::Count,
        &["model", "state"],
        "1 for the state that a model is in: downloading, loading, warming, ready, unloaded, failed; else 0.",
    ),
    metric(READY, MetricKind::Gauge, Unit::Count, &[], "1 while /health/ready says yes."),
    metric(BUILD_INFO, MetricKind::Gauge, Unit::Count, &["version"], "1; what runs is in the labels."),
    metric(RESIDENT_MEMORY, MetricKind::Gauge, Unit::Bytes, &[], "Memory of the process that is in RAM."),
    metric(
        FETCH_DURATION,
        SECONDS,
        Unit::Seconds,
        &["outcome"],
        "One picture by URL, redirects included: ok, failed, refused (not an address that may be fetched from).",
    ),
    metric(
        REJECTED,
        MetricKind::Counter,
        Unit::Count,
        &["reason"],
        "Requests refused at once: queue_items, queue_bytes, too_slow (not before the deadline), memory, too_large, deadline, stopping.",
    ),
    metric(
        CANCELLED,
        MetricKind::Counter,
        Unit::Count,
        &["reason"],
        "Requests that ended without an answer: gone (the client left), deadline, stopping.",
    ),
    metric(
        ITEMS,
        MetricKind::Counter,
        Unit::Count,
        &["model", "lane", "outcome"],
        "Inputs by how they ended: ok, cached, invalid, failed, cancelled, expired, stopped.",
    ),
    metric(
        QUEUE_DEPTH,
        MetricKind::Gauge,
        Unit::Count,
        &["model", "lane"],
        "Inputs that wait for a preparation thread or for a worker.",
    ),
    metric(
        QUEUE_WAIT,
        SECONDS,
        Unit::Seconds,
        &["model", "lane"],
        "How long an input waited for a preparation thread and for a worker.",
    ),
    metric(
        PREPARE_DURATION,
        SECONDS,
        Unit::Seconds,
        &["kind"],
        "Decoding and resizing an image, canonicalising and tokenising a text.",
    ),
    metric(
        INFERENCE_DURATION,
        SECONDS,
        Unit::Seconds,
        &["model", "lane"],
        "One batch on a worker, repeated parts included.",
    ),
    metric(BATCH_ITEMS, ITEM_COUNTS, Unit::Count, &["model", "lane"], "Inputs of a batch."),
    metric(BATCH_TOKENS, TOKEN_COUNTS, Unit::Count, &["model", "lane"], "Tokens of a batch."),
    metric(
        OUT_OF_MEMORY,
        MetricKind::Counter,
        Unit::Count,
        &["model", "lane"],
        "Batches that were halved because the device had no memory left.",
    ),
    metric(
        HANDED_ON,
        MetricKind::Counter,
        Unit::Count,
        &["model", "lane"],
        "Batches that failed whole on one device and were tried on another.",
    ),
    metric(
        MODEL_MEMORY,
        MetricKind::Gauge,
        Unit::Bytes,
        &["model"],
        "Weights of a model's towers on all its devices; 0 while they are unloaded.",
    ),
    metric(MODEL_LOADS, MetricKind::Counter, Unit::Count, &["model"], "How often the towers were loaded."),
    metric(
        MODEL_UNLOADS,
        MetricKind::Counter,
        Unit::Count,
        &["model", "reason"],
        "How often the towers were unloaded: idle (--idle-unload), memory (--max-model-memory).",
    ),
    metric(
        UNUSABLE_VECTORS,
        MetricKind::Counter,
        Unit::Count,
        &["model", "lane"],
        "Vectors that were not finite or of the wrong width: answered with 500.",
    ),
    metric(
        PANICS,
        MetricKind::Counter,
        Unit::Count,
        &["model", "stage"],
        "Panics caught in a preparation (prepare) or on a worker (batch).",
    ),
    metric(
        TEXT_CACHE_HITS,
        MetricKind::Counter,
        Unit::Count,
        &["model"],
        "Texts answered without computing them: cached, or computed once for several of a batch.",
    ),
    metric(TEXT_CACHE_MISSES, MetricKind::Counter, Unit::Count, &["model"], "Texts that were computed."),
    metric(TEXT_CACHE_BYTES, MetricKind::Gauge, Unit::Bytes, &[], "Bytes of the cached text embeddings."),
];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends out what is left of the traces when dropped; keep it until the process ends.
#[must_use]
#[derive(Debug, Default)]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    _traces: Option<otlp::Traces>,
}

/// What is logged where nothing else is asked for.
pub const DEFAULT_FILTER: &str = "info";

/// Sets up logs, on standard error, for the whole process. `filter` is a directive list such as
/// `info,siglip::engine=debug`; without one `SIGLIP_LOG` or `RUST_LOG` is used, else
/// [`DEFAULT_FILTER`].
///
/// With the feature `otlp`, traces are sent to `OTEL_EXPORTER_OTLP_ENDPOINT` if that is set; they do not depend on the
/// filter.
///
/// # Errors
/// [`Error::Config`] if the filter cannot be read, if logs are set up already, or if the traces' endpoint is not one.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<Telemetry> {
    let filter = log_filter(filter, |name| std::env::var(name).ok())?;
    // Colours are for eyes: a file or a collector gets none.
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    let (registry, telemetry) = {
        let traces = otlp::Traces::from_env()?;
        (registry.with(traces.as_ref().map(otlp::Traces::layer)), Telemetry { _traces: traces })
    };
    #[cfg(not(feature = "otlp"))]
    let telemetry = Telemetry::default();
    registry.try_init().map_err(|error| Error::Config(format!("logs: {error}")))?;
    Ok(telemetry)
}

fn log_filter(asked: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter> {
    let text = asked
        .map(str::to_owned)
        .or_else(|| ["SIGLIP_LOG", "RUST_LOG"].into_iter().find_map(variable))
        .filter(|text| !text.trim().is_empty())
        .unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    EnvFilter::try_new(&text).map_err(|error| Error::Config(format!("log filter {text:?}: {error}")))
}

/// Sets up metrics for the whole process, before anything is measured; `render` of the handle is
/// the text for Prometheus. A thread keeps the histograms small where nobody collects them.
///
/// # Errors
/// [`Error::Config`] if metrics are set up already, or if the system gives no thread.
pub fn init_metrics() -> Result<PrometheusHandle> {
    let recorder = prometheus()?;
    let handle = recorder.handle();
    let failed = |error: &dyn std::fmt::Display| Error::Config(format!("metrics: {error}"));
    metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
    describe();
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(5));
                upkeep.run_upkeep();
            }
        })
        .map_err(|error| failed(&error))?;
    Ok(handle)
}

/// A recorder with the buckets of [`METRICS`], not installed.
///
/// # Errors
/// [`Error::Config`] if a histogram has no bucket.
pub fn prometheus() -> Result<PrometheusRecorder> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let MetricKind::Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .map_err(|error| Error::Config(format!("metrics: {error}")))?;
        }
    }
    Ok(builder.build_recorder())
}

/// Tells the current recorder what each metric means.
pub fn describe() {
    for &Metric { name, kind, unit, help, .. } in METRICS {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, help),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, help),
            MetricKind::Histogram(_) => metrics::describe_histogram!(name, unit, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_scheme_and_are_there_once() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        for metric in METRICS {
            let name = metric.name;
            assert!(name.starts_with("siglip_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert_eq!(name.ends_with("_bytes"), metric.unit == Unit::Bytes, "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn a_histogram_has_the_buckets_that_are_written_here() {
        let recorder = prometheus().expect("buckets");
        let text = metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::histogram!(INFERENCE_DURATION, "model" => "m", "lane" => "image").record(0.02);
            recorder.handle().render()
        });
        assert!(text.contains("# HELP siglip_inference_duration_seconds One batch on a worker"), "{text}");
        let bucket = |le: &str| {
            format!("siglip_inference_duration_seconds_bucket{{model=\"m\",lane=\"image\",le=\"{le}\"}}")
        };
        assert!(text.contains(&format!("{} 0\n", bucket("0.01"))), "{text}");
        assert!(text.contains(&format!("{} 1\n", bucket("0.025"))), "{text}");
    }

    #[test]
    fn the_filter_that_was_asked_for_wins() {
        let environment = |name: &str| (name == "RUST_LOG").then(|| "warn".to_owned());
        let filter =
            |asked, env: &dyn Fn(&str) -> Option<String>| log_filter(asked, env).map(|f| f.to_string());
        assert_eq!(filter(Some("debug"), &environment).expect("valid"), "debug");
        assert_eq!(filter(None, &environment).expect("valid"), "warn");
        assert_eq!(filter(None, &|_| None).expect("valid"), DEFAULT_FILTER);
        let error = filter(Some("siglip=loud"), &environment).expect_err("no such level").to_string();
        assert!(error.contains("siglip=loud"), "{error}");
    }
}
