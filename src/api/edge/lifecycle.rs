//! From taking everything to taking nothing: what the service still does while it stops.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{Notify, watch};

use crate::api::edge::error::ApiError;
use crate::api::state::AppState;

/// How far the service has stopped; each phase includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// It says that it is not ready, and takes work.
    Unready,
    /// New work gets 503; what was begun is finished.
    Refusing,
    /// What was begun gets 503 too.
    Ended,
}

/// The phase, and the requests that are worked on.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    working: AtomicUsize,
    finished: Notify,
}

/// One request that is worked on.
struct Work<'a>(&'a Lifecycle);

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            working: AtomicUsize::new(0),
            finished: Notify::new(),
        }
    }
}

impl Lifecycle {
    /// How far it has stopped.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// Requests that are worked on.
    pub fn working(&self) -> usize {
        self.working.load(Ordering::SeqCst)
    }

    /// Waits until no request is worked on.
    pub async fn idle(&self) {
        loop {
            let finished = self.finished.notified();
            tokio::pin!(finished);
            // Listening begins before the look, or the last request could end in between.
            finished.as_mut().enable();
            if self.working() == 0 {
                return;
            }
            finished.await;
        }
    }

    /// A place for a request, unless new ones are refused.
    fn begin(&self) -> Option<Work<'_>> {
        // Counted before the look: whoever refuses from now on sees it.
        self.working.fetch_add(1, Ordering::SeqCst);
        let work = Work(self);
        (self.phase() < Phase::Refusing).then_some(work)
    }

    async fn ended(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = phase.wait_for(|&phase| phase == Phase::Ended).await;
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.finished.notify_waiters();
        }
    }
}

/// Around every route that works: refuses new requests while the service stops, and answers those that it cannot
/// finish.
pub async fn admit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let http1 = request.version() <= Version::HTTP_11;
    let Some(_work) = state.lifecycle().begin() else { return stopping("the service is stopping", http1) };
    tokio::select! {
        answer = next.run(request) => answer,
        () = state.lifecycle().ended() => stopping("the service stopped before the request was finished", http1),
    }
}

fn stopping(message: &str, http1: bool) -> Response {
    let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message);
    let mut answer = ApiError { retry_after: Some(Duration::from_secs(1)), ..error }.into_response();
    if http1 {
        // The next request should find another process.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}
