//! The body of an answer on its way to a client, and the end of a stream whose client does not take it.
//!
//! On HTTP/1 [`super::unread`] sees writes that wait. On HTTP/2 a client can keep a stream's window at zero and answer
//! pings: nothing waits on the socket, and hyper waits for the window without a time. So every stream's task runs
//! inside [`Streams`], which drops it (the client sees the stream reset) once its body was not asked for more for a while.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::table::InFlight;

/// Bytes that are handed on at once on HTTP/2: what a stream holds beside its body.
const CHUNK: usize = 16 << 10;

/// When a stream's body was last asked for more; none before its answer began and after its end.
type Progress = Arc<Mutex<Option<Instant>>>;

thread_local! {
    /// Of the stream whose task is being polled on this thread.
    static CURRENT: RefCell<Option<Progress>> = const { RefCell::new(None) };
}

/// Runs hyper's tasks: one for each stream of an HTTP/2 connection.
#[derive(Debug, Clone)]
pub struct Streams {
    /// A stream whose client takes nothing for so long is ended.
    pub timeout: Duration,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let stream = Stream {
            task: Box::pin(task),
            progress: Progress::default(),
            timeout: self.timeout,
            timer: Box::pin(sleep_until(Instant::now() + self.timeout)),
        };
        tokio::spawn(stream);
    }
}

struct Stream<F> {
    task: Pin<Box<F>>,
    progress: Progress,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let before = CURRENT.with(|current| current.replace(Some(Arc::clone(&this.progress))));
        let polled = this.task.as_mut().poll(cx);
        CURRENT.with(|current| current.replace(before));
        if polled.is_ready() {
            return Poll::Ready(());
        }
        loop {
            let last = *this.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let until = last.unwrap_or(now) + this.timeout;
            if until <= now {
                tracing::debug!("a client did not take its answer: its stream is ended");
                return Poll::Ready(());
            }
            this.timer.as_mut().reset(until);
            std::task::ready!(this.timer.as_mut().poll(cx));
        }
    }
}

/// The body of an answer; its request is in flight until this is dropped.
#[derive(Debug)]
pub struct AnswerBody {
    body: Body,
    /// What is left of a frame that was larger than a chunk.
    rest: Bytes,
    http2: bool,
    progress: Option<Progress>,
    _request: Arc<InFlight>,
}

impl AnswerBody {
    /// The body of the answer to `request`.
    pub fn new(body: Body, request: Arc<InFlight>, http2: bool) -> Self {
        request.work(false);
        let progress = CURRENT.with(|current| current.borrow().clone());
        Self { body, rest: Bytes::new(), http2, progress, _request: request }
    }

    fn went_on(&self, at: Option<Instant>) {
        if let Some(progress) = &self.progress {
            *progress.lock().unwrap_or_else(PoisonError::into_inner) = at;
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            // While the service makes the answer, its client is not to blame.
            self.went_on(None);
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.went_on(Some(Instant::now()));
        let most = if self.http2 { CHUNK } else { usize::MAX };
        let length = self.rest.len().min(most);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(inner.lower() + rest);
        hint
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.went_on(None);
    }
}
