//! `POST /v1/score`: every picture with every text.

use axum::body::Body;
use axum::response::Response;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::error::ApiResult;
use crate::api::edge::negotiate::Format;
use crate::api::inputs::Batch;
use crate::api::native::resolve::resolve_pairs;
use crate::api::native::schema::{ScoreQuery, ScoreRequest, ScoreResponse, ScoresTag, Usage};
use crate::api::openapi::WorkErrors;
use crate::api::read::Options;
use crate::api::run::{Compared, RunOptions, compare};
use crate::budget::MemoryKind;
use crate::model::scores::{logit, sigmoid};

/// Compares every picture with every text.
///
/// Three matrices with a row for each picture and a column for each text: cosine, logit and sigmoid probability.
#[utoipa::path(
    post, path = "/v1/score", tag = "classification", operation_id = "score",
    params(ScoreQuery),
    request_body(content = ScoreRequest),
    responses(
        (status = 200, description = "The matrices",
            content((ScoreResponse = "application/json",
                     example = json!({
                        "object": "scores", "cosine": [[0.12, -0.02]], "logit": [[1.3, -14.4]],
                        "probability": [[0.786, 0.0000005]], "model": "siglip2-base-patch16-224",
                        "usage": {"prompt_tokens": 208, "total_tokens": 208},
                     })),
                    (ScoreResponse = "application/msgpack"))),
        WorkErrors,
    )
)]
pub async fn score(call: Call, body: Body) -> ApiResult<Response> {
    let format = call.format(&Format::DOCUMENTS)?;
    if !call.media.is_json() {
        return Err(call.media.unsupported("application/json", "add -H 'Content-Type: application/json'"));
    }
    let query: ScoreRequest = call.query()?;
    call.model(query.model.as_deref())?;
    let body = call.read(body).await?;
    let task = from_json(&call, body, query).await?;
    answer(&call, task, format).await
}

/// A comparison as it was asked for: the pictures, then the texts.
struct Task {
    batch: Batch,
    pictures: usize,
    options: ScoreRequest,
}

async fn from_json(call: &Call, body: bytes::Bytes, query: ScoreRequest) -> ApiResult<Task> {
    let most = (call.state.config().max_items, call.state.config().max_labels);
    call.json(body, move |request: ScoreRequest, memory| {
        let mut options = request.and(query)?;
        let (images, texts) = (options.images.take(), options.texts.take());
        let (batch, pictures) = resolve_pairs(images, texts, most, options.token_ids == Some(true), memory)?;
        Ok(Task { batch, pictures, options })
    })
    .await
}

async fn answer(call: &Call, task: Task, format: Format) -> ApiResult<Response> {
    let Task { batch, pictures, options } = task;
    let model = call.model(options.model.as_deref())?;
    let room = room(pictures, batch.len() - pictures);
    let memory = call.charge(MemoryKind::Answer, room)?;
    let run = RunOptions {
        canonicalization: options.canonicalization,
        max_num_patches: options.max_num_patches,
        partial: false,
        if_match_is_taken: false,
    };
    let columns = batch.len() - pictures;
    let compared = compare(call, &model, batch, pictures, run).await?;
    let Compared { cosines, tokens, fingerprint, timings } = compared;
    let name = model.name().to_owned();
    let scale_and_bias = model.info().logit_scale.zip(model.info().logit_bias);
    let bytes = answer::build(memory, move || {
        let cosines: Vec<Vec<f32>> = cosines.chunks(columns).map(<[f32]>::to_vec).collect();
        let logits = scale_and_bias.map(|(scale, bias)| map(&cosines, |c| logit(c, scale, bias)));
        let probability = logits.as_ref().map(|logits| map(logits, sigmoid));
        let response = ScoreResponse {
            object: ScoresTag::Scores,
            cosine: cosines,
            logit: logits,
            probability,
            model: name,
            usage: Usage::of(tokens),
        };
        answer::document(&response, format, room)
    })
    .await?;
    Ok(answer::respond(bytes, format, &model, &fingerprint, timings))
}

/// Bytes that building the answer takes at most: three matrices, each as numbers and as at most 16 characters for each, and
/// the cosines in one piece.
fn room(pictures: usize, texts: usize) -> usize {
    const EACH: usize = 4 * size_of::<f32>() + 3 * 16;
    const ROW: usize = 3 * 32;
    let cells = pictures.saturating_mul(texts).saturating_mul(EACH);
    cells.saturating_add(pictures.saturating_mul(ROW)).saturating_add(1000)
}

fn map(matrix: &[Vec<f32>], f: impl Fn(f32) -> f32) -> Vec<Vec<f32>> {
    matrix.iter().map(|row| row.iter().map(|&x| f(x)).collect()).collect()
}
