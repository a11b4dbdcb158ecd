//! One connection from its acceptance to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{Response, Version};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::Closing;
use super::answer_body::{AnswerBody, Streams};
use super::table::{Connection, InFlight, Place};
use super::tls::Tls;
use super::unread::UnreadTimeout;

/// Time to write what is left when a connection is told to close.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How connections of one port are served.
#[derive(Clone)]
pub struct Serving {
    /// What is answered.
    pub router: Router,
    /// The certificate, where TLS is spoken.
    pub tls: Option<Tls>,
    /// A head that is not whole after this closes the connection.
    pub header_timeout: Duration,
    /// So does a connection without a request for so long.
    pub keep_alive: Duration,
    /// So does a client that takes nothing of its answer for so long.
    pub unread_timeout: Duration,
    /// Whether the service is about to end.
    pub closing: watch::Receiver<Closing>,
}

impl Serving {
    /// Serves one connection until it ends, by whomever. Gives the reason if it was the service that ended it.
    pub async fn run(self, stream: TcpStream, peer: SocketAddr, place: &Place) -> Option<&'static str> {
        // Small answers must not wait for more; a socket that refuses this is about to fail anyway.
        let _ = stream.set_nodelay(true);
        let connection = &place.connection;
        let stream = UnreadTimeout::new(stream, self.unread_timeout, Arc::clone(connection));
        let Some(tls) = self.tls.clone() else { return self.http(stream, peer, connection).await };
        let handshake = timeout(self.header_timeout, TlsAcceptor::from(tls.current()).accept(stream));
        tokio::select! {
            stream = handshake => match stream {
                Ok(Ok(stream)) => self.http(stream, peer, connection).await,
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "no TLS connection was made");
                    None
                }
                Err(_) => Some("head"),
            },
            () = connection.evicted() => None,
            () = closed(self.closing.clone()) => Some("stopping"),
        }
    }

    async fn http<S>(self, stream: S, peer: SocketAddr, connection: &Arc<Connection>) -> Option<&'static str>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(Streams { timeout: self.unread_timeout });
        // The times of idle connections and of heads are kept below, for both versions of HTTP alike.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_headers(100);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .max_header_list_size(32 << 10)
            .keep_alive_interval(self.header_timeout)
            .keep_alive_timeout(self.header_timeout);
        let service = Requests { router: self.router, peer, connection: Arc::clone(connection) };
        let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut closing = self.closing;
        let mut ends: Option<(Instant, &'static str)> = None;
        let tick = (self.header_timeout.min(self.keep_alive) / 4).min(Duration::from_secs(1));
        loop {
            let expires = connection.expires(self.header_timeout, self.keep_alive).map(Instant::from_std);
            let now = Instant::now();
            if let Some((end, reason)) = ends {
                if end <= now {
                    return Some(reason);
                }
            } else if expires.is_some_and(|at| at <= now) {
                ends = Some((now + LAST_WORDS, "idle"));
                served.as_mut().graceful_shutdown();
            } else if *closing.borrow() != Closing::No {
                // Requests under way are answered; the end is for the service to say.
                ends = Some((now + Duration::from_secs(3600), "stopping"));
                served.as_mut().graceful_shutdown();
            }
            let next = ends.map(|(end, _)| end).or(expires).unwrap_or(now + tick).min(now + tick);
            tokio::select! {
                result = served.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%peer, %error, "a connection failed");
                    }
                    return ends.map(|(_, reason)| reason);
                }
                () = connection.evicted() => return None,
                () = closed(closing.clone()) => return Some("stopping"),
                _ = closing.changed(), if ends.is_none() => {}
                () = sleep_until(next) => {}
            }
        }
    }
}

/// Ready when connections must end, finished or not.
async fn closed(mut closing: watch::Receiver<Closing>) {
    // A sender that is gone means the same.
    let _ = closing.wait_for(|closing| *closing == Closing::Now).await;
}

/// The requests of one connection.
struct Requests {
    router: Router,
    peer: SocketAddr,
    connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<AnswerBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let http2 = request.version() == Version::HTTP_2;
        let in_flight = self.connection.request(http2);
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(ConnectInfo(self.peer));
        if body.is_end_stream() {
            in_flight.work(true);
        }
        let body = RequestBody { body, in_flight: Arc::downgrade(&in_flight) };
        let request = Request::from_parts(parts, Body::new(body));
        let router = self.router.clone();
        Box::pin(async move {
            let answer = router.oneshot(request).await?;
            Ok(answer.map(|body| AnswerBody::new(body, in_flight, http2)))
        })
    }
}

/// A request's body, which says when it is whole.
struct RequestBody {
    body: Incoming,
    in_flight: Weak<InFlight>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if (matches!(polled, Poll::Ready(None)) || self.body.is_end_stream())
            && let Some(in_flight) = self.in_flight.upgrade()
        {
            in_flight.work(true);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
