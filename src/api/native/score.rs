//! `POST /v1/score`: every picture with every text.

use axum::response::Response;

use crate::api::answer;
use crate::api::edge::body::{off_runtime, parse_json};
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::native::call::Call;
use crate::api::native::schema::{Modality, ScoreRequest, ScoreResponse, ScoresTag, TextRules, Usage};
use crate::api::native::work::{self, Batch, Embedded, WorkOptions};
use crate::api::openapi::WorkErrors;
use crate::engine::{self, Embedding, Scored};
use crate::model::scores::{logit, sigmoid};

/// Compares every picture with every text.
///
/// Three matrices with a row for each picture and a column for each text: cosine, logit and sigmoid probability.
#[utoipa::path(
    post, path = "/v1/score", tag = "classification", operation_id = "score",
    request_body(content = ScoreRequest),
    responses(
        (status = 200, description = "The matrices",
            content((ScoreResponse = "application/json",
                     example = json!({
                        "object": "scores", "cosine": [[0.12, -0.02]], "logit": [[1.3, -14.4]],
                        "probability": [[0.786, 0.0000005]], "model": "siglip2-base-patch16-224",
                        "usage": {"prompt_tokens": 208, "total_tokens": 208},
                     })),
                    (ScoreResponse = "application/msgpack")),
            headers(
                ("x-siglip-fingerprint" = String, description = "Names the embedding space"),
                ("x-siglip-model" = String, description = "The model that answered"),
                ("server-timing" = String, description = "decode, tokenize, queue, inference and total, in ms"),
            )),
        WorkErrors,
    )
)]
pub async fn score(call: Call) -> ApiResult<Response> {
    let format = call.format(&Format::DOCUMENTS)?;
    if !call.body.is_json() {
        return Err(call.body.unsupported("application/json"));
    }
    let Task { batch, images, model, options } = from_json(&call).await?;
    let model = work::model(&call.state, model.as_deref())?;
    let Embedded { mut results, timings } = call.embed(&model, batch, options).await?;
    let texts: Vec<Embedding> = results.split_off(images).into_iter().collect::<ApiResult<_>>()?;
    let images: Vec<Embedding> = results.into_iter().collect::<ApiResult<_>>()?;

    let name = model.name().to_owned();
    let info = model.info();
    let scale_and_bias = info.logit_scale.zip(info.logit_bias);
    let tokens = images.iter().chain(&texts).map(|embedding| embedding.tokens).sum();
    let count = texts.len();
    let labels = engine::Labels::unnamed(texts.into_iter().map(|text| text.vector).collect());
    let pictures = images.into_iter().map(|image| image.vector).collect();
    let scored = model.cosines(pictures, labels, call.score_options()).await;
    let Scored { value: cosines, timings: scoring } = scored.map_err(|error| call.engine_error(error))?;
    let timings = timings.and(scoring);
    let bytes = off_runtime(size_of_val(cosines.as_slice()), move || {
        let cosines: Vec<Vec<f32>> = cosines.chunks(count).map(<[f32]>::to_vec).collect();
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
        answer::document(&response, format)
    })
    .await?;
    Ok(answer::respond(bytes, format, &model, timings))
}

struct Task {
    batch: Batch,
    images: usize,
    model: Option<String>,
    options: WorkOptions,
}

async fn from_json(call: &Call) -> ApiResult<Task> {
    let bytes = call.body.bytes.clone();
    let (max_images, max_texts) = (call.state.config().max_items, call.state.config().max_labels);
    off_runtime(bytes.len(), move || {
        let request: ScoreRequest = parse_json(&bytes)?;
        let images = request.images.items.len();
        work::check_count("images", images, max_images)?;
        work::check_count("texts", request.texts.items.len(), max_texts)?;
        if request.max_num_patches == Some(0) {
            return Err(ApiError::field("max_num_patches", "must be at least 1"));
        }
        let mut batch = Batch::default();
        batch.extend("images", request.images, Modality::Image);
        batch.only(work::is_image, "a text among the pictures");
        let mut texts = Batch::default();
        texts.extend("texts", request.texts, Modality::Text);
        texts.only(|input| !work::is_image(input), "a picture among the texts");
        batch.items.append(&mut texts.items);
        batch.places.append(&mut texts.places);
        let canonicalization: Option<TextRules> = request.canonicalization;
        let options =
            WorkOptions { canonicalization, max_num_patches: request.max_num_patches, partial: false };
        Ok(Task { batch, images, model: request.model, options })
    })
    .await
}

fn map(matrix: &[Vec<f32>], f: impl Fn(f32) -> f32) -> Vec<Vec<f32>> {
    matrix.iter().map(|row| row.iter().map(|&x| f(x)).collect()).collect()
}
