//! `POST /v1/classify`: zero-shot labels of pictures.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::inputs::Batch;
use crate::api::labels::Labels;
use crate::api::native::embeddings::pictures;
use crate::api::native::resolve::{Meaning, resolve};
use crate::api::native::schema::{
    Classification, ClassificationEntry, ClassificationTag, ClassifyForm, ClassifyQuery, ClassifyRequest,
    ClassifyResponse, ErrorEntry, ErrorTag, Label, LabelPrediction, ListTag, Modality, Usage,
};
use crate::api::openapi::WorkErrors;
use crate::api::read::{Options, missing};
use crate::api::run::{Classified, RunOptions, classify as classify_pictures, scores};
use crate::api::source::Source;
use crate::budget::MemoryKind;
use crate::model::Match;
use crate::model::zero_shot::Ranking;

/// Says which of your labels fit pictures.
///
/// Each label is put into a template (the model's own unless `template` or `templates` say otherwise), embedded,
/// and compared with each picture. With several templates the normalised embeddings of a label are averaged and
/// normalised again, as CLIP's and big_vision's zero-shot protocols do. Scores are the model's calibrated sigmoid
/// probabilities unless `activation` says otherwise. Label texts are cached: sending the same labels with each
/// request costs no text computation.
///
/// As a form: `curl -F image=@cat.jpg -F labels=cat,dog`. Options may also be in the query.
#[utoipa::path(
    post, path = "/v1/classify", tag = "classification", operation_id = "classify",
    params(ClassifyQuery),
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
                    (ClassifyResponse = "application/msgpack"))),
        WorkErrors,
    )
)]
pub async fn classify(call: Call, body: Body) -> ApiResult<Response> {
    let format = call.format(&Format::DOCUMENTS)?;
    if !(call.media.is_form() || call.media.is_json()) {
        let hint =
            "add -H 'Content-Type: application/json', or send a form: -F image=@cat.jpg -F labels=cat,dog";
        return Err(call.media.unsupported("application/json or multipart/form-data", hint));
    }
    let query: ClassifyRequest = call.query()?;
    call.model(query.model.as_deref())?;
    let body = call.read(body).await?;
    let task = if call.media.is_form() {
        call.form(body, |form, options: ClassifyRequest, memory| {
            Ok(Task { pictures: pictures(&form, memory)?, options: options.and(query)? })
        })
        .await?
    } else {
        let max_pictures = call.state.config().max_items;
        call.json(body, move |request: ClassifyRequest, memory| {
            let mut options = request.and(query)?;
            let inputs = options.input.take().ok_or_else(|| missing("input"))?;
            let meaning = Meaning { bare: Modality::Image, token_ids: true, max_pictures };
            let mut pictures = resolve("input", inputs, meaning, memory)?;
            pictures.only(Source::is_picture, "classify labels pictures, not texts");
            Ok(Task { pictures, options })
        })
        .await?
    };
    answer(&call, task, format).await
}

/// A classification as it was asked for.
struct Task {
    pictures: Batch,
    options: ClassifyRequest,
}

async fn answer(call: &Call, task: Task, format: Format) -> ApiResult<Response> {
    let Task { pictures: batch, options } = task;
    let model = call.model(options.model.as_deref())?;
    // What cannot be scored is not looked at further.
    scores(&model)?;
    if options.top_k == Some(0) {
        return Err(ApiError::field("top_k", "must be at least 1"));
    }
    if options.threshold.is_some_and(|t| !t.is_finite()) {
        return Err(ApiError::field("threshold", "must be a finite number"));
    }
    let names = options.labels.ok_or_else(|| missing("labels"))?.0;
    let templates = options.templates.map(|templates| templates.0);
    let most = call.state.config().max_labels;
    let labels = Labels::new(names, options.template, templates, &model.info().template, most)?;
    // What the answer takes is known now; nothing is computed for one that is too large.
    let room = room(batch.len(), &labels, options.top_k);
    let memory = call.charge(MemoryKind::Answer, room)?;
    let run = RunOptions {
        canonicalization: options.canonicalization,
        max_num_patches: options.max_num_patches,
        partial: options.partial.unwrap_or(false),
    };
    let ranking = Ranking {
        activation: options.activation.unwrap_or_default(),
        top_k: options.top_k,
        threshold: options.threshold,
    };
    let classified = classify_pictures(call, &model, batch, &labels, ranking, run).await?;
    let Classified { pictures, matches, tokens, fingerprint, timings } = classified;
    let (name, names) = (model.name().to_owned(), Arc::clone(labels.names()));
    let bytes = answer::build(memory, move || {
        let mut matches = matches.into_iter();
        let data = pictures
            .into_iter()
            .enumerate()
            .map(|(index, result)| match result {
                Ok(_) => {
                    let matches = matches.next().unwrap_or_default();
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
        answer::document(&response, format, room)
    })
    .await?;
    Ok(answer::respond(bytes, format, &model, &fingerprint, timings))
}

/// Bytes that building the answer takes at most: every picture may name every label that it is asked for, or an error.
fn room(pictures: usize, labels: &Labels, top_k: Option<usize>) -> usize {
    const ENTRY: usize = 2200;
    /// Two numbers and the names of the fields, and the entry before it is written.
    const EACH: usize = 96 + size_of::<LabelPrediction>() + size_of::<Match>();
    let names: Vec<usize> = labels.names().iter().map(|name| EACH + answer::escaped(name)).collect();
    let longest = names.iter().copied().max().unwrap_or(0);
    let all = names.iter().sum::<usize>().min(longest.saturating_mul(top_k.unwrap_or(usize::MAX)));
    pictures.saturating_mul(ENTRY + 2 * longest + all)
}

fn classification(index: usize, names: &[Arc<str>], matches: &[Match]) -> Classification {
    let label = |of: &Match| Label(Arc::clone(&names[of.label]));
    let predictions =
        matches.iter().map(|m| LabelPrediction { label: label(m), score: m.score, logit: m.logit }).collect();
    let best = matches.first();
    Classification {
        object: ClassificationTag::Classification,
        index,
        prediction: best.map(label),
        score: best.map(|best| best.score),
        predictions,
    }
}
