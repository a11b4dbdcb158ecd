//! Runs routers on sockets: TLS, shares of connections, times for slow clients, and an orderly end.

mod answer_body;
mod connection;
mod table;
mod tls;
mod unread;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::edge::lifecycle::Phase;
use crate::api::edge::reload;
use crate::api::state::AppState;
use crate::engine::DrainReport;
use connection::Serving;
use table::Table;

pub use table::Network;
pub use tls::Tls;

/// Time to write the last answers after the service has given up on the rest.
const LAST_ANSWERS: Duration = Duration::from_millis(700);
/// Time for the engine's threads to end where nothing is left to do.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// A port: where it is, what it answers, how many connections it holds.
#[derive(Debug)]
pub struct Port {
    /// Its name in the metrics.
    pub name: &'static str,
    /// One socket for each address.
    pub listeners: Vec<TcpListener>,
    /// What it answers.
    pub router: Router,
    /// The certificate, where TLS is spoken.
    pub tls: Option<Tls>,
    /// Connections open at once.
    pub max_connections: usize,
}

/// Times of an orderly end.
#[derive(Debug, Clone, Copy)]
pub struct DrainTimes {
    /// How long new work is taken after the service says that it is not ready.
    pub delay: Duration,
    /// How long it may then take to finish what was begun.
    pub timeout: Duration,
}

/// How a service ended.
#[derive(Debug, Clone, Copy)]
pub struct Stopped {
    /// Requests that got 503 because the time was up.
    pub requests: usize,
    /// What the engine had left.
    pub engine: DrainReport,
    /// From the signal to the end.
    pub took: Duration,
}

/// Whether connections shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// When their requests are answered.
    Gently,
    Now,
}

/// Serves `ports` until `shutdown` is ready. Then the service says that it is not ready; after the delay new work gets
/// 503 and what was begun is finished; at the timeout what is left gets 503 too; then connections close.
///
/// # Errors
/// If a socket cannot be used.
pub async fn serve(
    ports: Vec<Port>,
    state: AppState,
    times: DrainTimes,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Stopped> {
    let (closing, closes) = watch::channel(Closing::No);
    let mut accepting = JoinSet::new();
    let mut tables = Vec::new();
    let certificates = ports.iter().filter_map(|port| port.tls.clone()).collect();
    accepting.spawn(reload::watch(vec![state.config().api_keys.clone()], certificates));
    for port in ports {
        let table = Table::new(port.name, port.max_connections);
        tables.push(Arc::clone(&table));
        let config = state.config();
        let serving = Serving {
            router: port.router,
            tls: port.tls,
            header_timeout: config.header_timeout,
            keep_alive: config.keep_alive,
            unread_timeout: config.body_timeout,
            closing: closes.clone(),
        };
        for listener in port.listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            accepting.spawn(accept(listener, serving.clone(), Arc::clone(&table), state.clone()));
        }
    }
    shutdown.await;

    let began = Instant::now();
    state.lifecycle().advance(Phase::Unready);
    if !times.delay.is_zero() {
        tracing::info!(
            "stopping: not ready any more, taking work for another {} s",
            times.delay.as_secs_f32()
        );
        tokio::time::sleep(times.delay).await;
    }
    let end = Instant::now() + times.timeout;
    let left = || end.saturating_duration_since(Instant::now());
    tracing::info!(
        "stopping: finishing {} requests within {} s",
        state.lifecycle().working(),
        times.timeout.as_secs_f32()
    );
    state.lifecycle().advance(Phase::Refusing);
    let _ = tokio::time::timeout(times.timeout, state.lifecycle().idle()).await;
    let requests = state.lifecycle().working();
    // A request that waits for the engine hears from the engine that it stops; what waits elsewhere hears it below.
    let threads = if requests == 0 { left().min(LAST_THREADS) } else { Duration::ZERO };
    let drained = state.engine().drain(threads).await;
    state.lifecycle().advance(Phase::Ended);

    closing.send_replace(Closing::Gently);
    let answers_end = end.max(Instant::now()) + LAST_ANSWERS;
    let open = || tables.iter().map(|table| table.len()).sum::<usize>();
    let busy = || tables.iter().any(|table| table.is_busy());
    let mut quiet_since = Instant::now();
    while open() > 0 && Instant::now() < answers_end && quiet_since.elapsed() < LAST_ANSWERS {
        if busy() {
            quiet_since = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    closing.send_replace(Closing::Now);
    accepting.shutdown().await;
    Ok(Stopped { requests, engine: drained, took: began.elapsed() })
}

/// Takes the connections of one socket until the service closes them.
async fn accept(listener: tokio::net::TcpListener, serving: Serving, table: Arc<Table>, state: AppState) {
    /// Connections that are told at once that there are too many.
    const REFUSALS: usize = 32;
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut closing = serving.closing.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing != Closing::No) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The process is out of descriptors, or the client has left already.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let proxy = state.config().trusted_proxies.contain(peer.ip());
        let Some(place) = table.enter(peer.ip(), proxy, Instant::now()) else {
            tracing::debug!(%peer, "a connection was refused: there are too many");
            if serving.tls.is_none()
                && let Ok(permit) = Arc::clone(&refusals).try_acquire_owned()
            {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(Duration::from_secs(1), refuse(stream)).await;
                    drop(permit);
                });
            }
            continue;
        };
        let (serving, table) = (serving.clone(), Arc::clone(&table));
        tokio::spawn(async move {
            if let Some(reason) = serving.run(stream, peer, &place).await {
                table.closed(reason);
            }
        });
    }
}

/// Says that there are too many connections, in the one version of HTTP that needs no agreement.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    const BODY: &str = "{\"error\":{\"message\":\"too many connections; try again in 1 s\",\
        \"type\":\"unavailable_error\",\"param\":null,\"code\":\"overloaded\"}}";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What was sent is read, or the reset of a close with unread bytes would overtake the answer.
    let mut sink = [0; 1024];
    for _ in 0..64 {
        if tokio::io::AsyncReadExt::read(&mut stream, &mut sink).await? == 0 {
            break;
        }
    }
    Ok(())
}
