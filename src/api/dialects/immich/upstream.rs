//! Another machine learning service of Immich, asked for what is not done here.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ureq::config::AutoHeaderValue;
use url::Url;

use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult, shortened};
use crate::api::source::Slots;
use crate::api::source::outbound::{self, Unread};
use crate::budget::{Charge, MemoryKind};

/// Requests that are forwarded at once; more wait. One client gets half of them at most.
const CONCURRENT: usize = 32;
/// Longest answer: faces of a picture are some kB each.
const MOST_BYTES: usize = 16 << 20;

/// The other service. The operator names it, so its address may be private.
#[derive(Debug, Clone)]
pub struct Upstream {
    predict: Url,
    slots: Arc<Slots>,
}

impl FromStr for Upstream {
    type Err = String;

    /// Its address, `http://host:3003`.
    fn from_str(address: &str) -> Result<Self, String> {
        // Neither message says the address: it may hold a password.
        let mut url = Url::parse(address).map_err(|error| format!("not a URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a user name or password is not sent; leave it out".to_owned());
        }
        let plain = url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
            return Err("not an address like http://immich-machine-learning:3003".to_owned());
        }
        let path = format!("{}/predict", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(Self { predict: url, slots: Slots::new(CONCURRENT) })
    }
}

impl Upstream {
    /// Sends a request on as it came and gives the answer back, within the request's own deadline.
    ///
    /// # Errors
    /// 502 if the other service cannot be reached or fails, its own status if it refuses the request, 504 if it takes too
    /// long, 413 and 429 without room for the answer.
    pub async fn forward(&self, call: &Call, body: Bytes) -> ApiResult<Response> {
        let slot = self.slots.take(call.context.client);
        let slot = tokio::time::timeout_at(call.context.deadline.into(), slot);
        let slot = slot.await.map_err(|_| call.context.late())?;
        let charge = call.charge(MemoryKind::Answer, 0)?;
        let (url, content_type) = (self.predict.clone(), call.media.header.clone());
        let context = call.context.clone();
        let work = move || {
            let _slot = slot;
            let left = context.deadline.saturating_duration_since(Instant::now());
            let is_late = |error: &ureq::Error| matches!(error, ureq::Error::Timeout(_));
            ask(&url, &content_type, &body, left, charge).map_err(|failure| match failure {
                Failure::Asking(error) if is_late(&error) || left.is_zero() => context.late(),
                Failure::Asking(error) => failed(format!("the service at --immich-upstream failed: {error}")),
                Failure::Api(error) => error,
            })
        };
        let answer = tokio::task::spawn_blocking(work).await;
        answer.unwrap_or_else(|_| Err(ApiError::internal("forwarding a request failed")))
    }
}

/// Why there is no answer.
enum Failure {
    Asking(ureq::Error),
    Api(ApiError),
}

fn ask(
    url: &Url,
    content_type: &str,
    body: &[u8],
    left: Duration,
    charge: Charge,
) -> Result<Response, Failure> {
    let agent = ureq::Agent::new_with_config(outbound::settings(left, AutoHeaderValue::Default));
    let request = agent.post(url.as_str()).header(header::CONTENT_TYPE, content_type);
    let answer = request.send(body).map_err(Failure::Asking)?;
    let status = answer.status();
    let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = outbound::read(answer, MOST_BYTES, charge).map_err(|unread| match unread {
        Unread::Failed(error) => Failure::Asking(error),
        Unread::TooLarge => {
            Failure::Api(failed(format!("the answer of --immich-upstream is larger than {MOST_BYTES} bytes")))
        }
        Unread::Memory(exceeded) => Failure::Api(exceeded.into()),
    })?;
    if status.is_success() {
        let json = HeaderValue::from_static("application/json");
        let content_type = content_type.unwrap_or(json);
        return Ok((status, [(header::CONTENT_TYPE, content_type)], Body::from(bytes)).into_response());
    }
    let said = String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]);
    let message = format!("the service at --immich-upstream answered {status}: {}", shortened(&said, 300));
    Err(Failure::Api(match status.is_client_error() {
        true => ApiError::new(status, "upstream_refused", message),
        false => failed(message),
    }))
}

fn failed(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, "upstream_failed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let path = |address: &str| address.parse::<Upstream>().map(|upstream| upstream.predict.to_string());
        assert_eq!(path("http://ml:3003").unwrap(), "http://ml:3003/predict");
        assert_eq!(path("https://ml/immich/").unwrap(), "https://ml/immich/predict");
        for wrong in ["ml:3003", "ftp://ml", "http://", "http://a:b@ml", "http://ml/?x=1", ""] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
        for secret in ["http://me:secret@ml:3003", "http://me:secret@ml:99999", "http://secret@ml/?x=secret"]
        {
            assert!(!path(secret).unwrap_err().contains("secret"), "{secret}");
        }
    }
}
