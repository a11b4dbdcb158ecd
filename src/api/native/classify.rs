//! `POST /v1/classify`: zero-shot labels of pictures.

use std::sync::Arc;

use axum::response::Response;

use crate::api::answer;
use crate::api::edge::body::{off_runtime, parse_json};
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::native::call::Call;
use crate::api::native::form;
use crate::api::native::labels::Labels;
use crate::api::native::schema::{
    Classification, ClassificationEntry, ClassificationTag, ClassifyForm, ClassifyParams, ClassifyRequest,
    ClassifyResponse, ErrorEntry, ErrorTag, LabelPrediction, ListTag, Modality, Usage,
};
use crate::api::native::work::{self, Batch, Embedded, WorkOptions};
use crate::api::openapi::WorkErrors;
use crate::api::source::Source;
use crate::engine::{self, Embedding, Input, Scored};
use crate::model::zero_shot::Ranking;
use crate::model::{Match, Scores};

/// Says which of your labels fit pictures.
///
/// Each label is put into a template (the model's own unless `template` or `templates` say otherwise), embedded,
/// and compared with each picture. With several templates the normalised embeddings of a label are averaged and
/// normalised again, as CLIP's and big_vision's zero-shot protocols do. Scores are the model's calibrated sigmoid
/// probabilities unless `activation` says otherwise. Label texts are cached: sending the same labels with each
/// request costs no text computation.
///
/// As a form: `curl -F image=@cat.jpg -F labels=cat,dog`.
#[utoipa::path(
    post, path = "/v1/classify", tag = "classification", operation_id = "classify",
    request_body(description = "Pictures and labels", content(
        (ClassifyRequest = "application/json"), (ClassifyForm = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "The labels of each picture, best first",
            content((ClassifyResponse = "application/json",
                     example = json!({
                        "object": "list",
                        "data": [{"object": "classification", "index": 0, "prediction": "cat", "score": 0.93,
                                  "predictions": [{"label": "cat", "score": 0.93, "logit": 2.59},
                                                  {"label": "dog", "score": 0.001, "logit": -6.9}]}],
                        "model": "siglip2-base-patch16-224",
                        "usage": {"prompt_tokens": 208, "total_tokens": 208},
                     })),
                    (ClassifyResponse = "application/msgpack")),
            headers(
                ("x-siglip-fingerprint" = String, description = "Names the embedding space"),
                ("x-siglip-model" = String, description = "The model that answered"),
                ("server-timing" = String, description = "decode, tokenize, queue, inference and total, in ms"),
            )),
        WorkErrors,
    )
)]
pub async fn classify(call: Call) -> ApiResult<Response> {
    let format = call.format(&Format::DOCUMENTS)?;
    let task = if call.body.media_type == "multipart/form-data" {
        from_form(&call).await?
    } else if call.body.is_json() {
        from_json(&call).await?
    } else {
        return Err(call.body.unsupported("application/json or multipart/form-data"));
    };
    answer(&call, task, format).await
}

/// A classification as it was asked for.
struct Task {
    images: Batch,
    labels: Vec<String>,
    templates: Option<Vec<String>>,
    params: ClassifyParams,
}

async fn from_json(call: &Call) -> ApiResult<Task> {
    let bytes = call.body.bytes.clone();
    let limit = call.state.config().max_items;
    off_runtime(bytes.len(), move || {
        let request: ClassifyRequest = parse_json(&bytes)?;
        work::check_count("input", request.input.items.len(), limit)?;
        let mut images = Batch::default();
        images.extend("input", request.input, Modality::Image);
        let params = ClassifyParams {
            model: request.model,
            template: request.template,
            activation: request.activation,
            top_k: request.top_k,
            threshold: request.threshold,
            canonicalization: request.canonicalization,
            max_num_patches: request.max_num_patches,
            partial: request.partial,
        };
        Ok(Task { images, labels: request.labels.0, templates: request.templates.map(|t| t.0), params })
    })
    .await
}

async fn from_form(call: &Call) -> ApiResult<Task> {
    let limit = call.state.config().max_items;
    let mut form = form::read(&call.body, limit).await?;
    let labels = form.take_list(&["labels", "labels[]", "label"], true)?;
    let templates = form.take_list(&["templates", "templates[]"], false)?;
    let params = work::query(&form.over_query(None))?;
    let templates = (!templates.is_empty()).then_some(templates);
    work::check_count("image", form.images.len(), limit)?;
    Ok(Task { images: form.images, labels, templates, params })
}

async fn answer(call: &Call, task: Task, format: Format) -> ApiResult<Response> {
    let Task { images: mut batch, labels, templates, params } = task;
    let model = work::model(&call.state, params.model.as_deref())?;
    let info = model.info();
    let (Some(scale), Some(bias)) = (info.logit_scale, info.logit_bias) else {
        let message =
            format!("the model {:?} has no logit scale and bias to score labels with", model.name());
        return Err(ApiError::unprocessable("unsupported_by_model", message));
    };
    for (name, value) in [("top_k", params.top_k), ("max_num_patches", params.max_num_patches)] {
        if value == Some(0) {
            return Err(ApiError::field(name, "must be at least 1"));
        }
    }
    if params.threshold.is_some_and(|t| !t.is_finite()) {
        return Err(ApiError::field("threshold", "must be a finite number"));
    }
    let labels =
        Labels::new(labels, params.template, templates, &info.template, call.state.config().max_labels)?;
    batch.only(work::is_image, "classify labels pictures, not texts");
    let images = batch.len();
    for (place, text) in labels.texts() {
        batch.push(place, Ok(Source::Ready(Input::Text(text))));
    }
    let options = WorkOptions {
        canonicalization: params.canonicalization,
        max_num_patches: params.max_num_patches,
        partial: params.partial.unwrap_or(false),
    };
    let Embedded { mut results, timings } = call.embed(&model, batch, options).await?;
    // A label that cannot be used spoils every picture's answer, so it is never partial.
    let texts: Vec<Embedding> = results.split_off(images).into_iter().collect::<ApiResult<_>>()?;
    let tokens = results.iter().flatten().chain(&texts).map(|embedding| embedding.tokens).sum();

    let name = model.name().to_owned();
    let ranking = Ranking {
        activation: params.activation.unwrap_or_default().into(),
        top_k: params.top_k,
        threshold: params.threshold,
    };
    let pictures = results.iter().flatten().map(|picture| Arc::clone(&picture.vector)).collect();
    let names: Arc<[Arc<str>]> = labels.names().iter().map(|name| name.as_str().into()).collect();
    let inline = engine::Labels::Inline {
        names: Arc::clone(&names),
        texts: texts.into_iter().map(|text| text.vector).collect(),
        templates: labels.templates(),
    };
    let scored = model.rank(pictures, inline, Scores { scale, bias }, ranking, call.score_options()).await;
    let Scored { value: ranked, timings: scoring } = scored.map_err(|error| call.engine_error(error))?;
    let timings = timings.and(scoring);
    let bytes = off_runtime(ranked.iter().map(Vec::len).sum::<usize>() * 64, move || {
        let mut ranked = ranked.into_iter();
        let data = results
            .into_iter()
            .enumerate()
            .map(|(index, result)| match result {
                Ok(_) => {
                    let matches = ranked.next().unwrap_or_default();
                    ClassificationEntry::Classification(classification(index, &names, &matches))
                }
                Err(error) => ClassificationEntry::Error(ErrorEntry {
                    object: ErrorTag::Error,
                    index,
                    error: *error.detail,
                }),
            })
            .collect();
        let response =
            ClassifyResponse { object: ListTag::List, data, model: name, usage: Usage::of(tokens) };
        answer::document(&response, format)
    })
    .await?;
    Ok(answer::respond(bytes, format, &model, timings))
}

fn classification(index: usize, names: &[Arc<str>], matches: &[Match]) -> Classification {
    let predictions: Vec<LabelPrediction> = matches
        .iter()
        .map(|m| LabelPrediction { label: names[m.label].to_string(), score: m.score, logit: m.logit })
        .collect();
    Classification {
        object: ClassificationTag::Classification,
        index,
        prediction: predictions.first().map(|best| best.label.clone()),
        score: predictions.first().map(|best| best.score),
        predictions,
    }
}
