//! `siglip serve`: loads the models, binds the port, serves until it is told to stop.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use super::error::{Result, failed};
use crate::api::{self, AppState};
use crate::checkpoint::HubOptions;
use crate::config::{ComputeArgs, ModelChoice, ServeArgs, ServeConfig};
use crate::engine::{Engine, EngineError, Model, PipelineModel};
use crate::telemetry;

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// If the configuration is not valid, a model cannot be loaded, or the port cannot be bound; and if the service
/// was told to stop and could not finish in time.
pub(super) fn run(args: ServeArgs, log: Option<&str>) -> Result<ExitCode> {
    let _telemetry = telemetry::init(args.log_format, log)?;
    let config = ServeConfig::try_from(args)?;
    let metrics = telemetry::init_metrics()?;
    config.compute.start_threads()?;
    // Bound before the models are loaded: a taken port is known at once, and early clients wait in the backlog.
    let listener = TcpListener::bind(config.address)
        .map_err(|error| failed(format!("cannot listen on {}: {error}", config.address)))?;
    let address = listener.local_addr().unwrap_or(config.address);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .max_blocking_threads(128)
        .build()
        .map_err(|error| failed(format!("no threads for the service: {error}")))?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    if config.api.api_keys.is_empty() && !config.address.ip().is_loopback() {
        tracing::warn!("no --api-key: whoever reaches {address} may use the service");
    }
    let stopped = runtime.block_on(async move {
        let engine = Engine::start(config.engine);
        for choice in &config.models {
            engine.insert(&[&choice.name], load(choice, &config.compute)?)?;
        }
        let state = AppState::new(engine.clone(), config.api, Some(Arc::new(move || metrics.render())));
        let shutdown = signal()?;
        tracing::info!(
            "listening on {scheme}://{address}, warming up; {scheme}://{address}/docs says the rest"
        );
        tokio::spawn(async move {
            match engine.warmed_up().await {
                Ok(()) => tracing::info!("ready"),
                Err(EngineError::ShuttingDown) => {}
                Err(error) => tracing::error!(%error, "the warm-up failed: the service stays not ready"),
            }
        });
        let router = api::app(state.clone());
        api::serve(listener, router, state, config.tls, config.drain_timeout, shutdown)
            .await
            .map_err(|error| failed(format!("{address}: {error}")))
    })?;
    if stopped.engine.abandoned > 0 {
        let message =
            format!("stopped with {} inputs unanswered (--drain-timeout)", stopped.engine.abandoned);
        return Err(failed(message));
    }
    tracing::info!("stopped after {:.1} s; nothing was left", stopped.took.as_secs_f32());
    Ok(ExitCode::SUCCESS)
}

/// Loads one model.
fn load(choice: &ModelChoice, compute: &ComputeArgs) -> Result<Arc<dyn Model>> {
    let started = Instant::now();
    let options = compute.load_options(Some(choice.name.clone()));
    let model = PipelineModel::open(&choice.reference, &HubOptions::default(), &options)?;
    let info = model.info();
    tracing::info!(
        name = choice.name,
        source = info.source,
        dimensions = info.embedding_dim,
        dtype = ?info.dtype,
        device = ?info.device,
        fingerprint = info.fingerprint,
        "opened in {:.1} s",
        started.elapsed().as_secs_f32()
    );
    Ok(Arc::new(model))
}

/// Ready when the process is told to stop. The handlers are installed before the service says that it listens.
fn signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let no_signals = |error: std::io::Error| failed(format!("signals: {error}"));
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    {
        let mut interrupt = tokio::signal::windows::ctrl_c().map_err(no_signals)?;
        Ok(async move {
            interrupt.recv().await;
        })
    }
}
