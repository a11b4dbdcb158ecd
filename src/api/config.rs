//! What the service is told to do, already checked: bounds, times, keys, who may call from a browser.

use std::time::Duration;

use axum::http::HeaderValue;

use crate::api::admin::models::ModelAdmin;
use crate::api::dialects::{Dialects, ImmichUpstream};
use crate::api::edge::base_path::BasePath;
use crate::api::edge::client::TrustedProxies;
use crate::api::edge::keys::ApiKeys;
use crate::api::source::FetchPolicy;
use crate::budget::MemoryBudget;
use crate::labels::SetLimits;

/// Settings of the HTTP service.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Longest body of one request, in bytes.
    pub max_body_bytes: usize,
    /// What bounds the memory that requests make the service hold; beyond it 413 or 429.
    pub memory: MemoryBudget,
    /// Most inputs of one request.
    pub max_items: usize,
    /// Most label texts of one request: labels times templates.
    pub max_labels: usize,
    /// Most label sets that are stored.
    pub max_label_sets: SetLimits,
    /// A request that is not answered within this gets 504.
    pub request_timeout: Duration,
    /// A connection that does not send a whole head within this is closed.
    pub header_timeout: Duration,
    /// A connection without a request for so long is closed.
    pub keep_alive: Duration,
    /// A body that is not there within this gets 408; a client that takes nothing of its answer for so long is
    /// dropped.
    pub body_timeout: Duration,
    /// Connections open at once; beyond them the client that holds the most loses its idlest one.
    pub max_connections: usize,
    /// Proxies whose `X-Forwarded-For` says who the client is.
    pub trusted_proxies: TrustedProxies,
    /// What a proxy puts in front of every path.
    pub base_path: BasePath,
    /// Whether metrics have a port of their own, and are not served on the main one.
    pub admin_apart: bool,
    /// Keys of which a request must show one; none means that none is asked for.
    pub api_keys: ApiKeys,
    /// Who may change the models; nobody where it is `None`.
    pub model_admin: Option<ModelAdmin>,
    /// Who may call from a browser.
    pub cors: Cors,
    /// Whether and where pictures are fetched from by URL.
    pub fetch: Option<FetchPolicy>,
    /// Which other services' routes are served too.
    pub dialects: Dialects,
    /// Who is asked for what Immich wants beside embeddings.
    pub immich_upstream: Option<ImmichUpstream>,
    /// Whether `/` and `/docs` give people the playground.
    pub playground: bool,
}

/// Origins that browsers are told to let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cors {
    /// No header is sent: pages of the same origin only.
    #[default]
    SameOrigin,
    /// These origins.
    Origins(Vec<HeaderValue>),
    /// Every origin.
    Any,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            memory: MemoryBudget::new(1 << 30),
            max_items: 512,
            max_labels: 1024,
            max_label_sets: 256.into(),
            request_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            max_connections: 1024,
            trusted_proxies: TrustedProxies::default(),
            base_path: BasePath::default(),
            admin_apart: false,
            api_keys: ApiKeys::default(),
            model_admin: None,
            cors: Cors::default(),
            fetch: None,
            dialects: Dialects::default(),
            immich_upstream: None,
            playground: true,
        }
    }
}
