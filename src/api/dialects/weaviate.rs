//! Weaviate's multi2vec-clip (`weaviate/multi2vec-clip-inference`, `app.py`; `modules/multi2vec-clip/clients`). Its client
//! sends no Content-Type, and can only be given an address: a key goes into it as a password.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::json;

use super::common::{self, Room, Says, respond, unit, vectors};
use super::parts::request;
use super::{Dialect, Route, parses};
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::keys::KeyPlace;
use crate::api::inputs::Batch;
use crate::api::native::schema::Model;
use crate::api::read::Bounded;
use crate::api::state::AppState;

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "weaviate",
    about: "Weaviate's multi2vec-clip (CLIP_INFERENCE_API)",
    routes: &[
        Route::post("/vectorize", || post(vectorize)),
        Route::get("/meta", || get(meta)),
        Route::open("/.well-known/live", || get(live)),
        Route::open("/.well-known/ready", || get(ready)),
    ],
    below: &["/.well-known/"],
    shares: &[],
    shape,
    key: Some(KeyPlace::Password),
    parse: parses::<Request>,
    example: "curl localhost:8080/vectorize -d '{\"texts\": [\"a plane\"], \"images\": [\"iVBORw0KGgo…\"]}'",
};

fn shape(error: &ApiError) -> Response {
    Json(json!({"error": error.detail.message})).into_response()
}

request! {
    struct Request {
        texts: Bounded<String>,
        images: Bounded<String>,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    text_vectors: Vec<Vec<f32>>,
    image_vectors: Vec<Vec<f32>>,
}

async fn vectorize(call: Call, body: Body) -> ApiResult<Response> {
    let model = call.model(None)?;
    let most = call.state.config().max_items;
    let (batch, texts) = common::json(&call, body, Says::Anything, move |request: Request, memory| {
        let mut batch = Batch::new(memory);
        let (texts, images) = (request.texts.unwrap_or_default().0, request.images.unwrap_or_default().0);
        let count = texts.len();
        batch.push_texts("texts", texts)?;
        batch.push_pictures("images", images, most)?;
        Ok((batch, count))
    })
    .await?;
    let embedded = vectors(&call, &model, batch).await?;
    respond(&call, &model, embedded, Room::default(), move |all| {
        let (texts, images) = all.split_at(texts);
        let units = |of: &[_]| of.iter().map(unit).collect();
        Answer { text_vectors: units(texts), image_vectors: units(images) }
    })
    .await
}

async fn meta(State(state): State<AppState>) -> ApiResult<Json<Model>> {
    let model = state.engine().model(None)?;
    Ok(Json(Model::new(model.name(), model.info(), &model.state(), state.started())))
}

async fn live(State(state): State<AppState>) -> StatusCode {
    if state.engine().failing() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
}

async fn ready(State(state): State<AppState>) -> StatusCode {
    if state.is_ready() { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}
