//! `POST /v1/embeddings` and `POST /v1/embeddings/images`.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::api::answer::{self, EmbeddingType, Quantized};
use crate::api::call::Call;
use crate::api::dialects::openai;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::inputs::{Batch, file_place};
use crate::api::native::resolve::{Meaning, resolve};
use crate::api::native::schema::{
    Binary, EmbeddingEntry, EmbeddingItem, EmbeddingOutput, EmbeddingTag, EmbeddingValue, EmbeddingsQuery,
    EmbeddingsRequest, EmbeddingsResponse, EncodingFormat, ErrorEntry, ErrorTag, ImagesForm, ListTag,
    Modality, Usage,
};
use crate::api::openapi::WorkErrors;
use crate::api::read::{Form, Options, Picture, text};
use crate::api::run::{Embedded, RunOptions, embed_as};
use crate::api::source::Source;
use crate::budget::{Charge, MemoryKind};
use crate::engine::{Embedding, ModelHandle};
use crate::model::PatchVectors;
use crate::model::scores::l2_normalize;

/// Embeds texts and pictures, mixed as they come.
///
/// OpenAI's route, and more: the official clients work unchanged, and `input` may also hold pictures as data:
/// URLs or `{"image": …}` objects. Vectors are of length 1 unless `normalize` is false, so that their dot product is the
/// cosine. Options may also be in the query.
///
/// `Accept: application/x-npy` or `application/octet-stream` gives one array in the element type asked for
/// (`x-siglip-shape`, `x-siglip-dtype`), `application/msgpack` the same document as JSON with `base64` vectors as
/// byte strings.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "embeddings", operation_id = "create_embeddings",
    params(EmbeddingsQuery),
    request_body(content = EmbeddingsRequest),
    responses(
        (status = 200, description = "The embeddings, in the order of the inputs",
            content((EmbeddingsResponse = "application/json"), (EmbeddingsResponse = "application/msgpack"),
                    (Binary = "application/x-npy"), (Binary = "application/octet-stream"))),
        WorkErrors,
    )
)]
pub async fn create(call: Call, body: Body) -> ApiResult<Response> {
    let format = call.format(&Format::ALL)?;
    if !call.media.is_json() {
        let wanted = "application/json (files go to /v1/embeddings/images)";
        return Err(call.media.unsupported(wanted, "add -H 'Content-Type: application/json'"));
    }
    let query: EmbeddingsRequest = call.query()?;
    call.model(query.model.as_deref())?;
    let body = call.read(body).await?;
    let task = from_json(&call, body, query, Modality::Auto).await?;
    answer(&call, task, format).await
}

/// Embeds pictures as files.
///
/// A picture as the whole body (`curl --data-binary @cat.jpg`), a form with one or many files under any name
/// (`curl -F image=@cat.jpg -F image=@dog.png`), or the JSON of `/v1/embeddings` with bare strings as pictures. Options go
/// into the query, into fields of the form, or into the JSON.
#[utoipa::path(
    post, path = "/v1/embeddings/images", tag = "embeddings", operation_id = "create_image_embeddings",
    params(EmbeddingsQuery),
    request_body(description = "A picture, a form with pictures, or JSON", content(
        (Binary = "image/*"), (Binary = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (EmbeddingsRequest = "application/json", example = json!({
            "input": ["data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"]
        })),
    )),
    responses(
        (status = 200, description = "The embeddings, in the order of the pictures",
            content((EmbeddingsResponse = "application/json"), (EmbeddingsResponse = "application/msgpack"),
                    (Binary = "application/x-npy"), (Binary = "application/octet-stream"))),
        WorkErrors,
    )
)]
pub async fn create_from_images(call: Call, body: Body) -> ApiResult<Response> {
    let format = call.format(&Format::ALL)?;
    let kind = call.media.kind.as_str();
    let is_file = kind.starts_with("image/") || kind == "application/octet-stream";
    let says_nothing = kind.is_empty() || call.media.is_curls_default();
    let unsupported = || {
        call.media.unsupported(
            "image/*, application/octet-stream, multipart/form-data or application/json",
            "for a file use --data-binary with -H 'Content-Type: image/jpeg', or -F image=@file",
        )
    };
    if !(is_file || says_nothing || call.media.is_form() || call.media.is_json()) {
        return Err(unsupported());
    }
    let query: EmbeddingsRequest = call.query()?;
    call.model(query.model.as_deref())?;
    let body = call.read(body).await?;
    let task = if call.media.is_form() {
        call.form(body, |form, options: EmbeddingsRequest, memory| {
            Ok(Task { batch: pictures(&form, memory)?, options: options.and(query)? })
        })
        .await?
    } else if is_file || says_nothing && is_picture(&body, kind.is_empty()) {
        let mut batch = Batch::new(call.charge(MemoryKind::Parsed, 0)?);
        batch.push_picture("image".to_owned(), body);
        Task { batch, options: query }
    } else if call.media.is_json() {
        let mut task = from_json(&call, body, query, Modality::Image).await?;
        task.batch.only(Source::is_picture, "this route embeds pictures; texts go to /v1/embeddings");
        task
    } else {
        return Err(unsupported());
    };
    answer(&call, task, format).await
}

/// Whether a body that does not say what it is is a picture. One without any type that is no JSON either is for the
/// decoder to name.
fn is_picture(body: &Bytes, untyped: bool) -> bool {
    crate::image::Format::sniff(body).is_ok() || untyped && body.trim_ascii_start().first() != Some(&b'{')
}

/// Embeddings as they were asked for.
struct Task {
    batch: Batch,
    options: EmbeddingsRequest,
}

async fn from_json(call: &Call, body: Bytes, query: EmbeddingsRequest, bare: Modality) -> ApiResult<Task> {
    let max_pictures = call.state.config().max_items;
    let foreign = call.state.config().dialects.has(openai::DIALECT.name);
    call.json(body, move |request: EmbeddingsRequest, memory| {
        let mut options = request.and(query)?;
        let (field, inputs) = openai::inputs(&mut options, foreign)?;
        let bare = options.modality.unwrap_or(bare);
        let meaning = Meaning { bare, token_ids: options.token_ids == Some(true), max_pictures };
        Ok(Task { batch: resolve(field, inputs, meaning, memory)?, options })
    })
    .await
}

/// The pictures of a form. `memory` is what its options hold.
pub(super) fn pictures(form: &Form, memory: Charge) -> ApiResult<Batch> {
    let mut batch = Batch::new(memory);
    for (index, picture) in form.pictures.iter().enumerate() {
        match picture {
            Picture::File(bytes, name) => {
                batch.push_picture(file_place(index, name.as_deref()), bytes.clone())
            }
            Picture::Text(bytes) => {
                let place = file_place(index, None);
                let text = text(bytes, &place)?;
                batch.push_encoded(place, text);
            }
        }
    }
    if batch.is_empty() {
        return Err(ApiError::field("image", "the form holds no picture"));
    }
    Ok(batch)
}

async fn answer(call: &Call, task: Task, format: Format) -> ApiResult<Response> {
    let Task { mut batch, options } = task;
    let model = call.model(options.model.as_deref())?;
    let shape = VectorFormat::new(&options, &model, format)?;
    let mut memory = call.charge(MemoryKind::Answer, 0)?;
    if shape.patches {
        batch.only(Source::is_picture, "a text has no patches");
        // What comes out of the model is charged before it is made.
        let cells = model.info().image.as_ref().map_or(0, |spec| spec.most_patches(options.max_num_patches));
        let vectors = batch.len().saturating_mul(cells).saturating_mul(shape.width * size_of::<f32>());
        memory.grow(vectors)?;
    }
    let run = RunOptions {
        canonicalization: options.canonicalization,
        max_num_patches: options.max_num_patches,
        partial: shape.partial,
        if_match_is_taken: false,
    };
    let patches = shape.patches.then_some(PatchVectors::Tokens);
    let truncate = openai::truncate(&options)?;
    let mut embedded = embed_as(call, &model, batch, run, patches).await?;
    for (index, result) in embedded.results.iter_mut().enumerate() {
        let Ok(embedding) = result else { continue };
        let kept = truncate.apply([(index, &*embedding)], &model, |index| format!("input[{index}]"));
        match kept {
            Err(error) if shape.partial => *result = Err(error),
            kept => kept?,
        }
    }
    render(memory, embedded, &model, shape, format).await
}

async fn render(
    mut memory: Charge,
    embedded: Embedded,
    model: &ModelHandle,
    shape: VectorFormat,
    format: Format,
) -> ApiResult<Response> {
    let Embedded { results, fingerprint, timings } = embedded;
    let count = shape.rows(&results);
    let name = model.name().to_owned();
    let room = shape.room(&results);
    memory.grow(room)?;
    let bytes = answer::build(memory, move || match format {
        Format::Json | Format::MsgPack => {
            answer::document(&shape.document(results, name, format), format, room)
        }
        Format::Npy => Ok(answer::npy(&shape.array(results)?, shape.columns(), shape.kind)),
        Format::OctetStream => Ok(answer::rows(&shape.array(results)?)),
    })
    .await?;
    let mut response = answer::respond(bytes, format, model, &fingerprint, timings);
    if matches!(format, Format::Npy | Format::OctetStream) {
        let headers = response.headers_mut();
        let extent = format!("{count},{}", shape.columns());
        if let Ok(value) = extent.parse() {
            headers.insert(answer::SHAPE, value);
        }
        headers.insert(answer::DTYPE, HeaderValue::from_static(shape.kind.npy_descr()));
    }
    Ok(response)
}

/// How vectors leave.
#[derive(Debug, Clone, Copy)]
struct VectorFormat {
    width: usize,
    kind: EmbeddingType,
    encoding: EncodingFormat,
    normalize: bool,
    partial: bool,
    /// Whether a picture has a vector for each patch.
    patches: bool,
}

impl VectorFormat {
    fn new(options: &EmbeddingsRequest, model: &ModelHandle, format: Format) -> ApiResult<Self> {
        let kind = options.embedding_type.unwrap_or_default();
        let normalize = options.normalize.unwrap_or(true);
        let partial = options.partial.unwrap_or(false);
        let width = model.info().embedding_dim;
        if options.dimensions.is_some_and(|dimensions| dimensions != width) {
            return Err(answer::other_width("dimensions", model));
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
        let patches = options.output == Some(EmbeddingOutput::Patches);
        if patches && kind.len(width) != width && !width.is_multiple_of(8) {
            let message = format!("vectors of {width} numbers do not end with a byte: ask for another type");
            return Err(ApiError::field("embedding_type", message));
        }
        let encoding = options.encoding_format.unwrap_or_default();
        Ok(Self { width, kind, encoding, normalize, partial, patches })
    }

    /// Bytes that building the answer takes at most: the vectors, and 16 characters for each number.
    fn room(&self, results: &[ApiResult<Embedding>]) -> usize {
        const ENTRY: usize = 200;
        const VECTOR: usize = size_of::<Quantized>();
        const ERROR: usize = 2200;
        let errors = results.iter().filter(|result| result.is_err()).count();
        let vectors = self.rows(results).saturating_mul(self.width * (16 + 2 * size_of::<f32>()) + VECTOR);
        1000 + errors * ERROR + (results.len() - errors) * ENTRY + vectors
    }

    fn columns(&self) -> usize {
        self.kind.len(self.width)
    }

    fn vector(&self, embedding: &Embedding) -> Quantized {
        self.quantized(&embedding.vector)
    }

    fn quantized(&self, numbers: &[f32]) -> Quantized {
        let mut numbers = numbers.to_vec();
        if self.normalize {
            numbers.chunks_mut(self.width.max(1)).for_each(l2_normalize);
        }
        Quantized::new(numbers, self.kind)
    }

    /// Vectors of all results together.
    fn rows(&self, results: &[ApiResult<Embedding>]) -> usize {
        let vectors =
            |embedding: &Embedding| if self.patches { embedding.vector.len() / self.width.max(1) } else { 1 };
        results.iter().flatten().map(vectors).sum()
    }

    fn array(&self, results: Vec<ApiResult<Embedding>>) -> ApiResult<Vec<Quantized>> {
        let mut rows = Vec::with_capacity(self.rows(&results));
        for result in results {
            rows.extend(result?.vector.chunks(self.width.max(1)).map(|row| self.quantized(row)));
        }
        Ok(rows)
    }

    fn shape(&self, embedding: &Embedding) -> Option<[usize; 3]> {
        let grid = embedding.grid.filter(|_| self.patches)?;
        Some([grid.rows, grid.cols, self.columns()])
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
        results: Vec<ApiResult<Embedding>>,
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
                    shape: self.shape(&embedding),
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
