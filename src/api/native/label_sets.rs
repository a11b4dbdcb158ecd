//! `/v1/label-sets`: labels that are stored under a name.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::body::off_runtime;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::native::schema::{LabelSetAnswer, LabelSetList, ListTag, PutLabelSetRequest};
use crate::api::openapi::{ReadErrors, WorkErrors};
use crate::budget::MemoryKind;
use crate::labels::{Definition, LabelSets, Put, Version, check_name};

/// Bytes of what is said of a set at most, but for its models and its labels.
const ABOUT: usize = 1024;
/// Bytes of what is said of a set and one model at most: names are shortened by nobody but the operator.
const ABOUT_MODEL: usize = 2048;

/// The name in the path.
pub(super) type Name = Result<Path<String>, PathRejection>;

pub(super) fn name_of(name: Name) -> ApiResult<String> {
    let Path(name) =
        name.map_err(|error| ApiError::bad_request("invalid_request", error.body_text()).at("name"))?;
    Ok(name)
}

/// Lists the label sets, without their labels.
#[utoipa::path(
    get, path = "/v1/label-sets", tag = "classification", operation_id = "list_label_sets",
    responses((status = 200, description = "Every set", body = LabelSetList<'static>), ReadErrors)
)]
pub async fn list(call: Call) -> ApiResult<Response> {
    let sets = call.state.label_sets();
    let versions = sets.list();
    let models = call.state.engine().status().len();
    let room = ABOUT + versions.len() * (ABOUT + models * ABOUT_MODEL);
    let memory = call.charge(MemoryKind::Answer, room)?;
    let sets = sets.clone();
    let bytes = answer::build(memory, move || {
        let data = versions.iter().map(|version| LabelSetAnswer::of(&sets, version)).collect();
        let list = LabelSetList { object: ListTag::List, data, persistent: sets.is_persistent() };
        answer::document(&list, Format::Json, room)
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(bytes)).into_response())
}

/// Describes a label set, with its labels. `{name}@{version}` is found only as long as that version answers.
#[utoipa::path(
    get, path = "/v1/label-sets/{name}", tag = "classification", operation_id = "get_label_set",
    params(("name" = String, Path, description = "Its name, or `name@version`")),
    responses(
        (status = 200, description = "The set; its version is the entity tag", body = LabelSetAnswer<'static>),
        ReadErrors,
    )
)]
pub async fn get(name: Name, call: Call) -> ApiResult<Response> {
    let version = call.state.label_sets().get(&name_of(name)?)?;
    let models = call.state.engine().status().len();
    let room = ABOUT + models * ABOUT_MODEL + version.json_bytes();
    let memory = call.charge(MemoryKind::Answer, room)?;
    let sets = call.state.label_sets().clone();
    let tag = tag(&version);
    let bytes = answer::build(memory, move || {
        let mut answer = LabelSetAnswer::of(&sets, &version);
        answer.definition = Some(version.definition());
        answer::document(&answer, Format::Json, room)
    })
    .await?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::ETAG, tag)];
    Ok((headers, Body::from(bytes)).into_response())
}

/// Stores a label set, or replaces it.
///
/// Its texts are encoded in the background; until that is done the version before answers, or 503 where there is none. What
/// answers follow from has a version, which is also the entity tag: with `If-Match` only that version is replaced, with
/// `If-None-Match: *` none is. Examples of labels that the set still has are kept. Sets are in memory unless the service has a
/// `--data-dir`; `persistent` says so.
#[utoipa::path(
    put, path = "/v1/label-sets/{name}", tag = "classification", operation_id = "put_label_set",
    params(
        ("name" = String, Path, description = "1 to 100 letters, digits, `.`, `_` or `-`, the first a letter or a digit"),
        ("wait" = Option<bool>, Query,
         description = "Whether the answer waits until the set is encoded for its model, or the request's time is over"),
        ("If-Match" = Option<String>, Header, description = "Versions of which the set must have one"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the set must not exist"),
    ),
    request_body(content = Definition),
    responses(
        (status = 200, description = "It is replaced", body = LabelSetAnswer<'static>),
        (status = 201, description = "It is stored", body = LabelSetAnswer<'static>),
        (status = 409, description = "There are as many sets as the service keeps, for all or for this key", body = crate::api::edge::error::ErrorBody),
        WorkErrors,
    )
)]
pub async fn put(name: Name, call: Call, body: Body) -> ApiResult<Response> {
    let name = name_of(name)?;
    if !call.media.is_json() {
        return Err(call.media.unsupported("application/json", "add -H 'Content-Type: application/json'"));
    }
    let query: PutLabelSetRequest = call.query()?;
    let condition = call.condition()?;
    check_name(&name)?;
    let body = call.read(body).await?;
    let (definition, memory) =
        call.json(body, |definition: Definition, memory| Ok((definition, memory))).await?;
    let owner = call.key_name();
    let put = change(&call, move |sets| {
        let put = sets.put(&name, definition, &condition, owner.as_deref())?;
        drop(memory);
        Ok(put)
    })
    .await?;
    if query.wait == Some(true) {
        settled(&call, &put.version).await;
    }
    stored(&call, put)
}

/// Waits until a version is encoded for its model, or cannot be: the answer says which.
async fn settled(call: &Call, version: &Version) {
    // A model that is being loaded encodes it when it is there.
    let Ok(model) = call.model(version.definition().model.as_deref()) else { return };
    // What is left is for the answer.
    let left = call.context.deadline - call.context.started;
    let deadline = call.context.deadline - (left / 10).min(Duration::from_secs(1));
    let _ = call.state.label_sets().when_ready(version.name(), &model, deadline).await;
}

/// Changes label sets, off the runtime and one after the other: those who wait hold no thread.
///
/// # Errors
/// 504 if its turn does not come in time, and those of `work`.
pub(super) async fn change<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce(&LabelSets) -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    let sets = call.state.label_sets().clone();
    let turn = tokio::time::timeout_at(call.context.deadline.into(), sets.turn()).await;
    let turn = turn.map_err(|_| call.context.late())?;
    off_runtime(usize::MAX, move || {
        let _turn = turn;
        work(&sets)
    })
    .await
}

/// The answer to a change.
pub(super) fn stored(call: &Call, put: Put) -> ApiResult<Response> {
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    let sets = call.state.label_sets();
    let about = LabelSetAnswer::of(sets, &put.version);
    Ok((status, [(header::ETAG, tag(&put.version))], json(&about)?).into_response())
}

/// Removes a label set.
#[utoipa::path(
    delete, path = "/v1/label-sets/{name}", tag = "classification", operation_id = "delete_label_set",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = Option<String>, Header, description = "Versions of which the set must have one"),
    ),
    responses(
        (status = 204, description = "It is removed"),
        (status = 412, description = "It is at another version", body = crate::api::edge::error::ErrorBody),
        (status = 422, description = "No set can have that name", body = crate::api::edge::error::ErrorBody),
        (status = 504, description = "Not finished in time", body = crate::api::edge::error::ErrorBody),
        ReadErrors,
    )
)]
pub async fn delete(name: Name, call: Call) -> ApiResult<StatusCode> {
    let (name, condition) = (name_of(name)?, call.condition()?);
    change(&call, move |sets| Ok(sets.delete(&name, &condition)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A version as an entity tag (RFC 9110, section 8.8.3).
pub(super) fn tag(version: &Version) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", version.id())).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A small document.
pub(super) fn json(document: &impl Serialize) -> ApiResult<Response> {
    let bytes = answer::document(document, Format::Json, ABOUT)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(bytes)).into_response())
}
