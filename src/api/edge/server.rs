//! Runs the router on a socket: TLS, bounds on connections, times for slow clients, and an orderly end.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper::body::Incoming;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use crate::api::edge::unread::UnreadTimeout;
use crate::api::state::AppState;
use crate::engine::DrainReport;
use crate::{Error, Result};

/// A certificate and its key, read and checked.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads a certificate chain and a private key, both PEM.
    ///
    /// # Errors
    /// [`Error::Config`] with the file and what is wrong with it.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self> {
        let wrong =
            |path: &Path, what: &dyn std::fmt::Display| Error::Config(format!("{}: {what}", path.display()));
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
            .map_err(|error| wrong(cert, &error))?;
        if chain.is_empty() {
            return Err(wrong(cert, &"there is no certificate in it"));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Config(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| wrong(key, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// How a service ended.
#[derive(Debug, Clone, Copy)]
pub struct Stopped {
    /// What the engine had left.
    pub engine: DrainReport,
    /// From the signal to the end.
    pub took: Duration,
}

/// Serves `router` on `listener` until `shutdown` is ready. Then the service says that it is not ready, takes no
/// new connection, answers what it has, and ends: within `drain_timeout`, whatever is left.
///
/// # Errors
/// If the socket cannot be used.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    state: AppState,
    tls: Option<Tls>,
    drain_timeout: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Stopped> {
    let config = state.config().clone();
    let handle = Handle::new();
    let began = Arc::new(std::sync::OnceLock::new());
    let watch = {
        let (state, handle, began) = (state.clone(), handle.clone(), Arc::clone(&began));
        tokio::spawn(async move {
            shutdown.await;
            let _ = began.set(Instant::now());
            tracing::info!("stopping: finishing what is here within {} s", drain_timeout.as_secs_f32());
            state.begin_drain();
            handle.graceful_shutdown(Some(drain_timeout));
        })
    };
    let mut server = axum_server::from_tcp(listener)?
        .handle(handle)
        .first_request_timeout(config.header_timeout)
        .accept_error_handler(|peer: Option<&SocketAddr>, error| {
            tracing::debug!(?peer, %error, "a connection was not accepted");
        });
    // `from_tcp` sets a timer but switches this off.
    server.http_builder().http1().header_read_timeout(config.header_timeout).max_headers(100);
    server
        .http_builder()
        .http2()
        .max_concurrent_streams(128)
        .max_header_list_size(32 << 10)
        .keep_alive_interval(config.header_timeout)
        .keep_alive_timeout(config.header_timeout);
    let limit =
        Limit { free: Arc::new(Semaphore::new(config.max_connections)), unread_timeout: config.body_timeout };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let served = match tls {
        None => server.acceptor(limit).serve(service).await,
        Some(tls) => {
            let tls = RustlsAcceptor::new(RustlsConfig::from_config(tls.config));
            let acceptor = tls.handshake_timeout(config.header_timeout).acceptor(limit);
            server.acceptor(acceptor).serve(service).await
        }
    };
    watch.abort();
    served?;
    let began = *began.get_or_init(Instant::now);
    let engine = state.engine().drain(drain_timeout.saturating_sub(began.elapsed())).await;
    Ok(Stopped { engine, took: began.elapsed() })
}

/// Closes connections over a number as they come, and those whose client does not read its answer.
#[derive(Debug, Clone)]
struct Limit {
    free: Arc<Semaphore>,
    unread_timeout: Duration,
}

impl<S> Accept<TcpStream, S> for Limit {
    type Stream = UnreadTimeout<TcpStream>;
    type Service = Counted<S>;
    type Future = std::future::Ready<io::Result<(UnreadTimeout<TcpStream>, Counted<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = match Arc::clone(&self.free).try_acquire_owned() {
            Err(_) => Err(io::Error::other("too many connections")),
            Ok(place) => stream.set_nodelay(true).map(|()| {
                let service = Counted { service, _place: Arc::new(place) };
                (UnreadTimeout::new(stream, self.unread_timeout), service)
            }),
        };
        std::future::ready(accepted)
    }
}

/// A connection's service, which holds the connection's place for as long as it lives.
#[derive(Clone)]
struct Counted<S> {
    service: S,
    _place: Arc<OwnedSemaphorePermit>,
}

impl<S> Service<http::Request<Incoming>> for Counted<S>
where
    S: Service<http::Request<Incoming>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Incoming>) -> S::Future {
        self.service.call(request)
    }
}
