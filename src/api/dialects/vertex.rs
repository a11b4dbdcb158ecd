//! Vertex AI's multimodal embeddings (`:predict`): each instance a text, a picture, or both, each with a vector of its own.

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use serde_json::json;

use super::common::{self, Room, Says, Segments, check_width, respond, segments, unit, vectors};
use super::parts::request;
use super::{Dialect, Route, parses};
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::keys::KeyPlace;
use crate::api::inputs::{Batch, EACH_INPUT, check_count};
use crate::api::read::{Bounded, Heap, missing};
use crate::budget::Charge;

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "vertex",
    about: "Vertex AI's multimodal embeddings; the model is the one served here",
    routes: &[Route::post(
        "/v1/projects/{project}/locations/{location}/publishers/google/models/{model}",
        || post(predict),
    )],
    below: &["/v1/projects/"],
    shares: &[],
    shape,
    key: Some(KeyPlace::Header("x-goog-api-key")),
    parse: parses::<Request>,
    example: r#"curl localhost:8080/v1/projects/p/locations/l/publishers/google/models/demo:predict \
  -H 'content-type: application/json' -d '{"instances": [{"text": "a cat"}]}'"#,
};

/// As Google's APIs write errors (`google/rpc/code.proto`).
fn shape(error: &ApiError) -> Response {
    let status = match error.status.as_u16() {
        401 => "UNAUTHENTICATED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        412 => "FAILED_PRECONDITION",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    let code = error.status.as_u16();
    Json(json!({"error": {"code": code, "message": error.detail.message, "status": status}})).into_response()
}

request! {
    struct Request {
        instances: Bounded<Instance>,
        parameters: Parameters,
    }
}

request! {
    struct Parameters {
        dimension: usize,
    }
}

request! {
    struct Instance {
        text: String,
        image: Image,
        video: serde::de::IgnoredAny,
    }
}

impl Heap for serde::de::IgnoredAny {}

request! {
    struct Image {
        #[serde(rename = "bytesBase64Encoded")]
        bytes: String,
        #[serde(rename = "gcsUri")]
        address: String,
    }
}

/// Where the vectors of an instance are among those of the request.
struct Places {
    text: bool,
    image: bool,
}

fn resolve(instances: Vec<Instance>, most: usize, memory: Charge) -> ApiResult<(Batch, Vec<Places>)> {
    check_count("instances", instances.len(), crate::api::read::MOST)?;
    let pictures = instances.iter().filter(|instance| instance.image.is_some()).count();
    if pictures > 0 {
        check_count("instances", pictures, most)?;
    }
    let mut batch = Batch::new(memory);
    batch.memory.grow(instances.len() * 2 * EACH_INPUT)?;
    let mut places = Vec::with_capacity(instances.len());
    for (index, instance) in instances.into_iter().enumerate() {
        let place = |field: &str| format!("instances[{index}].{field}");
        if instance.video.is_some() {
            return Err(ApiError::field(&place("video"), "the model takes texts and pictures only"));
        }
        places.push(Places { text: instance.text.is_some(), image: instance.image.is_some() });
        let nothing = instance.text.is_none() && instance.image.is_none();
        if let Some(text) = instance.text {
            batch.push_text(place("text"), text);
        }
        match instance.image {
            Some(Image { bytes: Some(bytes), address: None }) => {
                batch.push_encoded(place("image"), &bytes);
                batch.memory.shrink(bytes.heap());
            }
            Some(Image { address: Some(_), .. }) => {
                return Err(ApiError::field(&place("image"), "pictures are sent as bytesBase64Encoded here"));
            }
            Some(_) => return Err(ApiError::field(&place("image"), "bytesBase64Encoded is missing")),
            None if nothing => {
                return Err(ApiError::field(&format!("instances[{index}]"), "neither text nor image"));
            }
            None => {}
        }
    }
    Ok((batch, places))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    predictions: Vec<Prediction>,
    deployed_model_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Prediction {
    #[serde(skip_serializing_if = "Option::is_none")]
    text_embedding: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_embedding: Option<Vec<f32>>,
}

async fn predict(path: Segments<(String, String, String)>, call: Call, body: Body) -> ApiResult<Response> {
    let (_, _, named) = segments(path)?;
    let Some(name) = named.strip_suffix(":predict") else {
        let message = "the path ends with a model and :predict";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "route_not_found", message));
    };
    let model = call.model(Some(name))?;
    let most = call.state.config().max_items;
    let (batch, places, width) = common::json(&call, body, Says::Json, move |request: Request, memory| {
        let instances = request.instances.ok_or_else(|| missing("instances"))?.0;
        let (batch, places) = resolve(instances, most, memory)?;
        Ok((batch, places, request.parameters.and_then(|parameters| parameters.dimension)))
    })
    .await?;
    check_width("parameters.dimension", width, &model)?;
    let embedded = vectors(&call, &model, batch).await?;
    let name = model.name().to_owned();
    let room = Room { beside: name.len() + 100 * places.len(), ..Room::default() };
    respond(&call, &model, embedded, room, move |all| {
        let mut all = all.iter().map(unit);
        let prediction = |of: Places| Prediction {
            text_embedding: of.text.then(|| all.next()).flatten(),
            image_embedding: of.image.then(|| all.next()).flatten(),
        };
        Answer { predictions: places.into_iter().map(prediction).collect(), deployed_model_id: name }
    })
    .await
}
