//! Reads bodies within bounds: of each one, of all together, and of the time they take.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;

use crate::api::config::ApiConfig;
use crate::api::edge::buffer::ChargedBuffer;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::budget::{MemoryBudget, MemoryKind};

/// Work on more bytes than this leaves the async runtime's threads.
const INLINE_BYTES: usize = 32 << 10;

/// Reads a body within bounds: of its length, of the memory of all requests, of time. What is charged for it is held until
/// its last slice is dropped.
///
/// # Errors
/// 400 if it cannot be read, 408 if it comes too slowly, 413 if it is too long, 429 if there is no room.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    config: &ApiConfig,
    memory: &MemoryBudget,
    client: u64,
) -> ApiResult<Bytes> {
    let reading = within(headers, body, config.max_body_bytes, memory, client);
    tokio::time::timeout(config.body_timeout, reading).await.map_err(|_| {
        let message = format!("the body did not arrive within {} s", config.body_timeout.as_secs_f32());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    })?
}

async fn within(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    budget: &MemoryBudget,
    client: u64,
) -> ApiResult<Bytes> {
    let too_large = || ApiError::too_large(format!("the body is larger than {limit} bytes"));
    // hyper has checked that the header is a number; a body without one is counted as it comes.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let refused = match announced {
        Some(length) if length > limit => Err(too_large()),
        Some(length) => budget.check(client, length).map_err(ApiError::from),
        None => Ok(()),
    };
    refused?;
    let mut buffer = ChargedBuffer::new(budget.charge(client, MemoryKind::Body, 0)?, announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request("incomplete_body", format!("the body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > limit - buffer.len() {
            return Err(too_large());
        }
        buffer.add(&data)?;
    }
    Ok(buffer.into_bytes())
}

/// Makes sure that a request gets its answer when its body is not read to the end: a client that is still sending when
/// the connection is closed would see the reset and not the answer.
pub async fn read_on(request: Request) -> Request {
    let expects_continue = request.headers().contains_key(header::EXPECT);
    request.map(|body| Body::new(Unread { body: Some(body), waits: expects_continue }))
}

/// A body of which the rest is read and thrown away when it is dropped before its end.
struct Unread {
    /// None once it was read to its end.
    body: Option<Body>,
    /// Whether the client sends nothing before it is told to go on.
    waits: bool,
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Asking for a body is what tells the client to go on.
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if self.waits || self.is_end_stream() {
            return;
        }
        if let (Some(body), Ok(runtime)) = (self.body.take(), Handle::try_current()) {
            runtime.spawn(discard(body));
        }
    }
}

/// Reads on for a while, as long as something comes: who is silent is not waited for.
async fn discard(mut body: Body) {
    const MOST: usize = 16 << 20;
    const SILENCE: Duration = Duration::from_millis(500);
    let reading = async {
        let mut seen = 0;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > MOST {
                break;
            }
        }
    };
    // Whichever ends it, the connection may be closed now.
    let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
}

/// Runs work that grows with `size` bytes: here if it is little, on the blocking pool if it is much.
pub async fn off_runtime<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    if size <= INLINE_BYTES { work() } else { on_blocking_pool(work).await }
}

/// Runs work of unknown length on the blocking pool. It goes on where nobody waits for it any more.
pub async fn on_blocking_pool<T: Send + 'static>(
    work: impl FnOnce() -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ApiError::internal("the runtime is stopping")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_budget_is_given_back() {
        const UNIT: usize = 4096;
        let budget = MemoryBudget::new(16 * UNIT);
        let read = async |n: usize| {
            let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, n.into())]);
            within(&headers, Body::from(vec![0; n]), 12 * UNIT, &budget, 1).await
        };
        let bytes = read(5 * UNIT).await.unwrap();
        assert_eq!((bytes.len(), budget.total()), (5 * UNIT, 5 * UNIT));
        assert_eq!(read(4 * UNIT).await.unwrap_err().status, 429);
        drop(bytes);
        assert!(read(8 * UNIT).await.is_ok());
        assert_eq!(read(9 * UNIT).await.unwrap_err().status, 413, "more than a client's share");
        assert_eq!(read(13 * UNIT).await.unwrap_err().status, 413);
        assert_eq!(budget.total(), 0, "nothing was left behind");
    }

    #[tokio::test]
    async fn a_body_that_trickles_in_is_charged_as_it_comes() {
        let frames = |n: usize| {
            let frames = (0..n).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7; 1000])));
            Body::from_stream(futures::stream::iter(frames))
        };
        let budget = MemoryBudget::new(1 << 20);
        let bytes = within(&HeaderMap::new(), frames(100), 1 << 20, &budget, 1).await.unwrap();
        assert_eq!(bytes.len(), 100_000);
        assert!((100_000..=210_000).contains(&budget.total()), "{budget:?}");
        drop(bytes);
        let length = HeaderMap::from_iter([(header::CONTENT_LENGTH, 100_000.into())]);
        let announced = within(&length, frames(100), 1 << 20, &budget, 2).await.unwrap();
        assert_eq!(budget.total(), 100_000);
        drop(announced);
        assert_eq!(within(&HeaderMap::new(), frames(100), 99_999, &budget, 3).await.unwrap_err().status, 413);
        assert_eq!(
            within(&HeaderMap::new(), frames(600), 1 << 20, &budget, 3).await.unwrap_err().status,
            413
        );
    }
}
