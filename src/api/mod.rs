//! The HTTP service: routes, wire formats, errors, bounds. Knows no tensors.
//!
//! [`app`] makes the router, [`serve`] runs it on a socket until it is told to stop. Every request takes one way:
//!
//! 1. [`edge::middleware`] gives it an id and a deadline, and asks for a key.
//! 2. Its route looks at what costs nothing ([`call::Call`]: format of the answer, kind of the body, query, model), then
//!    reads the body within bounds ([`edge::body`]).
//! 3. *Read*: bytes become a typed request ([`read`]: JSON, forms, text fields; the types are the route's own).
//! 4. *Resolve*: the request becomes domain inputs, each with its name and the memory that it holds ([`inputs::Batch`];
//!    [`source`] has pictures out of strings and URLs, [`labels`] the prompts).
//! 5. *Run*: [`run::embed`] fetches what is to be fetched, hands everything to the engine, and puts errors in their places.
//! 6. *Render*: the route makes its document or array of it ([`answer`]); an error is written by [`edge::render`].
//!
//! Routes that speak another project's dialect ([`dialects`]) have a schema and a resolve step of their own; the rest is
//! shared.

mod admin;
mod answer;
mod call;
mod config;
mod dialects;
mod edge;
mod inputs;
mod labels;
mod native;
mod openapi;
mod pages;
#[doc(hidden)]
pub mod parsers;
mod read;
mod run;
mod source;
mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_request};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes as of;

use edge::render::{self, Styles};
use edge::{base_path, body, lifecycle, middleware};

use edge::error::shortened;

pub use admin::models::{ModelAdmin, ModelLoader, ModelOpener};
pub use config::{ApiConfig, Cors};
pub use dialects::{Dialects, ImmichUpstream};
pub use edge::client::{Cidr, TrustedProxies};
pub use edge::error::ApiError;
pub use edge::keys::{ApiKeys, check as check_key};
pub use edge::lifecycle::Phase;
pub use edge::server::{DrainTimes, Port, Stopped, Tls, serve};
pub use source::{FetchPolicy, HostPattern};
pub use state::AppState;

/// The routes, by who may ask and where.
struct Routes {
    /// What the service is for: a key where keys are asked for.
    work: OpenApiRouter<AppState>,
    /// Health and documents: everybody, on the main port.
    open: OpenApiRouter<AppState>,
    /// Health: also on a port for operators.
    health: OpenApiRouter<AppState>,
    /// Only on the port for operators, where there is one.
    operators: OpenApiRouter<AppState>,
}

impl Routes {
    fn new() -> Self {
        let work = OpenApiRouter::new()
            .routes(of!(native::embeddings::create))
            .routes(of!(native::embeddings::create_from_images))
            .routes(of!(native::classify::classify))
            .routes(of!(native::score::score))
            .routes(of!(native::tokenize::tokenize))
            .routes(of!(native::heatmaps::create))
            .routes(of!(native::label_sets::list))
            .routes(of!(native::label_sets::get, native::label_sets::put, native::label_sets::delete))
            .routes(of!(native::examples::add, native::examples::remove))
            .routes(of!(native::examples::calibrate))
            .routes(of!(native::models::list))
            .routes(of!(native::models::get))
            // A hub id has a slash.
            .route("/v1/models/{owner}/{name}", axum::routing::get(native::models::get_of_owner));
        let open = OpenApiRouter::new()
            .routes(of!(pages::docs::openapi_json))
            .routes(of!(pages::docs::openapi_yaml))
            .routes(of!(pages::docs::docs))
            .routes(of!(pages::docs::welcome))
            .route(pages::playground::FILES, axum::routing::get(pages::docs::file));
        let health = OpenApiRouter::new()
            .routes(of!(admin::health::health))
            .routes(of!(admin::health::live))
            .routes(of!(admin::health::ready));
        let operators = OpenApiRouter::new()
            .routes(of!(admin::health::metrics))
            .routes(of!(admin::models::list, admin::models::load))
            .routes(of!(admin::models::remove));
        Self { work, open, health, operators }
    }
}

/// The contract of our own routes, wherever they are served.
fn contract(config: &ApiConfig) -> pages::docs::Contract {
    let Routes { work, open, health, operators } = Routes::new();
    let whole = OpenApiRouter::with_openapi(openapi::Contract::openapi()).merge(work).merge(health);
    let (_, mut document) = whole.merge(operators).merge(open).split_for_parts();
    openapi::add_headers(&mut document);
    pages::docs::Contract {
        json: document.to_pretty_json().unwrap_or_default(),
        yaml: include_str!("../../openapi.yaml"),
        playground: config.playground.then(|| pages::playground::Playground::new(&config.dialects)),
    }
}

/// The service as a router.
pub fn app(state: AppState) -> Router {
    let Routes { work, open, health, operators } = Routes::new();
    let dialects = &state.config().dialects;
    let mut styles = Styles::default();
    for own in [&work, &open, &health, &operators] {
        styles.own(own);
    }
    dialects.style(&mut styles);
    let work = Router::from(work)
        .merge(dialects.work())
        .route_layer(from_fn_with_state(state.clone(), lifecycle::admit))
        .route_layer(from_fn_with_state(state.clone(), middleware::authenticate));
    let router = work.merge(health).merge(open).merge(dialects.open());
    let router = if state.config().admin_apart { router } else { router.merge(operators) };
    let router = around(router.layer(Extension(Arc::new(contract(state.config())))), &state, styles);
    let router = match cors(&state.config().cors) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    base_path::below(&state.config().base_path, router.with_state(state.clone()))
}

/// What operators ask, as a router for a port of its own.
pub fn admin(state: AppState) -> Router {
    let Routes { health, operators, .. } = Routes::new();
    let (router, _) = health.merge(operators).split_for_parts();
    around(router, &state, Styles::default()).with_state(state)
}

/// What is around every route.
fn around(router: Router<AppState>, state: &AppState, styles: Styles) -> Router<AppState> {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(map_request(body::read_on))
        .layer(from_fn_with_state(state.clone(), middleware::observe))
        .layer(from_fn_with_state(styles, render::render))
}

async fn not_found(State(state): State<AppState>, method: Method, uri: http::Uri) -> ApiError {
    ApiError::no_route(&method, &uri, pages::docs::guide(state.config().playground))
}

async fn method_not_allowed(State(state): State<AppState>, method: Method, uri: http::Uri) -> ApiError {
    let guide = pages::docs::guide(state.config().playground);
    let path = shortened(uri.path(), 256);
    let message = format!("{path} does not answer {method}; {guide} lists what it does");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

fn cors(cors: &Cors) -> Option<CorsLayer> {
    let origins = match cors {
        Cors::SameOrigin => return None,
        Cors::Origins(origins) => AllowOrigin::list(origins.iter().cloned()),
        Cors::Any => AllowOrigin::any(),
    };
    let read = [
        header::RETRY_AFTER,
        header::ETAG,
        middleware::REQUEST_ID,
        middleware::SERVER_TIMING,
        answer::FINGERPRINT,
        answer::MODEL,
        answer::SHAPE,
        answer::DTYPE,
    ];
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        // Clients send headers of their own (OpenAI's a dozen of x-stainless-…), and none gives a right.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(read)
        .max_age(Duration::from_secs(3600));
    Some(layer)
}
