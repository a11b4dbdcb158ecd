//! Errors leave here, and nowhere else: until then they are values ([`ApiError`] in the extensions of a response without
//! a body), so that each is written in the shape of the route that it belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;

use crate::api::edge::error::{ApiError, ErrorBody};
use crate::api::edge::middleware::REQUEST_ID;

/// Writes an error as a body and its content type; the status and the headers are there already.
pub type ErrorShape = fn(&ApiError) -> Response;

/// The shape of errors of each route.
#[derive(Clone, Default)]
pub struct ErrorShapes {
    routes: Arc<HashMap<String, ErrorShape>>,
}

impl ErrorShapes {
    /// Errors of the routes of `router` have this shape. The errors of all others have that of our own contract.
    pub fn register<S>(&mut self, router: &OpenApiRouter<S>, shape: ErrorShape)
    where
        S: Clone + Send + Sync + 'static,
    {
        let routes = Arc::make_mut(&mut self.routes);
        routes.extend(router.get_openapi().paths.paths.keys().map(|path| (path.clone(), shape)));
    }

    fn of(&self, route: Option<&MatchedPath>) -> ErrorShape {
        route.and_then(|route| self.routes.get(route.as_str())).copied().unwrap_or(native)
    }
}

/// The shape of our own contract, which is OpenAI's.
pub fn native(error: &ApiError) -> Response {
    Json(ErrorBody { error: (*error.detail).clone() }).into_response()
}

/// Writes the error of a response, if it has one. Answers of libraries (an error status with a plain text) become errors
/// of ours.
pub async fn render(State(shapes): State<ErrorShapes>, request: Request, next: Next) -> Response {
    let shape = shapes.of(request.extensions().get::<MatchedPath>());
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>().or_else(|| of_a_library(&response));
    let Some(mut error) = error else { return response };
    if error.cause.is_some()
        && let Some(id) = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok())
    {
        error.detail.message = format!("{} (request {id})", error.detail.message);
    }
    let (mut parts, _) = response.into_parts();
    let (written, body) = shape(&error).into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(written.headers);
    Response::from_parts(parts, Body::new(body))
}

fn of_a_library(response: &Response) -> Option<ApiError> {
    let status = response.status();
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    // The health routes say 503 in words of their own.
    let health = status == StatusCode::SERVICE_UNAVAILABLE;
    if json || health || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let reason = status.canonical_reason().unwrap_or("error").to_ascii_lowercase();
    Some(ApiError::new(status, "http_error", reason))
}
