//! Errors leave here, and nowhere else: until then they are values ([`ApiError`] in the extensions of a response without
//! a body), so that each is written in the shape of the route that it belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;

use crate::api::edge::error::{ApiError, ErrorBody};
use crate::api::edge::keys::KeyPlace;
use crate::api::edge::middleware::REQUEST_ID;

/// Writes an error as a body and its content type; the status and the headers are there already.
pub type ErrorShape = fn(&ApiError) -> Response;

/// How a route speaks of what is not its own work.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// How it writes errors.
    pub shape: ErrorShape,
    /// Where its clients put their key, beside the usual places.
    pub key: Option<KeyPlace>,
}

impl Style {
    const NATIVE: Self = Self { shape: native, key: None };
}

/// The style of each route. What has none has that of our own contract.
#[derive(Clone, Default)]
pub struct Styles {
    table: Arc<Table>,
}

#[derive(Clone, Default)]
struct Table {
    /// By path; without a method, what holds for the other methods.
    routes: HashMap<String, Vec<(Option<Method>, Style)>>,
    /// For paths that are no route: the beginning of a path, and the style below it.
    below: Vec<(&'static str, Style)>,
}

impl Styles {
    /// The routes of `router` are our own, whatever the method.
    pub fn own<S>(&mut self, router: &OpenApiRouter<S>)
    where
        S: Clone + Send + Sync + 'static,
    {
        let routes = &mut Arc::make_mut(&mut self.table).routes;
        let paths = router.get_openapi().paths.paths.keys();
        routes.extend(paths.map(|path| (path.clone(), vec![(None, Style::NATIVE)])));
    }

    /// A route has this style; so have other methods at its path, unless it was registered before.
    pub fn route(&mut self, method: Method, path: &str, style: Style) {
        let routes = &mut Arc::make_mut(&mut self.table).routes;
        let of_path = routes.entry(path.to_owned()).or_insert_with(|| vec![(None, style)]);
        of_path.push((Some(method), style));
    }

    /// Paths that begin so and are no route have this style.
    pub fn below(&mut self, beginning: &'static str, style: Style) {
        Arc::make_mut(&mut self.table).below.push((beginning, style));
    }

    fn of(&self, request: &Request) -> Style {
        let found = match request.extensions().get::<MatchedPath>() {
            Some(path) => self.table.routes.get(path.as_str()).and_then(|of_path| {
                let own = of_path.iter().find(|(method, _)| method.as_ref() == Some(request.method()));
                own.or_else(|| of_path.iter().find(|(method, _)| method.is_none())).map(|(_, style)| *style)
            }),
            None => {
                let begins = |(beginning, _): &&(&str, Style)| request.uri().path().starts_with(beginning);
                let longest = self.table.below.iter().filter(begins).max_by_key(|(path, _)| path.len());
                longest.map(|(_, style)| *style)
            }
        };
        found.unwrap_or(Style::NATIVE)
    }
}

/// The shape of our own contract, which is OpenAI's.
pub fn native(error: &ApiError) -> Response {
    Json(ErrorBody { error: (*error.detail).clone() }).into_response()
}

/// Writes the error of a response, if it has one. Answers of libraries (an error status with a plain text) become errors
/// of ours.
pub async fn render(State(styles): State<Styles>, mut request: Request, next: Next) -> Response {
    let Style { shape, key } = styles.of(&request);
    if let Some(key) = key {
        request.extensions_mut().insert(key);
    }
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
