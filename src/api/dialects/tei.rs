//! Hugging Face text-embeddings-inference (`router/src/http/server.rs`, `types.rs`). A string that is a data: URL is a
//! picture.

use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json};

use super::common::{self, Room, Says, Truncate, check_width, respond, respond_within, unit, vectors};
use super::parts::{Part, Strings, batch_of, request};
use super::{Dialect, Route, parses};
use crate::api::call::Call;
use crate::api::edge::body::on_blocking_pool;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::{Batch, check_count};
use crate::api::native::resolve::{Meaning, resolve};
use crate::api::native::schema::{Input, Inputs, Modality};
use crate::api::read::{MOST, missing};
use crate::api::run::{Compared, RunOptions, compare};
use crate::api::state::AppState;
use crate::budget::{Charge, MemoryKind};
use crate::engine::{ModelHandle, Timings};

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "tei",
    about: "Hugging Face text-embeddings-inference",
    routes: &[
        Route::post("/embed", || post(embed)),
        Route::post("/similarity", || post(similarity)),
        Route::post("/tokenize", || post(tokenize)),
        // TEI shows it to everybody; what the models are, our own routes tell only who has a key.
        Route::get("/info", || get(info)),
    ],
    below: &[],
    shares: &[],
    shape,
    key: None,
    parse: |data| {
        parses::<EmbedRequest>(data);
        parses::<SimilarityRequest>(data);
        parses::<TokenizeRequest>(data);
    },
    example: "curl localhost:8080/embed -H 'content-type: application/json' -d '{\"inputs\": [\"a cat\", \"a dog\"]}'",
};

/// `{"error": …, "error_type": …}`.
pub fn shape(error: &ApiError) -> Response {
    let kind = match error.status.as_u16() {
        429 => "Overloaded",
        503 => "Unhealthy",
        500.. => "Backend",
        _ => "Validation",
    };
    Json(json!({"error": error.detail.message, "error_type": kind})).into_response()
}

request! {
    /// What to embed.
    pub struct EmbedRequest {
        inputs: Inputs,
        truncate: Truncate,
        truncation_direction: Truncate,
        prompt_name: String,
        normalize: bool,
        dimensions: usize,
    }
}

/// Options of a request that are not of this service, or not of this model.
pub struct Options {
    truncate: Truncate,
    normalize: bool,
    dimensions: Option<usize>,
}

impl EmbedRequest {
    /// The inputs and the options.
    ///
    /// # Errors
    /// 400 and 422 for what is missing or cannot be honoured.
    pub fn resolve(mut self, most: usize, memory: Charge) -> ApiResult<(Batch, Options)> {
        let inputs = self.inputs.take().ok_or_else(|| missing("inputs"))?;
        let (truncate, normalize) = (self.truncate.unwrap_or_default(), self.normalize.unwrap_or(true));
        let dimensions = self.dimensions;
        check_options(truncate, self.truncation_direction, self.prompt_name.as_deref())?;
        Ok((resolve_inputs("inputs", inputs, most, memory)?, Options { truncate, normalize, dimensions }))
    }
}

fn refuse_prompt(name: Option<&str>) -> ApiResult<()> {
    match name {
        None => Ok(()),
        Some(_) => Err(ApiError::field("prompt_name", "the model has no prompts")),
    }
}

/// Refuses what no model here does.
fn check_options(truncate: Truncate, direction: Option<Truncate>, prompt: Option<&str>) -> ApiResult<()> {
    refuse_prompt(prompt)?;
    direction.unwrap_or_default().check("truncation_direction")?;
    truncate.check("truncate")
}

/// Refuses options that do not hold where texts are compared, whose ends are always cut.
///
/// # Errors
/// 422 for a prompt, and for long texts that are to be refused or to lose their beginning.
pub fn refuse_options(
    truncate: Option<Truncate>,
    direction: Option<Truncate>,
    prompt: Option<&str>,
) -> ApiResult<()> {
    check_options(truncate.unwrap_or_default(), direction, prompt)?;
    match truncate {
        Some(Truncate::Never) => {
            Err(ApiError::field("truncate", "long texts are cut when they are compared"))
        }
        _ => Ok(()),
    }
}

/// Inputs as this service means them: data: URLs are pictures, other strings texts, and ids are of this model.
pub fn resolve_inputs(field: &str, inputs: Inputs, most: usize, memory: Charge) -> ApiResult<Batch> {
    let Inputs { items, single } = inputs;
    let named = |input: Input| match input {
        Input::Bare(text) => match Part::of(text) {
            Part::Text(text) => Input::Text(text),
            Part::Picture(picture) => Input::Image(picture),
        },
        other => other,
    };
    let inputs = Inputs { items: items.into_iter().map(named).collect(), single };
    let meaning = Meaning { bare: Modality::Text, token_ids: true, max_pictures: most };
    resolve(field, inputs, meaning, memory)
}

async fn embed(call: Call, body: Body) -> ApiResult<Response> {
    let model = call.model(None)?;
    let most = call.state.config().max_items;
    let read = move |request: EmbedRequest, memory| request.resolve(most, memory);
    let (batch, options) = common::json(&call, body, Says::Json, read).await?;
    embed_rows(&call, &model, batch, options).await
}

/// Embeds inputs and answers with a list of vectors.
///
/// # Errors
/// Those of [`vectors`]; 422 for another width, and for texts that were not to be cut.
pub async fn embed_rows(
    call: &Call,
    model: &ModelHandle,
    batch: Batch,
    options: Options,
) -> ApiResult<Response> {
    let Options { truncate, normalize, dimensions } = options;
    check_width("dimensions", dimensions, model)?;
    let embedded = vectors(call, model, batch).await?;
    truncate.apply(embedded.all.iter().enumerate(), model, |index| format!("inputs[{index}]"))?;
    respond(call, model, embedded, Room::default(), move |all| {
        let row = |embedding| if normalize { unit(embedding) } else { embedding.vector.to_vec() };
        all.iter().map(row).collect::<Vec<_>>()
    })
    .await
}

request! {
    struct SimilarityRequest {
        inputs: Sentences,
        parameters: Parameters,
    }
}

request! {
    /// One sentence and those that it is compared with.
    pub struct Sentences {
        source_sentence: String,
        sentences: Strings,
    }
}

request! {
    struct Parameters {
        truncate: Truncate,
        truncation_direction: Truncate,
        prompt_name: String,
    }
}

async fn similarity(call: Call, body: Body) -> ApiResult<Response> {
    let model = call.model(None)?;
    let most = call.state.config().max_items;
    let batch = common::json(&call, body, Says::Json, move |request: SimilarityRequest, memory| {
        let Parameters { truncate, truncation_direction, prompt_name } =
            request.parameters.unwrap_or_default();
        refuse_options(truncate, truncation_direction, prompt_name.as_deref())?;
        request.inputs.ok_or_else(|| missing("inputs"))?.resolve(most, memory)
    })
    .await?;
    compare_first(&call, &model, batch).await
}

impl Sentences {
    /// The sentence, then the others.
    ///
    /// # Errors
    /// 400 and 422 for what is missing.
    pub fn resolve(self, most: usize, memory: Charge) -> ApiResult<Batch> {
        let source = self.source_sentence.ok_or_else(|| missing("source_sentence"))?;
        let sentences = self.sentences.ok_or_else(|| missing("sentences"))?.items;
        check_count("sentences", sentences.len(), MOST)?;
        let parts = std::iter::once(source).chain(sentences).map(Part::of).collect();
        batch_of("sentences", parts, most, memory, |index| match index {
            0 => "source_sentence".to_owned(),
            index => format!("sentences[{}]", index - 1),
        })
    }
}

/// Answers with the cosines of the first input with each other one.
///
/// # Errors
/// Those of [`compare`].
pub async fn compare_first(call: &Call, model: &ModelHandle, batch: Batch) -> ApiResult<Response> {
    const EACH: usize = 16 + size_of::<f32>();
    let room = 1000 + batch.len() * EACH;
    let Compared { cosines, fingerprint, timings, .. } =
        compare(call, model, batch, 1, RunOptions::default()).await?;
    respond_within(call, model, room, &fingerprint, timings, move || cosines).await
}

request! {
    struct TokenizeRequest {
        inputs: Strings,
        add_special_tokens: bool,
        prompt_name: String,
    }
}

/// A token. Where it is in the text is not known: it is canonicalised before.
#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

/// The tokens of texts, and what is charged for them.
#[derive(Serialize)]
#[serde(transparent)]
struct Rows {
    rows: Vec<Vec<Token>>,
    #[serde(skip)]
    _memory: Charge,
}

async fn tokenize(call: Call, body: Body) -> ApiResult<Response> {
    /// Bytes of all texts at most: they are tokenised outside of the queues in which clients take turns.
    const BYTES: usize = 1 << 20;
    /// Bytes of a token, in memory and as JSON: the longest of Gemma's vocabulary is a run of 31 marks of three bytes.
    const EACH: usize = 384;
    let model = call.model(None)?;
    let fingerprint = model.info().fingerprint.clone();
    call.expects(&fingerprint, false)?;
    let most = call.state.config().max_items;
    let (texts, special, held) =
        common::json(&call, body, Says::Json, move |request: TokenizeRequest, memory| {
            let texts = request.inputs.ok_or_else(|| missing("inputs"))?.items;
            refuse_prompt(request.prompt_name.as_deref())?;
            check_count("inputs", texts.len(), most)?;
            if texts.iter().map(String::len).sum::<usize>() > BYTES {
                return Err(ApiError::too_large(format!("more than {BYTES} bytes of text")).at("inputs"));
            }
            Ok((texts, request.add_special_tokens.unwrap_or(true), memory))
        })
        .await?;
    call.context.note.work(model.name(), texts.len());
    let most_tokens = model.info().text.as_ref().map_or(0, |text| text.context);
    let room = 1000 + texts.len() * most_tokens * EACH;
    let memory = call.charge(MemoryKind::Parsed, room)?;
    let (handle, context) = (model.clone(), call.context.clone());
    // What is charged goes along: the work does not stop where the request does.
    let rows = on_blocking_pool(move || {
        let row = |(index, text): (usize, &String)| {
            if context.deadline <= Instant::now() {
                return Err(context.late());
            }
            let tokens =
                handle.tokens(text).map_err(|error| ApiError::from(error).at(format!("inputs[{index}]")))?;
            let last = tokens.len().saturating_sub(1);
            let kept = tokens.into_iter().enumerate().filter(|(at, _)| special || *at < last);
            let token = |(at, (id, text)): (usize, (u32, Option<String>))| Token {
                id,
                text: text.unwrap_or_default(),
                special: at == last,
                start: None,
                stop: None,
            };
            Ok(kept.map(token).collect::<Vec<_>>())
        };
        let rows = texts.iter().enumerate().map(row).collect::<ApiResult<Vec<_>>>();
        drop((texts, held));
        Ok(Rows { rows: rows?, _memory: memory })
    })
    .await?;
    respond_within(&call, &model, room, &fingerprint, Timings::default(), move || rows).await
}

async fn info(State(state): State<AppState>) -> ApiResult<Json<Value>> {
    let model = state.engine().model(None)?;
    let (info, config) = (model.info(), state.config());
    Ok(Json(json!({
        "model_id": info.source,
        "model_sha": info.fingerprint,
        "model_dtype": info.dtype.name(),
        "served_model_name": model.name(),
        "model_type": {"embedding": {"pooling": "last_token"}},
        "max_concurrent_requests": config.max_connections,
        "max_input_length": info.text.as_ref().map(|text| text.context),
        "max_batch_tokens": null,
        "max_batch_requests": null,
        "max_client_batch_size": config.max_items,
        "auto_truncate": true,
        "tokenization_workers": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    })))
}
