//! Fetches pictures by URL without becoming a way into the operator's network.
//!
//! Hosts may be limited to a list. The name is resolved once; if any of its addresses is not on the public
//! internet it is refused, and otherwise the connection goes to those addresses and no others, so that a name
//! cannot change between check and use. A redirect is a new URL that is checked like the first. No proxy, no
//! cookies, no credentials, no kept connections. Bytes and time are bounded.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use bytes::Bytes;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use url::{Host, Url};

use super::is_public;
use super::outbound::{self, Unread};
use super::slots::Slots;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::budget::{Charge, MemoryBudget, MemoryKind};
use crate::telemetry;

/// Fetches that run at once; more wait. One client gets half of them at most.
const CONCURRENT: usize = 64;

/// Where pictures may be fetched from, and how much of them.
#[derive(Debug, Clone)]
pub struct FetchPolicy {
    /// Hosts that may be asked; none means every host.
    pub hosts: Vec<HostPattern>,
    /// Hosts that may have private addresses: an object store of the operator's own. Only these names, never
    /// an address that another name resolves to.
    pub private_hosts: Vec<HostPattern>,
    /// Longest picture, in bytes.
    pub max_bytes: usize,
    /// Time for one picture, redirects and all.
    pub timeout: Duration,
    /// Redirects that are followed.
    pub max_redirects: usize,
}

impl Default for FetchPolicy {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            private_hosts: Vec::new(),
            max_bytes: 20 << 20,
            timeout: Duration::from_secs(10),
            max_redirects: 3,
        }
    }
}

/// A host: `example.com`, or with `*.example.com` every host below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    host: String,
    below: bool,
}

impl HostPattern {
    /// Whether it covers a host, which is in lower case.
    fn covers(&self, host: &str) -> bool {
        match self.below {
            false => host == self.host,
            true => host.strip_suffix(&self.host).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(pattern: &str) -> Result<Self, String> {
        let (host, below) = match pattern.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (pattern, false),
        };
        match Host::parse(host) {
            Ok(host) => Ok(Self { host: host.to_string(), below }),
            Err(error) => Err(format!("{pattern:?} is not a host name: {error}")),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.host)
    }
}

/// Fetches pictures as a policy allows.
#[derive(Debug)]
pub struct Fetcher {
    policy: Arc<FetchPolicy>,
    slots: Arc<Slots>,
}

impl Fetcher {
    /// A fetcher of that policy.
    pub fn new(policy: FetchPolicy) -> Self {
        Self { policy: Arc::new(policy), slots: Slots::new(CONCURRENT) }
    }

    /// The bytes at a URL, charged to a client as they arrive; what they are is for the decoder to say.
    ///
    /// # Errors
    /// 422 if the URL is not allowed, or what its host answers cannot be used: not found, too large; 502 if the host fails, is
    /// too slow or cannot be reached; 413 or 429 if there is no room for it.
    pub async fn fetch(&self, url: &str, memory: &MemoryBudget, client: u64) -> ApiResult<Bytes> {
        let url = Url::parse(url).map_err(|error| refused(format!("not a URL: {error}")))?;
        let (policy, memory) = (Arc::clone(&self.policy), memory.clone());
        let slot = self.slots.take(client).await;
        let work = move || {
            let _slot = slot;
            let started = Instant::now();
            let charge = memory.charge(client, MemoryKind::Fetch, 0)?;
            let fetched = fetch(url, &policy, charge);
            let outcome = match &fetched {
                Ok(_) => "ok",
                Err(error) if error.detail.code == "url_not_allowed" => "refused",
                Err(_) => "failed",
            };
            let seconds = started.elapsed().as_secs_f64();
            metrics::histogram!(telemetry::FETCH_DURATION, "outcome" => outcome).record(seconds);
            fetched
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ApiError::internal("a fetch failed")))
    }
}

fn fetch(mut url: Url, policy: &Arc<FetchPolicy>, memory: Charge) -> ApiResult<Bytes> {
    let deadline = Instant::now() + policy.timeout;
    for _ in 0..=policy.max_redirects {
        check(&url, policy)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_slow(policy));
        }
        let response = agent(left, policy).get(url.as_str()).call().map_err(|e| failed(&e, policy))?;
        let status = response.status();
        if status.is_redirection() {
            let location = response.headers().get("location").and_then(|v| v.to_str().ok());
            let location =
                location.ok_or_else(|| unusable(format!("the host answered {status} with no Location")))?;
            url = url.join(location).map_err(|e| unusable(format!("a redirect to what is no URL: {e}")))?;
            continue;
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(unreachable(format!("the host answered {status}")));
        }
        if !status.is_success() {
            return Err(unusable(format!("the host answered {status}")));
        }
        return outbound::read(response, policy.max_bytes, memory).map_err(|unread| match unread {
            Unread::Failed(error) => failed(&error, policy),
            Unread::TooLarge => unusable(format!("the picture is larger than {} bytes", policy.max_bytes)),
            Unread::Memory(exceeded) => exceeded.into(),
        });
    }
    Err(unusable(format!("more than {} redirects", policy.max_redirects)))
}

/// What can be said of a URL before its name is resolved.
fn check(url: &Url, policy: &FetchPolicy) -> ApiResult<()> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused(format!("the scheme {:?} is not http or https", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("a URL with a user name or password is not fetched"));
    }
    let host = url.host_str().unwrap_or_default();
    let listed = |hosts: &[HostPattern]| hosts.iter().any(|pattern| pattern.covers(host));
    if listed(&policy.private_hosts) || policy.hosts.is_empty() || listed(&policy.hosts) {
        return Ok(());
    }
    Err(refused(format!("the host {host:?} is not one that pictures may be fetched from")))
}

/// A client for one request: nothing is shared with another one.
fn agent(timeout: Duration, policy: &Arc<FetchPolicy>) -> ureq::Agent {
    let config = outbound::settings(timeout, "image/*");
    ureq::Agent::with_parts(config, DefaultConnector::default(), PublicOnly { policy: Arc::clone(policy) })
}

/// Resolves a name and refuses it if any of its addresses is not public.
#[derive(Debug)]
struct PublicOnly {
    policy: Arc<FetchPolicy>,
}

impl Resolver for PublicOnly {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = DefaultResolver::default().resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        if !self.policy.private_hosts.iter().any(|pattern| pattern.covers(host)) {
            for address in addresses.iter() {
                if !is_public(address.ip()) {
                    return Err(ureq::Error::Other(Box::new(NotPublic(address.ip()))));
                }
            }
        }
        Ok(addresses)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the host has the address {0}, which is not on the public internet")]
struct NotPublic(IpAddr);

fn failed(error: &ureq::Error, policy: &FetchPolicy) -> ApiError {
    match error {
        ureq::Error::Other(other) if other.is::<NotPublic>() => refused(other.to_string()),
        ureq::Error::Timeout(_) => too_slow(policy),
        error => unreachable(format!("the picture could not be fetched: {error}")),
    }
}

fn too_slow(policy: &FetchPolicy) -> ApiError {
    unreachable(format!("the picture was not fetched within {} s", policy.timeout.as_secs_f32()))
}

fn refused(message: impl Into<String>) -> ApiError {
    ApiError::unprocessable("url_not_allowed", message)
}

fn unusable(message: impl Into<String>) -> ApiError {
    ApiError::unprocessable("url_fetch_failed", message)
}

/// The fault is the other host's; the same request may pass later.
fn unreachable(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, "url_fetch_failed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_hosts() {
        let exact: HostPattern = "Images.Example.com".parse().unwrap();
        assert!(exact.covers("images.example.com"));
        assert!(!exact.covers("example.com") && !exact.covers("x.images.example.com"));
        let below: HostPattern = "*.example.com".parse().unwrap();
        assert!(below.covers("a.example.com") && below.covers("a.b.example.com"));
        assert!(
            !below.covers("example.com") && !below.covers("evilexample.com") && !below.covers(".example.com")
        );
        assert!("http://example.com/".parse::<HostPattern>().is_err());
        assert!("".parse::<HostPattern>().is_err());
    }

    fn code(url: &str, policy: FetchPolicy) -> String {
        let memory = MemoryBudget::new(1 << 20).charge(0, MemoryKind::Fetch, 0).unwrap();
        fetch(Url::parse(url).unwrap(), &Arc::new(policy), memory).unwrap_err().detail.code.into_owned()
    }

    #[test]
    fn odd_spellings_of_loopback_are_refused() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost/",
            "http://169.254.169.254/latest",
            "http://0/",
        ] {
            assert_eq!(code(url, FetchPolicy::default()), "url_not_allowed", "{url}");
        }
    }

    #[test]
    fn only_listed_hosts_and_only_http() {
        let policy = FetchPolicy { hosts: vec!["example.com".parse().unwrap()], ..FetchPolicy::default() };
        assert_eq!(code("http://example.org/", policy.clone()), "url_not_allowed");
        assert_eq!(code("ftp://example.com/", policy.clone()), "url_not_allowed");
        assert_eq!(code("http://user@example.com/", policy), "url_not_allowed");
    }
}
