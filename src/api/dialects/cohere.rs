//! Cohere's embeddings, version 2 (`cohere-python`, `src/cohere/v2/client.py`).

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::common::{self, Room, Says, Truncate, check_width, respond, unit, vectors};
use super::parts::{Content, Part, batch_of, request};
use super::{Dialect, Route, parses};
use crate::api::answer::{EmbeddingType, Quantized};
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::Batch;
use crate::api::native::schema::EmbeddingValue;
use crate::api::read::{Bounded, Heap, missing};
use crate::engine::Embedding;

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "cohere",
    about: "Cohere's embeddings, version 2",
    routes: &[Route::post("/v2/embed", || post(embed))],
    below: &["/v2/"],
    shares: &[],
    shape,
    key: None,
    parse: parses::<Request>,
    example: r#"curl localhost:8080/v2/embed -H 'content-type: application/json' -d '{"model": "demo",
  "input_type": "search_query", "texts": ["a cat"], "embedding_types": ["float", "int8"]}'"#,
};

fn shape(error: &ApiError) -> Response {
    Json(json!({"message": error.detail.message})).into_response()
}

request! {
    struct Request {
        model: String,
        texts: Bounded<String>,
        images: Bounded<String>,
        inputs: Bounded<Content>,
        embedding_types: Few,
        output_dimension: usize,
        truncate: Truncate,
    }
}

/// An element type, or base64 of float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Float,
    Int8,
    Uint8,
    Binary,
    Ubinary,
    Base64,
}

/// Element types, each once.
#[derive(Debug, Default)]
struct Few(Vec<Kind>);

impl Heap for Few {}

impl<'de> Deserialize<'de> for Few {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut seen = Vec::new();
        for kind in Bounded::<Kind>::deserialize(deserializer)?.0 {
            if !seen.contains(&kind) {
                seen.push(kind);
            }
        }
        Ok(Self(seen))
    }
}

/// A request, resolved.
struct Task {
    model: String,
    batch: Batch,
    kinds: Vec<Kind>,
    width: Option<usize>,
    truncate: Truncate,
    field: &'static str,
}

impl Request {
    fn resolve(self, most: usize, memory: crate::budget::Charge) -> ApiResult<Task> {
        let model = self.model.ok_or_else(|| missing("model"))?;
        let truncate = self.truncate.unwrap_or_default();
        truncate.check("truncate")?;
        let mut kinds = self.embedding_types.unwrap_or_default().0;
        if kinds.is_empty() {
            kinds.push(Kind::Float);
        }
        let place = |field: &'static str| move |index| format!("{field}[{index}]");
        let (field, batch) = match (self.texts, self.images, self.inputs) {
            (Some(Bounded(texts)), None, None) => {
                let parts = texts.into_iter().map(Part::Text).collect();
                ("texts", batch_of("texts", parts, most, memory, place("texts"))?)
            }
            (None, Some(Bounded(images)), None) => {
                let parts = images.into_iter().map(Part::Picture).collect();
                ("images", batch_of("images", parts, most, memory, place("images"))?)
            }
            (None, None, Some(Bounded(inputs))) => {
                let parts = inputs.into_iter().map(|input| input.into_part()).collect();
                ("inputs", batch_of("inputs", parts, most, memory, place("inputs"))?)
            }
            (None, None, None) => return Err(missing("texts")),
            _ => {
                let message = "give one of texts, images and inputs";
                return Err(ApiError::bad_request("invalid_request", message));
            }
        };
        Ok(Task { model, batch, kinds, width: self.output_dimension, truncate, field })
    }
}

#[derive(Serialize)]
struct Answer {
    id: String,
    response_type: &'static str,
    embeddings: ByType,
    meta: Value,
}

#[derive(Default, Serialize)]
struct ByType {
    #[serde(skip_serializing_if = "Option::is_none")]
    float: Option<Vec<EmbeddingValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    int8: Option<Vec<EmbeddingValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uint8: Option<Vec<EmbeddingValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Vec<EmbeddingValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ubinary: Option<Vec<EmbeddingValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<Vec<EmbeddingValue>>,
}

impl ByType {
    fn of(all: &[Embedding], kinds: &[Kind]) -> Self {
        let numbers = |kind: EmbeddingType| {
            let value = |embedding| EmbeddingValue::Numbers(Quantized::new(unit(embedding), kind));
            Some(all.iter().map(value).collect())
        };
        let mut by_type = Self::default();
        for kind in kinds {
            match kind {
                Kind::Float => by_type.float = numbers(EmbeddingType::Float32),
                Kind::Int8 => by_type.int8 = numbers(EmbeddingType::Int8),
                Kind::Uint8 => by_type.uint8 = numbers(EmbeddingType::Uint8),
                Kind::Binary => by_type.binary = numbers(EmbeddingType::Binary),
                Kind::Ubinary => by_type.ubinary = numbers(EmbeddingType::Ubinary),
                Kind::Base64 => {
                    let bytes = |of| Quantized::new(unit(of), EmbeddingType::Float32).to_le_bytes();
                    let value = |of| EmbeddingValue::Base64(STANDARD.encode(bytes(of)));
                    by_type.base64 = Some(all.iter().map(value).collect());
                }
            }
        }
        by_type
    }
}

/// Bytes for each number and element type: at most 16 characters, and two copies in f32.
const NUMBER: usize = 16 + 2 * size_of::<f32>();

async fn embed(call: Call, body: Body) -> ApiResult<Response> {
    let most = call.state.config().max_items;
    let read = move |request: Request, memory| request.resolve(most, memory);
    let task = common::json(&call, body, Says::Json, read).await?;
    let Task { model, batch, kinds, width, truncate, field } = task;
    let model = call.model(Some(&model))?;
    check_width("output_dimension", width, &model)?;
    let embedded = vectors(&call, &model, batch).await?;
    truncate.apply(embedded.all.iter().enumerate(), &model, |index| format!("{field}[{index}]"))?;
    let room = Room { number: NUMBER * kinds.len(), beside: embedded.all.len() * 100 * kinds.len() };
    respond(&call, &model, embedded, room, move |all| {
        let pictures = all.iter().filter(|embedding| embedding.size.is_some()).count();
        let tokens: usize = all.iter().filter(|of| of.size.is_none()).map(|of| of.tokens).sum();
        Answer {
            id: uuid::Uuid::new_v4().to_string(),
            response_type: "embeddings_by_type",
            embeddings: ByType::of(&all, &kinds),
            meta: json!({
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": tokens, "images": pictures},
            }),
        }
    })
    .await
}
