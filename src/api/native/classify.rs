//! `POST /v1/classify`: zero-shot labels of pictures.

mod subject;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::inputs::{Batch, check_count};
use crate::api::native::embeddings::pictures;
use crate::api::native::resolve::{Meaning, resolve};
use crate::api::native::schema::{
    Classification, ClassificationEntry, ClassificationTag, ClassifyForm, ClassifyQuery, ClassifyRequest,
    ClassifyResponse, ErrorEntry, ErrorTag, Label, LabelPrediction, ListTag, Modality, Usage, Vectors,
};
use crate::api::openapi::WorkErrors;
use crate::api::read::{Heap, Options, missing};
use crate::api::run::{self, Classified, RunOptions, scores};
use crate::api::source::Source;
use crate::budget::{Charge, MemoryKind};
use crate::model::zero_shot::Ranking;
use crate::model::{Judged, Match, Question, Scores, Thresholds};
use subject::Subject;

/// Says which of your labels fit pictures.
///
/// Labels come with the request, or are those of a stored set (`label_set`, see `/v1/label-sets`), with its thresholds and
/// its rule for when none of them fits. Pictures may also be embeddings that you have stored.
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
            let pictures = pictures(&form, memory)?;
            Ok(Task { pictures, embeddings: None, options: options.and(query)? })
        })
        .await?
    } else {
        let max_pictures = call.state.config().max_items;
        call.json(body, move |request: ClassifyRequest, mut memory| {
            let mut options = request.and(query)?;
            let inputs = match (options.input.take(), options.embeddings.take()) {
                (Some(_), Some(_)) => {
                    return Err(ApiError::field("embeddings", "give either input or embeddings"));
                }
                (None, None) => return Err(missing("input")),
                (None, Some(embeddings)) => {
                    check_count("embeddings", embeddings.0.len(), max_pictures)?;
                    let held = memory.split(embeddings.heap());
                    let embeddings = Some((embeddings, held));
                    return Ok(Task { pictures: Batch::new(memory), embeddings, options });
                }
                (Some(inputs), None) => inputs,
            };
            let meaning = Meaning { bare: Modality::Image, token_ids: true, max_pictures };
            let mut pictures = resolve("input", inputs, meaning, memory)?;
            pictures.only(Source::is_picture, "classify labels pictures, not texts");
            Ok(Task { pictures, embeddings: None, options })
        })
        .await?
    };
    answer(&call, task, format).await
}

/// A classification as it was asked for: of pictures, or of embeddings.
struct Task {
    pictures: Batch,
    embeddings: Option<(Vectors, Charge)>,
    options: ClassifyRequest,
}

async fn answer(call: &Call, task: Task, format: Format) -> ApiResult<Response> {
    let Task { pictures: mut batch, embeddings, mut options } = task;
    let model = call.model(options.model.as_deref())?;
    let info = model.info();
    if options.top_k == Some(0) {
        return Err(ApiError::field("top_k", "must be at least 1"));
    }
    if options.threshold.is_some_and(|t| !t.is_finite()) {
        return Err(ApiError::field("threshold", "must be a finite number"));
    }
    let subject = Subject::of(call, &model, &mut options)?;
    let scores = match scores(&model) {
        // A head has logits of its own.
        Err(_) if subject.is_head() => Scores { scale: 1.0, bias: 0.0 },
        scores => scores?,
    };
    // Held until the answer is there.
    let mut _held = None;
    let mut given = Vec::new();
    let looks_at = subject.looks_at();
    if let Some((Vectors(vectors), held)) = embeddings {
        if looks_at.is_some() {
            let message =
                "the checkpoint's own classifier looks at patches, not at embeddings: send pictures";
            return Err(ApiError::field("embeddings", message));
        }
        for (index, vector) in vectors.iter().enumerate() {
            vector.check(&format!("embeddings[{index}]"), info.embedding_dim)?;
        }
        given = vectors.into_iter().map(|vector| vector.0).collect();
        _held = Some(held);
    }
    let pictures = batch.len();
    // What the answer takes is known now; nothing is computed for one that is too large.
    let room = room(pictures + given.len(), &subject, options.top_k);
    let memory = call.charge(MemoryKind::Answer, room)?;
    let none = subject.none(call, &model, scores, options.none.take()).await?;
    let standard = subject.standard(call, &model, scores, &mut options).await?;
    let question = Question {
        ranking: Ranking {
            activation: subject.activation(options.activation),
            top_k: options.top_k,
            threshold: None,
        },
        thresholds: match standard {
            // Those of a set are probabilities.
            Some(_) => options.threshold.map(Thresholds::All),
            None => subject.thresholds(options.threshold),
        },
        none,
        standard,
    };
    subject.push_prompts(&mut batch)?;
    let options = RunOptions {
        canonicalization: options.canonicalization,
        max_num_patches: options.max_num_patches,
        partial: options.partial.unwrap_or(false),
        if_match_is_taken: false,
    };
    let (name, names, label_set) = (model.name().to_owned(), Arc::clone(subject.names()), subject.used());
    let wanted = run::ToClassify { batch, pictures, given, scores, question, looks_at };
    let classified = run::classify(call, &model, wanted, options, |texts| subject.into_labels(texts)).await?;
    let Classified { results, tokens, fingerprint, timings } = classified;
    let bytes = answer::build(memory, move || {
        let data = results
            .into_iter()
            .enumerate()
            .map(|(index, result)| match result {
                Ok(judged) => ClassificationEntry::Classification(classification(index, &names, &judged)),
                Err(error) => ClassificationEntry::Error(ErrorEntry {
                    object: ErrorTag::Error,
                    index,
                    error: *error.detail,
                }),
            })
            .collect();
        let usage = Usage::of(tokens);
        let response = ClassifyResponse { object: ListTag::List, data, model: name, usage, label_set };
        answer::document(&response, format, room)
    })
    .await?;
    Ok(answer::respond(bytes, format, &model, &fingerprint, timings))
}

/// Bytes that building the answer takes at most: every picture may name every label that it is asked for, or an error.
fn room(pictures: usize, subject: &Subject, top_k: Option<usize>) -> usize {
    const ENTRY: usize = 2400;
    /// Two numbers and the names of the fields, and the entry before it is written.
    const EACH: usize = 96 + size_of::<LabelPrediction>() + size_of::<Match>();
    let (longest, all) = subject.lengths();
    let (longest, all) = (longest + EACH, all + subject.names().len() * EACH);
    let all = all.min(longest.saturating_mul(top_k.unwrap_or(usize::MAX)));
    pictures.saturating_mul(ENTRY + 2 * longest + all)
}

fn classification(index: usize, names: &[Arc<str>], judged: &Judged) -> Classification {
    let label = |of: &Match| Label(Arc::clone(&names[of.label]));
    let predictions = judged
        .matches
        .iter()
        .map(|m| LabelPrediction { label: label(m), score: m.score, logit: m.logit })
        .collect();
    let none_fits = judged.none.is_some_and(|none| none.none_fits());
    let best = judged.matches.first().filter(|_| !none_fits);
    Classification {
        object: ClassificationTag::Classification,
        index,
        prediction: best.map(label),
        score: best.map(|best| best.score),
        predictions,
        none: judged.none.map(Into::into),
    }
}
