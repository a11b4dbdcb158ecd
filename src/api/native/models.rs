//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::native::schema::{ListTag, Model, ModelList};
use crate::api::openapi::ReadErrors;
use crate::api::state::AppState;

/// Lists the models; the first is the one that requests without a name get.
#[utoipa::path(
    get, path = "/v1/models", tag = "models", operation_id = "list_models",
    responses((status = 200, description = "Every model", body = ModelList), ReadErrors)
)]
pub async fn list(State(state): State<AppState>) -> Json<ModelList> {
    let models = state.engine().models();
    let data = models
        .iter()
        .map(|model| Model::new(model.name(), model.info(), &model.state(), state.started()))
        .collect();
    Json(ModelList { object: ListTag::List, data })
}

/// Describes one model.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "models", operation_id = "get_model",
    params(("id" = String, Path, description = "The model's name")),
    responses((status = 200, description = "The model", body = Model), ReadErrors)
)]
pub async fn get(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> ApiResult<Json<Model>> {
    let Path(id) =
        id.map_err(|error| ApiError::bad_request("invalid_request", error.body_text()).at("id"))?;
    let model = state.engine().model(Some(&id))?;
    Ok(Json(Model::new(model.name(), model.info(), &model.state(), state.started())))
}

/// The same for a name with a slash in it, `owner/name`.
pub async fn get_of_owner(
    state: State<AppState>,
    id: Result<Path<(String, String)>, PathRejection>,
) -> ApiResult<Json<Model>> {
    get(state, id.map(|Path((owner, name))| Path(format!("{owner}/{name}")))).await
}
