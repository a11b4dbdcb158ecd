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
//! Routes that speak another project's dialect have a schema and a resolve step of their own; the rest is shared.

mod admin;
mod answer;
mod call;
mod config;
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
use axum::extract::Extension;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_request};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes as of;

use edge::render::{self, ErrorShapes};
use edge::{body, middleware};

pub use config::{ApiConfig, Cors};
use edge::error::shortened;
pub use edge::error::{ApiError, ApiResult, ErrorBody, ErrorDetail, ErrorKind};
pub use edge::keys::ApiKeys;
pub use edge::server::{Stopped, Tls, serve};
pub use source::{FetchPolicy, HostPattern};
pub use state::{AppState, RenderMetrics};

/// The routes and the contract that they make.
fn contract() -> (OpenApiRouter<AppState>, OpenApiRouter<AppState>) {
    let keyed = OpenApiRouter::new()
        .routes(of!(native::embeddings::create))
        .routes(of!(native::embeddings::create_from_images))
        .routes(of!(native::classify::classify))
        .routes(of!(native::score::score))
        .routes(of!(native::models::list))
        .routes(of!(native::models::get));
    let open = OpenApiRouter::new()
        .routes(of!(admin::health::health))
        .routes(of!(admin::health::live))
        .routes(of!(admin::health::ready))
        .routes(of!(admin::health::metrics))
        .routes(of!(pages::docs::openapi_json))
        .routes(of!(pages::docs::openapi_yaml))
        .routes(of!(pages::docs::docs))
        .routes(of!(pages::docs::welcome));
    (keyed, open)
}

/// The service as a router.
pub fn app(state: AppState) -> Router {
    let (keyed, open) = contract();
    let keyed = keyed.route_layer(from_fn_with_state(state.clone(), middleware::authenticate));
    let mut shapes = ErrorShapes::default();
    shapes.register(&keyed, render::native);
    let whole = OpenApiRouter::with_openapi(openapi::Contract::openapi()).merge(keyed).merge(open);
    let (router, mut document) = whole.split_for_parts();
    openapi::add_headers(&mut document);
    let contract = pages::docs::Contract {
        json: document.to_pretty_json().unwrap_or_default(),
        yaml: include_str!("../../openapi.yaml"),
    };
    let cors = cors(&state.config().cors);
    let router = router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(Arc::new(contract)))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(map_request(body::read_on))
        .layer(from_fn_with_state(state.clone(), middleware::observe))
        .layer(from_fn_with_state(shapes, render::render));
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.with_state(state)
}

async fn not_found(method: Method, uri: http::Uri) -> ApiError {
    let message = format!("there is no route {method} {}; /docs lists them", shortened(uri.path(), 256));
    ApiError::new(StatusCode::NOT_FOUND, "route_not_found", message)
}

async fn method_not_allowed(method: Method, uri: http::Uri) -> ApiError {
    let message =
        format!("{} does not answer {method}; /docs lists what it does", shortened(uri.path(), 256));
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
        middleware::REQUEST_ID,
        middleware::SERVER_TIMING,
        answer::FINGERPRINT,
        answer::MODEL,
        answer::SHAPE,
        answer::DTYPE,
    ];
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        // Clients send headers of their own (OpenAI's a dozen of x-stainless-…), and none gives a right.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(read)
        .max_age(Duration::from_secs(3600));
    Some(layer)
}
