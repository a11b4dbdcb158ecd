//! `POST /v1/embeddings` and `POST /v1/embeddings/images`.

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::answer::{self, EmbeddingType, Quantized};
use crate::api::edge::body::{off_runtime, parse_json};
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::native::call::Call;
use crate::api::native::form;
use crate::api::native::schema::{
    Binary, EmbedParams, EmbeddingEntry, EmbeddingItem, EmbeddingTag, EmbeddingValue, EmbeddingsRequest,
    EmbeddingsResponse, EncodingFormat, ErrorEntry, ErrorTag, ImagesForm, ListTag, Modality, Usage,
};
use crate::api::native::work::{self, Batch, Embedded, WorkOptions};
use crate::api::openapi::WorkErrors;
use crate::model::scores::l2_normalize;

/// Embeds texts and pictures, mixed as they come.
///
/// OpenAI's route, and more: the official clients work unchanged, and `input` may also hold pictures as data:
/// URLs or `{"image": …}` objects, and texts as token ids. Vectors are of length 1 unless `normalize` is false,
/// so that their dot product is the cosine.
///
/// `Accept: application/x-npy` or `application/octet-stream` gives one array in the element type asked for
/// (`x-siglip-shape`, `x-siglip-dtype`), `application/msgpack` the same document as JSON with `base64` vectors as
/// byte strings.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "embeddings", operation_id = "create_embeddings",
    request_body(content = EmbeddingsRequest),
    responses(
        (status = 200, description = "The embeddings, in the order of the inputs",
            content((EmbeddingsResponse = "application/json"), (EmbeddingsResponse = "application/msgpack"),
                    (Binary = "application/x-npy"), (Binary = "application/octet-stream")),
            headers(
                ("x-siglip-fingerprint" = String, description = "Names the embedding space"),
                ("x-siglip-model" = String, description = "The model that answered"),
                ("server-timing" = String, description = "decode, tokenize, queue, inference and total, in ms"),
            )),
        WorkErrors,
    )
)]
pub async fn create(call: Call) -> ApiResult<Response> {
    let format = call.format(&Format::ALL)?;
    if !call.body.is_json() {
        return Err(call.body.unsupported("application/json (files go to /v1/embeddings/images)"));
    }
    let (batch, params) = from_json(&call, Modality::Auto).await?;
    answer(&call, batch, params, format).await
}

/// Embeds pictures as files.
///
/// A picture as the whole body (`curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg'`), a form with one or
/// many files under any name (`curl -F image=@cat.jpg -F image=@dog.png`), or the JSON of `/v1/embeddings` with
/// bare strings as pictures. Options go into the query or into fields of the form.
#[utoipa::path(
    post, path = "/v1/embeddings/images", tag = "embeddings", operation_id = "create_image_embeddings",
    params(EmbedParams),
    request_body(description = "A picture, a form with pictures, or JSON", content(
        (Binary = "image/*"), (Binary = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (EmbeddingsRequest = "application/json"),
    )),
    responses(
        (status = 200, description = "The embeddings, in the order of the pictures",
            content((EmbeddingsResponse = "application/json"), (EmbeddingsResponse = "application/msgpack"),
                    (Binary = "application/x-npy"), (Binary = "application/octet-stream")),
            headers(
                ("x-siglip-fingerprint" = String, description = "Names the embedding space"),
                ("x-siglip-model" = String, description = "The model that answered"),
                ("server-timing" = String, description = "decode, tokenize, queue, inference and total, in ms"),
            )),
        WorkErrors,
    )
)]
pub async fn create_from_images(call: Call) -> ApiResult<Response> {
    let format = call.format(&Format::ALL)?;
    let (body, query) = (&call.body, call.query.as_deref());
    let kind = body.media_type.as_str();
    let (batch, params) = if kind == "multipart/form-data" {
        let form = form::read(body, call.state.config().max_items).await?;
        let params = work::query(&form.over_query(query))?;
        (form.images, params)
    } else if kind.starts_with("image/") || kind == "application/octet-stream" || body.is_unnamed_picture() {
        let mut batch = Batch::default();
        batch.push("image".to_owned(), work::picture(body.bytes.clone()));
        (batch, work::query(query.unwrap_or_default())?)
    } else if body.is_json() {
        let from_query: EmbedParams = work::query(query.unwrap_or_default())?;
        let (mut batch, params) = from_json(&call, Modality::Image).await?;
        batch.only(work::is_image, "this route embeds pictures; texts go to /v1/embeddings");
        (batch, params.or(from_query))
    } else {
        return Err(
            body.unsupported("image/*, application/octet-stream, multipart/form-data or application/json")
        );
    };
    if batch.is_empty() {
        return Err(ApiError::field("image", "the form holds no picture"));
    }
    answer(&call, batch, params, format).await
}

async fn from_json(call: &Call, bare: Modality) -> ApiResult<(Batch, EmbedParams)> {
    let bytes = call.body.bytes.clone();
    let limit = call.state.config().max_items;
    off_runtime(bytes.len(), move || {
        let request: EmbeddingsRequest = parse_json(&bytes)?;
        let (inputs, modality, params) = request.into_parts();
        // Counted before anything is decoded.
        work::check_count("input", inputs.items.len(), limit)?;
        let mut batch = Batch::default();
        batch.extend("input", inputs, modality.unwrap_or(bare));
        Ok((batch, params))
    })
    .await
}

async fn answer(call: &Call, batch: Batch, params: EmbedParams, format: Format) -> ApiResult<Response> {
    let model = work::model(&call.state, params.model.as_deref())?;
    let shape = Shape::new(&params, model.info().embedding_dim, format)?;
    let options = WorkOptions {
        canonicalization: params.canonicalization,
        max_num_patches: params.max_num_patches,
        partial: shape.partial,
    };
    let Embedded { results, timings } = call.embed(&model, batch, options).await?;
    let count = results.len();
    let name = model.name().to_owned();
    let bytes = off_runtime(count * shape.width * 4, move || match format {
        Format::Json | Format::MsgPack => answer::document(&shape.document(results, name, format), format),
        Format::Npy => Ok(answer::npy(&shape.array(results)?, shape.columns(), shape.kind)),
        Format::OctetStream => Ok(answer::rows(&shape.array(results)?)),
    })
    .await?;
    let mut response = answer::respond(bytes, format, &model, timings);
    if matches!(format, Format::Npy | Format::OctetStream) {
        let headers = response.headers_mut();
        let extent = format!("{count},{}", shape.columns());
        if let Ok(value) = extent.parse() {
            headers.insert(answer::SHAPE, value);
        }
        headers.insert(answer::DTYPE, http::HeaderValue::from_static(shape.kind.npy_descr()));
    }
    Ok(response)
}

/// How vectors leave.
#[derive(Debug, Clone, Copy)]
struct Shape {
    width: usize,
    kind: EmbeddingType,
    encoding: EncodingFormat,
    normalize: bool,
    partial: bool,
}

impl Shape {
    fn new(params: &EmbedParams, width: usize, format: Format) -> ApiResult<Self> {
        let kind = params.embedding_type.unwrap_or_default();
        let normalize = params.normalize.unwrap_or(true);
        let partial = params.partial.unwrap_or(false);
        if let Some(dimensions) = params.dimensions
            && dimensions != width
        {
            let message = format!("this model's embeddings have {width} dimensions and cannot be shortened");
            return Err(ApiError::field("dimensions", message));
        }
        if params.max_num_patches == Some(0) {
            return Err(ApiError::field("max_num_patches", "must be at least 1"));
        }
        if !normalize && kind.needs_unit_length() {
            return Err(ApiError::field(
                "normalize",
                "int8 and uint8 are only defined for vectors of length 1",
            ));
        }
        if partial && matches!(format, Format::Npy | Format::OctetStream) {
            let message = "an array has no place for errors; ask for application/json or application/msgpack";
            return Err(ApiError::field("partial", message));
        }
        Ok(Self { width, kind, encoding: params.encoding_format.unwrap_or_default(), normalize, partial })
    }

    fn columns(&self) -> usize {
        self.kind.len(self.width)
    }

    fn vector(&self, embedding: &crate::engine::Embedding) -> Quantized {
        let mut vector = embedding.vector.to_vec();
        if self.normalize {
            l2_normalize(&mut vector);
        }
        Quantized::new(vector, self.kind)
    }

    fn array(&self, results: Vec<ApiResult<crate::engine::Embedding>>) -> ApiResult<Vec<Quantized>> {
        results.into_iter().map(|result| result.map(|embedding| self.vector(&embedding))).collect()
    }

    fn value(&self, vector: Quantized, format: Format) -> EmbeddingValue {
        match (self.encoding, format) {
            (EncodingFormat::Float, _) => EmbeddingValue::Numbers(vector),
            (EncodingFormat::Base64, Format::MsgPack) => EmbeddingValue::Bytes(vector.to_le_bytes()),
            (EncodingFormat::Base64, _) => EmbeddingValue::Base64(STANDARD.encode(vector.to_le_bytes())),
        }
    }

    fn document(
        &self,
        results: Vec<ApiResult<crate::engine::Embedding>>,
        model: String,
        format: Format,
    ) -> EmbeddingsResponse {
        let tokens = results.iter().flatten().map(|embedding| embedding.tokens).sum();
        let data = results
            .into_iter()
            .enumerate()
            .map(|(index, result)| match result {
                Ok(embedding) => EmbeddingItem::Embedding(EmbeddingEntry {
                    object: EmbeddingTag::Embedding,
                    index,
                    embedding: self.value(self.vector(&embedding), format),
                    truncated: embedding.truncated,
                }),
                Err(error) => {
                    EmbeddingItem::Error(ErrorEntry { object: ErrorTag::Error, index, error: *error.detail })
                }
            })
            .collect();
        EmbeddingsResponse { object: ListTag::List, data, model, usage: Usage::of(tokens) }
    }
}
