//! `siglip serve`: answers from the first moment on, loads the models beside that, and ends in order.

mod signals;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::error::{Result, failed};
use crate::api::{self, ApiConfig, AppState, Port, Stopped};
use crate::config::label_sets::LabelSetConfig;
use crate::config::{ServeArgs, ServeConfig, environment};
use crate::engine::{Engine, EngineError, ModelState, Progress};
use crate::labels::{Condition, LabelSets};
use crate::telemetry;
use signals::Signals;

/// Connections of operators: probes and scrapers.
const ADMIN_CONNECTIONS: usize = 64;

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// If the configuration is not valid, the port cannot be bound, or no model can be loaded.
pub(super) fn run(args: ServeArgs, log: Option<&str>) -> Result<ExitCode> {
    let telemetry = telemetry::init(args.log_format, log)?;
    environment::warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let config = ServeConfig::try_from(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .max_blocking_threads(128)
        .build()
        .map_err(|error| failed(format!("no threads for the service: {error}")))?;
    let stopped = runtime.block_on(serve(config));
    // Whatever hangs on the blocking pool (a fetch, a device that does not answer) is left behind.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let stopped = stopped?;
    let seconds = stopped.took.as_secs_f32();
    if stopped.requests > 0 {
        tracing::error!(
            "stopped after {seconds:.1} s; {} requests with {} inputs were answered 503 (--drain-timeout)",
            stopped.requests,
            stopped.engine.abandoned
        );
        drop(telemetry);
        return Ok(ExitCode::FAILURE);
    }
    tracing::info!("stopped after {seconds:.1} s; nothing was left");
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: ServeConfig) -> Result<Stopped> {
    // First of all: a process with the id 1 ignores signals that it has no handler for.
    let signals = Signals::install()?;
    let metrics = telemetry::init_metrics()?;
    let listeners = listen(&config.addresses, "--port")?;
    let admin = listen(&config.admin, "--admin-port")?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let open = config.api.api_keys.is_empty();
    for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
        tracing::info!("listening on {scheme}://{address}; {scheme}://{address}/docs says the rest");
        if open && !address.ip().is_loopback() {
            tracing::warn!("no --api-key: whoever reaches {address} may use the service");
        }
    }

    config.compute.start_threads()?;
    let engine = Engine::start(config.engine);
    for choice in config.models {
        let compute = config.compute.clone();
        let names: Vec<&str> = choice.names().collect();
        let loader = {
            let choice = choice.clone();
            move |progress: &Progress| choice.load(&compute, progress)
        };
        engine.add(&names, loader)?;
    }
    let labels = label_sets(&engine, &config.api, config.labels).await?;
    tokio::spawn(labels.clone().keep_up());
    let render = Arc::new(move || metrics.render());
    let state = AppState::with_label_sets(engine.clone(), config.api, Some(render), labels);
    let mut ports = vec![Port {
        name: "main",
        listeners,
        router: api::app(state.clone()),
        tls: config.tls,
        max_connections: state.config().max_connections,
    }];
    if !admin.is_empty() {
        for address in admin.iter().filter_map(|listener| listener.local_addr().ok()) {
            tracing::info!("operators: http://{address}/metrics");
        }
        let router = api::admin(state.clone());
        ports.push(Port {
            name: "admin",
            listeners: admin,
            router,
            tls: None,
            max_connections: ADMIN_CONNECTIONS,
        });
    }

    let (useless, no_model) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        if let Some(reasons) = started(&engine).await {
            let _ = useless.send(reasons);
        }
    });
    let drain = config.drain;
    let (why, mut useless_because) = tokio::sync::oneshot::channel();
    let shutdown = async move {
        tokio::select! {
            () = signals.ended(drain.delay + drain.timeout) => {}
            Ok(reasons) = no_model => {
                let _ = why.send(reasons);
            }
        }
    };
    #[cfg(all(feature = "heif", target_os = "linux"))]
    tokio::task::spawn_blocking(|| {
        if let Err(error) = crate::image::check_heif_child() {
            tracing::warn!("{error}");
        }
    });
    let stopped = api::serve(ports, state, drain, shutdown).await;
    if let Ok(reasons) = useless_because.try_recv() {
        return Err(failed(format!("no model could be loaded: {reasons}")));
    }
    stopped.map_err(|error| failed(format!("the sockets: {error}")))
}

/// The label sets that are kept, and those of the command line, which replace others of their names.
async fn label_sets(
    engine: &Engine,
    api: &ApiConfig,
    LabelSetConfig { sets: given, backgrounds, data_dir }: LabelSetConfig,
) -> Result<LabelSets> {
    let (engine, memory, most) = (engine.clone(), api.memory.clone(), api.max_label_sets);
    let opened = tokio::task::spawn_blocking(move || {
        let sets = match data_dir {
            Some(data) => LabelSets::open(engine, memory, most, &data)
                .map_err(|error| failed(format!("--data-dir: {error}")))?,
            None => LabelSets::in_memory(engine, memory, most),
        };
        for (name, background) in backgrounds {
            sets.add_background(&name, background)
                .map_err(|error| failed(format!("--background {name}: {error}")))?;
        }
        for (name, content) in given {
            sets.put_content(&name, content, &Condition::Any)
                .map_err(|error| failed(format!("--label-set {name}: {error}")))?;
        }
        Ok(sets)
    });
    opened.await.unwrap_or_else(|error| Err(failed(format!("the label sets: {error}"))))
}

/// A socket for each address. Of several some may fail (a machine without IPv6); for one it is an error.
fn listen(addresses: &[SocketAddr], flag: &str) -> Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut unbound = None;
    for &address in addresses {
        // Where the system chooses a port, it is the same one for all addresses.
        let chosen = listeners.first().and_then(|first| first.local_addr().ok()).map(|first| first.port());
        let address = SocketAddr::new(address.ip(), chosen.unwrap_or(address.port()));
        match TcpListener::bind(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                let message = format!("cannot listen on {address} ({flag}): {error}");
                // A taken port is never half an address.
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    return Err(failed(message));
                }
                unbound = Some(message);
            }
        }
    }
    match unbound {
        Some(message) if listeners.is_empty() => Err(failed(message)),
        Some(message) => {
            tracing::warn!("{message}; the other addresses are served");
            Ok(listeners)
        }
        None => Ok(listeners),
    }
}

/// Waits until every model has been loaded or has failed, and logs it; the reasons if there is none to serve.
async fn started(engine: &Engine) -> Option<String> {
    match engine.warmed_up().await {
        Ok(()) => tracing::info!("ready"),
        Err(EngineError::ShuttingDown) => return None,
        Err(error) => tracing::error!(%error, "a model does not work"),
    }
    let status = engine.status();
    // One that was loaded and fails to compute is tried again: its device may come back.
    let reasons: Vec<String> = status
        .iter()
        .filter(|model| model.info.is_none())
        .filter_map(|model| match &model.state {
            ModelState::Failed { reason } => Some(format!("{}: {reason}", model.name)),
            _ => None,
        })
        .collect();
    (!status.is_empty() && reasons.len() == status.len()).then(|| reasons.join("; "))
}
