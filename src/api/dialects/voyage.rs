//! Voyage's multimodal embeddings (`voyageai-python`, `voyageai/object/multimodal_embeddings.py`).

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::common::{self, Room, Says, Truncate, check_width, respond, unit, vectors};
use super::parts::{Content, batch_of, request};
use super::{Dialect, Route, parses};
use crate::api::answer::{EmbeddingType, Quantized};
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::native::schema::EmbeddingValue;
use crate::api::read::{Bounded, Heap, missing};

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "voyage",
    about: "Voyage's multimodal embeddings",
    routes: &[Route::post("/v1/multimodalembeddings", || post(embed))],
    below: &[],
    shares: &[],
    shape,
    key: None,
    parse: parses::<Request>,
    example: r#"curl localhost:8080/v1/multimodalembeddings -H 'content-type: application/json' -d '{
  "model": "demo", "inputs": [{"content": [{"type": "text", "text": "a cat"}]}]}'"#,
};

fn shape(error: &ApiError) -> Response {
    Json(json!({"detail": error.detail.message})).into_response()
}

request! {
    struct Request {
        model: String,
        inputs: Bounded<Content>,
        truncation: Truncate,
        #[serde(alias = "output_encoding")]
        encoding_format: Encoding,
        output_dtype: EmbeddingType,
        output_dimension: usize,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Base64,
}

impl Heap for Encoding {}

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    data: Vec<Entry>,
    model: String,
    usage: Value,
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    embedding: EmbeddingValue,
    index: usize,
}

async fn embed(call: Call, body: Body) -> ApiResult<Response> {
    let most = call.state.config().max_items;
    let (batch, options) = common::json(&call, body, Says::Json, move |mut request: Request, memory| {
        let inputs = request.inputs.take().ok_or_else(|| missing("inputs"))?.0;
        request.truncation.unwrap_or_default().check("truncation")?;
        let parts = inputs.into_iter().map(|input| input.into_part()).collect();
        let batch = batch_of("inputs", parts, most, memory, |index| format!("inputs[{index}]"))?;
        Ok((batch, request))
    })
    .await?;
    let model = call.model(Some(options.model.as_deref().ok_or_else(|| missing("model"))?))?;
    check_width("output_dimension", options.output_dimension, &model)?;
    let kind = options.output_dtype.unwrap_or_default();
    let embedded = vectors(&call, &model, batch).await?;
    let truncation = options.truncation.unwrap_or_default();
    truncation.apply(embedded.all.iter().enumerate(), &model, |index| format!("inputs[{index}]"))?;
    let name = model.name().to_owned();
    let room = Room { beside: name.len(), ..Room::default() };
    respond(&call, &model, embedded, room, move |all| {
        let is_text = |of: &&crate::engine::Embedding| of.size.is_none();
        let text_tokens: usize = all.iter().filter(is_text).map(|of| of.tokens).sum();
        let total_tokens: usize = all.iter().map(|of| of.tokens).sum();
        let pixels: u64 = all.iter().filter_map(|of| of.size).map(|(h, w)| u64::from(h) * u64::from(w)).sum();
        let entry = |(index, of)| {
            let vector = Quantized::new(unit(of), kind);
            let embedding = match options.encoding_format {
                None => EmbeddingValue::Numbers(vector),
                Some(Encoding::Base64) => EmbeddingValue::Base64(STANDARD.encode(vector.to_le_bytes())),
            };
            Entry { object: "embedding", embedding, index }
        };
        Answer {
            object: "list",
            data: all.iter().enumerate().map(entry).collect(),
            model: name,
            usage: json!({
                "text_tokens": text_tokens, "image_pixels": pixels, "video_pixels": 0, "total_tokens": total_tokens,
            }),
        }
    })
    .await
}
