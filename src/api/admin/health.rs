//! `/health`, `/health/live`, `/health/ready` and `/metrics`. None of them asks for a key.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::gauge;

use crate::api::edge::error::ApiError;
use crate::api::native::schema::{Health, HealthStatus, ModelHealth, Readiness};
use crate::api::state::AppState;
use crate::budget::MemoryKind;
use crate::engine::ModelState;
use crate::telemetry;

/// Whether the service takes requests, and what it is.
#[utoipa::path(
    get, path = "/health", tag = "operations", operation_id = "health", security(()),
    responses(
        (status = 200, description = "It takes requests", body = Health),
        (status = 503, description = "It is starting, failing or stopping", body = Health),
    )
)]
pub async fn health(State(state): State<AppState>) -> Response {
    let status = status(&state);
    let models = state.engine().status().into_iter().map(|model| model.name).collect();
    let body = Health { status, version: env!("CARGO_PKG_VERSION").to_owned(), models };
    (code(status), Json(body)).into_response()
}

/// Whether the process is worth keeping: 503 where a model fails on every batch, which on a lost GPU only a restart
/// mends.
#[utoipa::path(
    get, path = "/health/live", tag = "operations", operation_id = "health_live", security(()),
    responses(
        (status = 200, description = "It lives", body = String, content_type = "text/plain"),
        (status = 503, description = "A model fails on every batch", body = String, content_type = "text/plain"),
    )
)]
pub async fn live(State(state): State<AppState>) -> (StatusCode, &'static str) {
    if state.engine().failing() {
        (StatusCode::SERVICE_UNAVAILABLE, "failing\n")
    } else {
        (StatusCode::OK, "live\n")
    }
}

/// Whether requests should be sent here, and how each model is.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations", operation_id = "health_ready", security(()),
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Starting, failing or stopping", body = Readiness),
    )
)]
pub async fn ready(State(state): State<AppState>) -> Response {
    let status = status(&state);
    let models = state.engine().status().iter().map(ModelHealth::of).collect();
    (code(status), Json(Readiness { status, models })).into_response()
}

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "metrics", security(()),
    responses(
        (status = 200, description = "Counters, gauges and histograms of every stage", body = String,
         content_type = "text/plain"),
        (status = 404, description = "The service runs without metrics", body = crate::api::edge::error::ErrorBody),
    )
)]
pub async fn metrics(State(state): State<AppState>) -> Response {
    take_stock(&state);
    match state.metrics() {
        Some(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        None => ApiError::new(StatusCode::NOT_FOUND, "no_metrics", "the service runs without metrics")
            .into_response(),
    }
}

/// Sets the gauges that nobody keeps up to date.
fn take_stock(state: &AppState) {
    for kind in MemoryKind::ALL {
        gauge!(telemetry::MEMORY, "kind" => kind.name()).set(state.memory().of_kind(kind) as f64);
    }
    gauge!(telemetry::MEMORY_LIMIT).set(state.memory().limit() as f64);
    for model in state.engine().status() {
        for label in ModelState::LABELS {
            let is = if model.state.label() == label { 1.0 } else { 0.0 };
            gauge!(telemetry::MODEL_STATE, "model" => model.name.clone(), "state" => label).set(is);
        }
    }
    gauge!(telemetry::READY).set(if status(state) == HealthStatus::Ok { 1.0 } else { 0.0 });
    gauge!(telemetry::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    if let Some(bytes) = resident_memory() {
        gauge!(telemetry::RESIDENT_MEMORY).set(bytes as f64);
    }
}

/// `VmRSS` of proc_pid_status(5); none where there is no such file.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn status(state: &AppState) -> HealthStatus {
    if state.is_draining() {
        HealthStatus::Draining
    } else if state.engine().failing() {
        HealthStatus::Failing
    } else if state.engine().ready() {
        HealthStatus::Ok
    } else if state.engine().status().iter().any(|model| model.state.is_starting()) {
        HealthStatus::Starting
    } else {
        HealthStatus::Failing
    }
}

fn code(status: HealthStatus) -> StatusCode {
    if status == HealthStatus::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
