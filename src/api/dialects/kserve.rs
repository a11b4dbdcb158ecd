//! The inference protocol of KServe and Triton, version 2 (`kserve/open-inference-protocol`), and its extension for binary
//! tensors (`triton-inference-server/server`, `docs/protocol/extension_binary_data.md`).
//!
//! A model takes one tensor of BYTES, `image` (encoded pictures; base64 or data: URLs where the tensor is JSON) or `text`, and
//! gives `embedding`, FP32 of shape [n, width].

use std::fmt;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::common::{Room, Segments, Vectors, respond, segments, unit, vectors};
use super::parts::{Only, Part, batch_of, request};
use super::{Dialect, Route, parses};
use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult, quoted};
use crate::api::edge::negotiate::Format;
use crate::api::inputs::{Batch, EACH_INPUT, check_count};
use crate::api::read::{Bounded, Heap, MOST, missing, text};
use crate::api::state::AppState;
use crate::budget::{Charge, MemoryKind};
use crate::engine::{EngineError, ModelHandle, ModelState};

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "kserve",
    about: "KServe and Triton, version 2 of their protocol, with binary tensors",
    routes: &[
        Route::open("/v2", || get(server)),
        Route::open("/v2/health/live", || get(live)),
        Route::open("/v2/health/ready", || get(ready)),
        Route::get("/v2/models/{model}", || get(model)),
        Route::get("/v2/models/{model}/ready", || get(model_ready)),
        Route::post("/v2/models/{model}/infer", || post(infer)),
        Route::get("/v2/models/{model}/versions/{version}", || get(version)),
        Route::get("/v2/models/{model}/versions/{version}/ready", || get(version_ready)),
        Route::post("/v2/models/{model}/versions/{version}/infer", || post(infer_version)),
    ],
    below: &["/v2/models/", "/v2/health/"],
    shares: &[],
    shape,
    key: None,
    parse: |data| {
        parses::<Request>(data);
        let _ = elements(&Bytes::copy_from_slice(data), "text", MOST);
    },
    example: r#"curl localhost:8080/v2/models/demo/infer -H 'content-type: application/json' -d '{"inputs": [
  {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a cat", "a dog"]}]}'"#,
};

/// Bytes of JSON at the beginning of a body, or an answer, with binary tensors.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const OUTPUT: &str = "embedding";
/// The only version of a model.
const VERSION: &str = "1";

fn shape(error: &ApiError) -> Response {
    Json(json!({"error": error.detail.message})).into_response()
}

async fn server() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({"name": "siglip", "version": version, "extensions": ["binary_tensor_data"]}))
}

async fn live(State(state): State<AppState>) -> StatusCode {
    if state.engine().failing() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn ready(State(state): State<AppState>) -> StatusCode {
    if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The name of a model out of `{model}/versions/{version}`.
fn versioned(path: Segments<(String, String)>) -> ApiResult<String> {
    let (name, version) = segments(path)?;
    if version != VERSION {
        let message = format!("there is only version {VERSION}, not {}", quoted(&version));
        return Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message));
    }
    Ok(name)
}

async fn model(path: Segments<String>, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    describe(&state, &segments(path)?)
}

async fn version(path: Segments<(String, String)>, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    describe(&state, &versioned(path)?)
}

fn describe(state: &AppState, name: &str) -> ApiResult<Json<Value>> {
    let model = state.engine().model(Some(name))?;
    let info = model.info();
    let towers = [("image", info.image.is_some()), ("text", info.text.is_some())];
    let input = |(name, _)| json!({"name": name, "datatype": "BYTES", "shape": [-1]});
    let inputs: Vec<Value> = towers.into_iter().filter(|(_, there)| *there).map(input).collect();
    Ok(Json(json!({
        "name": model.name(),
        "versions": [VERSION],
        "platform": "siglip",
        "inputs": inputs,
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, info.embedding_dim]}],
    })))
}

async fn model_ready(path: Segments<String>, State(state): State<AppState>) -> ApiResult<StatusCode> {
    is_ready(&state, &segments(path)?)
}

async fn version_ready(
    path: Segments<(String, String)>,
    State(state): State<AppState>,
) -> ApiResult<StatusCode> {
    is_ready(&state, &versioned(path)?)
}

fn is_ready(state: &AppState, name: &str) -> ApiResult<StatusCode> {
    match state.engine().model(Some(name)) {
        Ok(model) if matches!(model.state(), ModelState::Failed { .. }) => {
            Ok(StatusCode::SERVICE_UNAVAILABLE)
        }
        Ok(_) => Ok(StatusCode::OK),
        Err(EngineError::Loading { .. }) => Ok(StatusCode::SERVICE_UNAVAILABLE),
        Err(error) => Err(error.into()),
    }
}

request! {
    struct Request {
        id: String,
        inputs: Only<Tensor>,
        outputs: Only<Output>,
        parameters: Parameters,
    }
}

request! {
    struct Tensor {
        name: String,
        datatype: String,
        data: Flat,
        parameters: Parameters,
    }
}

request! {
    struct Output {
        name: String,
        parameters: Parameters,
    }
}

request! {
    struct Parameters {
        binary_data_size: usize,
        binary_data_output: bool,
        binary_data: bool,
    }
}

/// A tensor of strings in JSON: a list, or a list of lists of one.
#[derive(Debug)]
struct Flat(Vec<String>);

impl Heap for Flat {
    fn heap(&self) -> usize {
        self.0.heap()
    }
}

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bounded::<Cell>::deserialize(deserializer)
            .map(|list| Self(list.0.into_iter().map(|cell| cell.0).collect()))
    }
}

/// A string, or a list of one.
struct Cell(String);

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CellVisitor;

        impl<'de> Visitor<'de> for CellVisitor {
            type Value = Cell;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cell, E> {
                Ok(Cell(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Cell, A::Error> {
                Only::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(|only| Cell(only.0))
            }
        }

        deserializer.deserialize_any(CellVisitor)
    }
}

/// A request, resolved.
struct Task {
    batch: Batch,
    id: Option<String>,
    binary: bool,
}

impl Request {
    /// `tensors` are the binary tensors behind the JSON.
    fn resolve(self, tensors: Bytes, most: usize, mut memory: Charge) -> ApiResult<Task> {
        let parameters = self.parameters.unwrap_or_default();
        let mut binary = parameters.binary_data_output.unwrap_or(false);
        if let Some(Only(output)) = self.outputs {
            let name = output.name.unwrap_or_default();
            if name != OUTPUT {
                let message = format!("the model has the output {OUTPUT}, not {}", quoted(&name));
                return Err(ApiError::bad_request("invalid_request", message));
            }
            binary = output.parameters.and_then(|parameters| parameters.binary_data).unwrap_or(binary);
        }
        let Only(tensor) = self.inputs.ok_or_else(|| missing("inputs"))?;
        let name = tensor.name.unwrap_or_default();
        let pictures = match name.as_str() {
            "image" => true,
            "text" => false,
            other => {
                let message = format!("the model has the inputs image and text, not {}", quoted(other));
                return Err(ApiError::bad_request("invalid_request", message));
            }
        };
        if tensor.datatype.as_deref() != Some("BYTES") {
            let message = format!("the input {name} has the datatype BYTES");
            return Err(ApiError::bad_request("invalid_request", message));
        }
        let size = tensor.parameters.and_then(|parameters| parameters.binary_data_size);
        let place = |index| format!("{name}[{index}]");
        let batch = match (tensor.data, size) {
            (Some(Flat(data)), None) => {
                let part = if pictures { Part::Picture } else { Part::Text };
                batch_of(&name, data.into_iter().map(part).collect(), most, memory, place)?
            }
            (None, Some(size)) if size == tensors.len() => {
                let limit = if pictures { most } else { MOST };
                // While the list grows there are two of it.
                let longest = limit.min(tensors.len() / size_of::<u32>()) + 1;
                memory.grow(longest * 3 * size_of::<Bytes>())?;
                let elements = elements(&tensors, &name, limit)?;
                check_count(&name, elements.len(), limit)?;
                let mut batch = Batch::new(memory);
                batch.memory.grow(elements.len() * (EACH_INPUT + size_of::<Bytes>()))?;
                for (index, bytes) in elements.into_iter().enumerate() {
                    match pictures {
                        true => batch.push_picture(place(index), bytes),
                        false => {
                            batch.memory.grow(bytes.len())?;
                            batch.push_text(place(index), text(&bytes, &name)?.to_owned());
                        }
                    }
                }
                batch
            }
            (None, Some(size)) => {
                let message =
                    format!("binary_data_size is {size}, and {} bytes come after the JSON", tensors.len());
                return Err(ApiError::bad_request("invalid_request", message));
            }
            _ => return Err(missing("data")),
        };
        Ok(Task { batch, id: self.id, binary })
    }
}

/// The elements of a BYTES tensor: each its length in four bytes, little-endian, and itself. Slices of it.
fn elements(tensor: &Bytes, name: &str, most: usize) -> ApiResult<Vec<Bytes>> {
    let cut = || ApiError::bad_request("invalid_request", "the tensor ends within an element").at(name);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tensor.len() {
        let start = at + size_of::<u32>();
        let head = tensor.get(at..start).and_then(|head| head.try_into().ok()).ok_or_else(cut)?;
        let length = usize::try_from(u32::from_le_bytes(head)).map_err(|_| cut())?;
        at = start.checked_add(length).filter(|end| *end <= tensor.len()).ok_or_else(cut)?;
        found.push(tensor.slice(start..at));
        check_count(name, found.len(), most)?;
    }
    Ok(found)
}

async fn infer(path: Segments<String>, call: Call, body: Body) -> ApiResult<Response> {
    run(call, segments(path)?, body).await
}

async fn infer_version(path: Segments<(String, String)>, call: Call, body: Body) -> ApiResult<Response> {
    run(call, versioned(path)?, body).await
}

async fn run(call: Call, name: String, body: Body) -> ApiResult<Response> {
    let model = call.model(Some(&name))?;
    let wrong = |message: &str| ApiError::bad_request("invalid_header", message).at(HEADER_LENGTH.as_str());
    if call.header("content-encoding").is_some_and(|coding| coding != "identity") {
        let message = "compressed bodies are not read here";
        let error = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message);
        return Err(error.at("Content-Encoding"));
    }
    let length = match call.header(HEADER_LENGTH.as_str()) {
        None => None,
        Some(length) => {
            Some(length.trim().parse::<usize>().map_err(|_| wrong("should be a number of bytes"))?)
        }
    };
    let body = call.read(body).await?;
    let length = length.unwrap_or(body.len());
    if length > body.len() {
        return Err(wrong("more than the body"));
    }
    let (document, tensors) = (body.slice(..length), body.slice(length..));
    drop(body);
    let most = call.state.config().max_items;
    let read = move |request: Request, memory| request.resolve(tensors, most, memory);
    let Task { batch, id, binary } = call.json(document, read).await?;
    let embedded = vectors(&call, &model, batch).await?;
    match binary {
        true => binary_answer(&call, &model, embedded, id).await,
        false => {
            let (model_name, width) = (model.name().to_owned(), model.info().embedding_dim);
            let beside = model_name.len() + 2 * id.as_deref().map_or(0, answer::escaped);
            let room = Room { beside, ..Room::default() };
            respond(&call, &model, embedded, room, move |all| {
                let data: Vec<f32> = all.iter().flat_map(unit).collect();
                document_of(&model_name, id, all.len(), width, Tail::Data(data))
            })
            .await
        }
    }
}

#[derive(serde::Serialize)]
struct Answer {
    model_name: String,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: [Outcome; 1],
}

#[derive(serde::Serialize)]
struct Outcome {
    name: &'static str,
    datatype: &'static str,
    shape: [usize; 2],
    #[serde(flatten)]
    tail: Tail,
}

/// Where the numbers are.
#[derive(serde::Serialize)]
enum Tail {
    #[serde(rename = "data")]
    Data(Vec<f32>),
    #[serde(rename = "parameters")]
    Behind { binary_data_size: usize },
}

fn document_of(model: &str, id: Option<String>, rows: usize, width: usize, tail: Tail) -> Answer {
    let outcome = Outcome { name: OUTPUT, datatype: "FP32", shape: [rows, width], tail };
    Answer { model_name: model.to_owned(), model_version: VERSION, id, outputs: [outcome] }
}

/// JSON, and behind it the rows, little-endian.
async fn binary_answer(
    call: &Call,
    model: &ModelHandle,
    embedded: Vectors,
    id: Option<String>,
) -> ApiResult<Response> {
    let Vectors { all, fingerprint, timings } = embedded;
    let width = model.info().embedding_dim;
    let size = all.len().saturating_mul(width).saturating_mul(size_of::<f32>());
    let name = model.name().to_owned();
    let beside = 1000 + name.len() + 2 * id.as_deref().map_or(0, answer::escaped);
    // The vectors that the engine gave, the rows, and the document and a row once more while it is written.
    let room = size.saturating_mul(2).saturating_add(width * size_of::<f32>()).saturating_add(2 * beside);
    let memory = call.charge(MemoryKind::Answer, room)?;
    let bytes = answer::build(memory, move || {
        let tail = Tail::Behind { binary_data_size: size };
        let mut bytes =
            answer::document(&document_of(&name, id, all.len(), width, tail), Format::Json, beside)?;
        bytes.reserve_exact(size);
        for embedding in &all {
            bytes.extend(unit(embedding).iter().flat_map(|x| x.to_le_bytes()));
        }
        Ok(bytes)
    })
    .await?;
    let length = bytes.len() - size;
    let mut response = answer::respond(bytes, Format::OctetStream, model, &fingerprint, timings);
    response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    response.headers_mut().remove(header::VARY);
    Ok(response)
}
