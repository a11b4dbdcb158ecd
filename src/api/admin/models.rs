//! `/admin/models`: which models are loaded, adding, replacing and removing them. Needs a key of its own (`--admin-key`).

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::keys::{self, ApiKeys};
use crate::api::state::AppState;
use crate::engine::{EngineError, Model, ModelState, ModelStatus, Progress};

/// A reference is no longer than this.
const MAX_BODY_BYTES: usize = 16 << 10;

/// Who may change the models, and how one is opened.
#[derive(Debug, Clone)]
pub struct ModelAdmin {
    /// Keys of which a request must show one. There is at least one.
    pub keys: ApiKeys,
    /// Finds out what a reference means.
    pub opener: ModelOpener,
}

/// Loads a model, on a thread of its own.
pub type ModelLoader = Box<dyn FnOnce(&Progress) -> crate::Result<Arc<dyn Model>> + Send>;

type OpenModel = dyn Fn(&str) -> Result<(Vec<String>, ModelLoader), String> + Send + Sync;

/// Reads what `--model` takes: the names of the model, the first being the one that answers use, and how to load it; or
/// what is wrong with it.
#[derive(Clone)]
pub struct ModelOpener {
    open: Arc<OpenModel>,
}

impl ModelOpener {
    /// From a function that touches neither files nor network: that is what the loader does.
    pub fn new(
        open: impl Fn(&str) -> Result<(Vec<String>, ModelLoader), String> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Arc::new(open) }
    }
}

impl fmt::Debug for ModelOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelOpener")
    }
}

/// Every model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ManagedModels {
    /// In the order they were added; the first is the one that requests without a name get.
    pub models: Vec<ManagedModel>,
}

/// A model as operators see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ManagedModel {
    /// The name that answers use.
    pub id: String,
    /// Other names that requests may use.
    pub aliases: Vec<String>,
    /// How it is.
    pub load: LoadState,
    /// How the model is that is being loaded in its place, or why that failed last.
    pub replacement: Option<LoadState>,
    /// What it was loaded from; null until it was loaded once.
    pub source: Option<String>,
    /// Its embedding space; null until it was loaded once.
    pub fingerprint: Option<String>,
}

/// How a model is, with what is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoadState {
    /// `downloading`, `loading`, `warming`, `ready`, `unloaded` or `failed`.
    pub state: String,
    /// Bytes fetched so far, while it is being downloaded.
    pub downloaded_bytes: Option<u64>,
    /// Bytes to fetch, where that is known.
    pub total_bytes: Option<u64>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// A model to load.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadRequest {
    /// As `--model` takes it: a hub id with `@revision`, a folder, `demo`, each with `name=` in front for another name.
    #[schema(example = "search=google/siglip2-base-patch16-224@main")]
    pub model: String,
}

impl From<&ModelState> for LoadState {
    fn from(state: &ModelState) -> Self {
        let (downloaded_bytes, total_bytes) = match state {
            ModelState::Downloading { bytes, total } => (Some(*bytes), *total),
            _ => (None, None),
        };
        let reason = match state {
            ModelState::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        Self { state: state.label().to_owned(), downloaded_bytes, total_bytes, reason }
    }
}

impl From<ModelStatus> for ManagedModel {
    fn from(status: ModelStatus) -> Self {
        Self {
            load: (&status.state).into(),
            replacement: status.replacement.as_ref().map(LoadState::from),
            source: status.info.as_ref().map(|info| info.source.clone()),
            fingerprint: status.info.as_ref().map(|info| info.fingerprint.clone()),
            id: status.name,
            aliases: status.aliases,
        }
    }
}

/// Lists every model and how it is.
#[utoipa::path(
    get, path = "/admin/models", tag = "operations", operation_id = "admin_list_models",
    responses(
        (status = 200, description = "Every model", body = ManagedModels),
        (status = 401, description = "No key, or a wrong one", body = crate::api::edge::error::ErrorBody),
        (status = 403, description = "The service runs without --admin-key", body = crate::api::edge::error::ErrorBody),
    )
)]
pub async fn list(State(state): State<AppState>, headers: HeaderMap) -> ApiResult<Json<ManagedModels>> {
    authorize(&state, &headers)?;
    let models = state.engine().status().into_iter().map(ManagedModel::from).collect();
    Ok(Json(ManagedModels { models }))
}

/// Adds a model, or loads another one under a name there is: the old one serves until the new one is in its place, and a
/// load that fails changes nothing. Answers at once; the list says how the load goes.
#[utoipa::path(
    post, path = "/admin/models", tag = "operations", operation_id = "admin_load_model",
    request_body = LoadRequest,
    responses(
        (status = 202, description = "It is being loaded", body = ManagedModel),
        (status = 401, description = "No key, or a wrong one", body = crate::api::edge::error::ErrorBody),
        (status = 403, description = "The service runs without --admin-key", body = crate::api::edge::error::ErrorBody),
        (status = 409, description = "Its name is an alias of another model", body = crate::api::edge::error::ErrorBody),
        (status = 422, description = "It is no reference to a model", body = crate::api::edge::error::ErrorBody),
        (status = 503, description = "It is being loaded already", body = crate::api::edge::error::ErrorBody),
    )
)]
pub async fn load(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<(StatusCode, Json<ManagedModel>)> {
    let admin = authorize(&state, &headers)?;
    let bytes = axum::body::to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|_| ApiError::too_large(format!("a body of more than {MAX_BODY_BYTES} bytes")))?;
    let request: LoadRequest = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request("invalid_request", error.to_string()))?;
    let (names, loader) =
        (admin.opener.open)(&request.model).map_err(|error| ApiError::field("model", error))?;
    let engine = state.engine();
    let models = engine.status();
    let known = models.iter().any(|model| names.first() == Some(&model.name));
    match names.first().filter(|_| known) {
        Some(name) => engine.replace(name, loader)?,
        None => {
            // Only the first name has to be free.
            let taken =
                |name: &str| models.iter().any(|m| m.name == name || m.aliases.iter().any(|a| a == name));
            let aliases = names.iter().skip(1).filter(|name| !taken(name));
            let names: Vec<&str> = names.iter().take(1).chain(aliases).map(String::as_str).collect();
            engine.add(&names, loader)?;
        }
    }
    tracing::info!(model = request.model, replaces = known, "an operator has a model loaded");
    let model = engine.status().into_iter().find(|model| names.first() == Some(&model.name));
    let model = model.ok_or_else(|| ApiError::internal("the model that was added is not there"))?;
    Ok((StatusCode::ACCEPTED, Json(model.into())))
}

/// Removes a model: no new request finds it, and it finishes what it has.
#[utoipa::path(
    delete, path = "/admin/models/{id}", tag = "operations", operation_id = "admin_remove_model",
    params(("id" = String, Path, description = "One of the model's names")),
    responses(
        (status = 204, description = "It is removed"),
        (status = 401, description = "No key, or a wrong one", body = crate::api::edge::error::ErrorBody),
        (status = 403, description = "The service runs without --admin-key", body = crate::api::edge::error::ErrorBody),
        (status = 404, description = "There is no such model", body = crate::api::edge::error::ErrorBody),
    )
)]
pub async fn remove(
    State(state): State<AppState>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> ApiResult<StatusCode> {
    authorize(&state, &headers)?;
    let Path(id) =
        id.map_err(|error| ApiError::bad_request("invalid_request", error.body_text()).at("id"))?;
    state.engine().remove(&id).map_err(|error| match error {
        error @ EngineError::UnknownModel { .. } => {
            let mut error = ApiError::from(error);
            error.detail.param = Some("id".to_owned());
            error
        }
        error => error.into(),
    })?;
    tracing::info!(model = id, "an operator removed a model");
    Ok(StatusCode::NO_CONTENT)
}

fn authorize<'a>(state: &'a AppState, headers: &HeaderMap) -> ApiResult<&'a ModelAdmin> {
    let admin = state.config().model_admin.as_ref().ok_or_else(|| {
        let message = "models cannot be changed here: the service runs without --admin-key";
        ApiError::new(StatusCode::FORBIDDEN, "no_admin_key", message)
    })?;
    match keys::shown(headers) {
        Some(key) if admin.keys.contains(key) => Ok(admin),
        Some(_) => {
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "the admin key is not valid"))
        }
        None => {
            let message = "an admin key is needed: send it as Authorization: Bearer <key>";
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
        }
    }
}
