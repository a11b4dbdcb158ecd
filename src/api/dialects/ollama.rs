//! Ollama's embeddings (`ollama/ollama`, `server/routes.go`, `docs/api.md`). Pictures, which Ollama does not embed, are
//! `images` as in its other routes.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json};

use super::common::{self, Room, Says, Truncate, check_width, respond, unit, vectors};
use super::parts::{Strings, request};
use super::{Dialect, Route, parses};
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::Batch;
use crate::api::read::{Bounded, missing};
use crate::api::state::AppState;
use crate::engine::ModelHandle;
use crate::pipeline::{ModelInfo, Precision};

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "ollama",
    about: "Ollama's embeddings; pictures as images",
    routes: &[
        Route::post("/api/embed", || post(embed)),
        Route::post("/api/embeddings", || post(embeddings)),
        Route::get("/api/tags", || get(tags)),
        Route::open("/api/version", || get(version)),
    ],
    below: &["/api/"],
    shares: &[],
    shape,
    key: None,
    parse: |data| {
        parses::<Request>(data);
        parses::<OldRequest>(data);
    },
    example: "curl localhost:8080/api/embed -d '{\"model\": \"demo\", \"input\": [\"a cat\", \"a dog\"]}'",
};

fn shape(error: &ApiError) -> Response {
    Json(json!({"error": error.detail.message})).into_response()
}

request! {
    struct Request {
        model: String,
        input: Strings,
        images: Bounded<String>,
        truncate: Truncate,
        dimensions: usize,
    }
}

request! {
    struct OldRequest {
        model: String,
        prompt: String,
        images: Bounded<String>,
    }
}

/// The model of that name; `name:latest` is `name`.
fn model(call: &Call, name: Option<&str>) -> ApiResult<ModelHandle> {
    let name = name.ok_or_else(|| missing("model"))?;
    call.model(Some(name.strip_suffix(":latest").unwrap_or(name)))
}

#[derive(Serialize)]
struct Answer {
    model: String,
    embeddings: Vec<Vec<f32>>,
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: usize,
}

async fn embed(call: Call, body: Body) -> ApiResult<Response> {
    let most = call.state.config().max_items;
    let (batch, request) = common::json(&call, body, Says::Anything, move |mut request: Request, memory| {
        let texts = request.input.take().map(|input| input.items).unwrap_or_default();
        let images = request.images.take().unwrap_or_default().0;
        if texts.is_empty() && images.is_empty() {
            return Err(missing("input"));
        }
        request.truncate.unwrap_or_default().check("truncate")?;
        let mut batch = Batch::new(memory);
        batch.push_texts("input", texts)?;
        batch.push_pictures("images", images, most)?;
        Ok((batch, request))
    })
    .await?;
    let model = model(&call, request.model.as_deref())?;
    check_width("dimensions", request.dimensions, &model)?;
    let embedded = vectors(&call, &model, batch).await?;
    let truncate = request.truncate.unwrap_or_default();
    truncate.apply(embedded.all.iter().enumerate(), &model, |index| format!("input[{index}]"))?;
    let (name, started) = (request.model.unwrap_or_default(), call.context.started);
    let room = Room { beside: 2 * crate::api::answer::escaped(&name), ..Room::default() };
    respond(&call, &model, embedded, room, move |all| Answer {
        model: name,
        embeddings: all.iter().map(unit).collect(),
        total_duration: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        load_duration: 0,
        prompt_eval_count: all.iter().map(|of| of.tokens).sum(),
    })
    .await
}

#[derive(Serialize)]
struct OldAnswer {
    embedding: Option<Vec<f32>>,
}

/// The older route: one prompt or one picture, one vector.
async fn embeddings(call: Call, body: Body) -> ApiResult<Response> {
    let (batch, request) =
        common::json(&call, body, Says::Anything, move |mut request: OldRequest, memory| {
            let images = request.images.take().unwrap_or_default().0;
            let mut batch = Batch::new(memory);
            match request.prompt.take().filter(|prompt| !prompt.is_empty()) {
                Some(prompt) => batch.push_text("prompt".to_owned(), prompt),
                None if images.is_empty() => return Err(missing("prompt")),
                None => {}
            }
            batch.push_pictures("images", images, 1)?;
            match batch.len() {
                1 => Ok((batch, request)),
                _ => Err(ApiError::field(
                    "images",
                    "give either a prompt or one picture: the answer is one vector",
                )),
            }
        })
        .await?;
    let model = model(&call, request.model.as_deref())?;
    let embedded = vectors(&call, &model, batch).await?;
    respond(&call, &model, embedded, Room::default(), |all| OldAnswer { embedding: all.first().map(unit) })
        .await
}

async fn tags(State(state): State<AppState>) -> Json<Value> {
    let models: Vec<Value> = state.engine().models().iter().map(tag).collect();
    Json(json!({"models": models}))
}

fn tag(model: &ModelHandle) -> Value {
    let info = model.info();
    let name = format!("{}:latest", model.name());
    json!({
        "name": name,
        "model": name,
        "size": bytes(info),
        "digest": info.fingerprint,
        "details": {
            "parent_model": "",
            "format": "safetensors",
            "family": info.family,
            "families": [info.family],
            "parameter_size": format!("{}M", info.parameters.div_ceil(1_000_000)),
            "quantization_level": info.dtype.name().to_uppercase(),
        },
    })
}

/// Bytes of the parameters.
fn bytes(info: &ModelInfo) -> usize {
    let each = match info.dtype {
        Precision::Auto | Precision::F32 => 4,
        Precision::Bf16 | Precision::F16 => 2,
        Precision::Int8 => 1,
    };
    info.parameters.saturating_mul(each)
}

async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
