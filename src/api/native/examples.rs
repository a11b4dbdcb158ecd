//! `/v1/label-sets/{name}/examples` and `/calibrate`: pictures that say what labels mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::body::off_runtime;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::inputs::{Batch, check_count};
use crate::api::native::label_sets::{Name, change, name_of, stored, tag};
use crate::api::native::schema::{
    CalibrateRequest, CalibrateResponse, CalibrationTag, CurvePoint, ExamplesRequest, ExamplesResponse,
    ExamplesTag, LabelExamples, LabelThreshold, LabelledPicture, LabelledPictures, PictureOrVector,
    RemoveExamplesRequest,
};
use crate::api::openapi::WorkErrors;
use crate::api::read::{Heap, Options, missing};
use crate::api::run::{RunOptions, embed};
use crate::budget::{Charge, MemoryKind};
use crate::engine::{self, ModelHandle};
use crate::labels::examples::{Accuracy, LabelFit};
use crate::labels::{
    Calibration, Example, Index, LabelError, Point, Version, calibrate as threshold_of, check_share,
};
use crate::model::zero_shot::Ranking;
use crate::model::{Judged, Question, Scores};

/// The precision that is wanted where a request says nothing.
const PRECISION: f32 = 0.9;
/// Pictures times labels of one calibration at most.
const MAX_SCORES: usize = 2_000_000;

/// The labels of a picture, and its embedding.
type Labelled = (Vec<Box<str>>, Arc<[f32]>);

/// Pictures with their labels and embeddings.
struct Embedded {
    items: Vec<Labelled>,
    /// What they hold.
    _memory: Charge,
}

/// Adds examples of labels.
///
/// A label with examples is a direction between its words and its examples: words count as up to four examples if they
/// explain them. The answer says how many examples are right by words alone, and with the other examples. A label that would
/// lose more than two of its examples, and more than half of them, keeps its words. Thresholds keep their meaning. Examples are embeddings: they are of use only to a model of the same
/// fingerprint. The set gets a new version.
#[utoipa::path(
    post, path = "/v1/label-sets/{name}/examples", tag = "classification", operation_id = "add_examples",
    params(
        ("name" = String, Path, description = "The set's name"),
        ("If-Match" = Option<String>, Header, description = "Versions of which the set must have one"),
    ),
    request_body(content = ExamplesRequest),
    responses((status = 200, description = "What the examples do", body = ExamplesResponse), WorkErrors)
)]
pub async fn add(name: Name, call: Call, body: Body) -> ApiResult<Response> {
    let (name, condition) = (name_of(name)?, call.condition()?);
    let query: ExamplesRequest = call.query()?;
    let version = call.state.label_sets().get(&name)?;
    let max_items = call.state.config().max_items;
    let (given, options) = read(&call, body, query, move |request: &mut ExamplesRequest| {
        let examples = request.examples.take().ok_or_else(|| missing("examples"))?;
        check_count("examples", examples.0.len(), max_items)?;
        match examples.0.iter().position(|picture| picture.labels.len() != 1) {
            None => Ok(examples),
            Some(at) => Err(ApiError::field(&format!("examples[{at}]"), "an example has one label")),
        }
    })
    .await?;
    let model = model_of(&call, &version, options.model.as_deref())?;
    // The directions of its words must be there.
    let resolved = call.state.label_sets().resolve(&name, &model)?;
    let (given, _) = indices(&resolved.version, "examples", given).await?;
    let Embedded { items, _memory } =
        embedded(&call, &model, "examples", given, options.max_num_patches).await?;
    let (space, width) = (model.info().fingerprint.clone(), model.info().embedding_dim);
    let put = change(&call, move |sets| {
        let added: Vec<Example> = items.iter().map(|(labels, vector)| (&*labels[0], &**vector)).collect();
        let put = sets.add_examples(&name, &condition, (&space, width), &added)?;
        drop(_memory);
        Ok(put)
    })
    .await?;
    report(&call, put.version, &model).await
}

/// Removes the examples of some labels, or all. The set gets a new version.
#[utoipa::path(
    delete, path = "/v1/label-sets/{name}/examples", tag = "classification", operation_id = "remove_examples",
    params(
        ("name" = String, Path, description = "The set's name"),
        ("labels" = Option<Vec<String>>, Query, description = "Whose examples; all if left out"),
        ("If-Match" = Option<String>, Header, description = "Versions of which the set must have one"),
    ),
    responses(
        (status = 200, description = "They are removed",
         body = crate::api::native::schema::LabelSetAnswer<'static>),
        WorkErrors,
    )
)]
pub async fn remove(name: Name, call: Call) -> ApiResult<Response> {
    let (name, condition) = (name_of(name)?, call.condition()?);
    let query: RemoveExamplesRequest = call.query()?;
    if call.has_body() {
        // Passed over, `labels` in it would mean all of them.
        return Err(ApiError::bad_request(
            "invalid_request",
            "labels go in the query: ?labels=cat&labels=dog",
        ));
    }
    let put = change(&call, move |sets| {
        let labels = query.labels.map(|labels| labels.0);
        Ok(sets.remove_examples(&name, &condition, labels.as_deref())?)
    })
    .await?;
    stored(&call, put)
}

/// Chooses thresholds of labels by pictures of which the labels are known.
///
/// For each label that a picture has: the threshold with the most recall among those of the wanted precision, and the curve.
/// With `apply` they are stored with the set, which gets a new version.
#[utoipa::path(
    post, path = "/v1/label-sets/{name}/calibrate", tag = "classification", operation_id = "calibrate_label_set",
    params(
        ("name" = String, Path, description = "The set's name"),
        ("If-Match" = Option<String>, Header, description = "Versions of which the set must have one"),
    ),
    request_body(content = CalibrateRequest),
    responses((status = 200, description = "The thresholds", body = CalibrateResponse), WorkErrors)
)]
pub async fn calibrate(name: Name, call: Call, body: Body) -> ApiResult<Response> {
    let (name, condition) = (name_of(name)?, call.condition()?);
    let query: CalibrateRequest = call.query()?;
    let version = call.state.label_sets().get(&name)?;
    let max_items = call.state.config().max_items;
    let (given, options) = read(&call, body, query, move |request: &mut CalibrateRequest| {
        let pictures = request.pictures.take().ok_or_else(|| missing("pictures"))?;
        check_count("pictures", pictures.0.len(), max_items)?;
        Ok(pictures)
    })
    .await?;
    let precision = options.precision.unwrap_or(PRECISION);
    check_share("precision", precision)?;
    let model = model_of(&call, &version, options.model.as_deref())?;
    let resolved = call.state.label_sets().resolve(&name, &model)?;
    let version = Arc::clone(&resolved.version);
    let (pictures, labels) = (given.pictures.0.len(), version.names().len());
    if pictures.saturating_mul(labels) > MAX_SCORES {
        let message = format!("{pictures} pictures times {labels} labels; at most {MAX_SCORES}");
        return Err(ApiError::too_large(message).at("pictures"));
    }
    // A score and its label, sorted, for each picture of a label; the matches themselves are the engine's.
    let room = call.charge(MemoryKind::Parsed, pictures.saturating_mul(labels).saturating_mul(16))?;
    // Nothing is computed for labels that are not there.
    let (given, of_picture) = indices(&version, "pictures", given).await?;
    let Embedded { items, _memory } =
        embedded(&call, &model, "pictures", given, options.max_num_patches).await?;
    let info = model.info();
    let scores = match info.logit_scale.zip(info.logit_bias) {
        Some((scale, bias)) => Scores { scale, bias },
        None if resolved.ready.set().is_head() => Scores { scale: 1.0, bias: 0.0 },
        None => {
            let message = format!("the model {:?} has no logit scale and bias", model.name());
            return Err(ApiError::unprocessable("unsupported_by_model", message));
        }
    };
    let activation = version.definition().activation.unwrap_or_default();
    let question =
        Question { ranking: Ranking { activation, top_k: None, threshold: None }, ..Question::default() };
    let vectors = items.iter().map(|(_, vector)| Arc::clone(vector)).collect();
    let set = engine::Labels::Set(Arc::clone(resolved.ready.set()));
    let judged = model.judge(vectors, set, scores, question, call.score_options()).await;
    let judged = judged.map_err(|error| call.engine_error(error))?.value;
    let of_version = Arc::clone(&version);
    let (labels, thresholds) = off_runtime(usize::MAX, move || {
        let chosen = chosen(&of_version, &of_picture, &judged, precision);
        drop((judged, items, _memory, room));
        Ok(chosen)
    })
    .await?;
    let applied = options.apply == Some(true);
    let version = match applied {
        true => {
            change(&call, move |sets| Ok(sets.set_thresholds(&version, &condition, &thresholds)?))
                .await?
                .version
        }
        false => version,
    };
    let object = CalibrationTag::LabelSetCalibration;
    let response = CalibrateResponse { object, name, version: version.id().to_owned(), applied, labels };
    const EACH: usize = 4096;
    let names: usize = response.labels.iter().map(|label| EACH + answer::escaped(&label.label)).sum();
    document(&call, &version, 1024 + names, move || response).await
}

/// The threshold of each label that a picture has, as it is answered and by the label's index. `of_picture` are the labels that
/// each picture has.
fn chosen(
    version: &Version,
    of_picture: &[Vec<u32>],
    judged: &[Judged],
    precision: f32,
) -> (Vec<LabelThreshold>, Vec<(u32, f32)>) {
    let mut by_label: BTreeMap<u32, Vec<(f32, bool)>> =
        of_picture.iter().flatten().map(|&label| (label, Vec::new())).collect();
    for (labels, judged) in of_picture.iter().zip(judged) {
        for found in &judged.matches {
            let label = found.label as u32;
            if let Some(scores) = by_label.get_mut(&label) {
                scores.push((found.score, labels.contains(&label)));
            }
        }
    }
    let (mut said, mut thresholds) = (Vec::new(), Vec::new());
    for (label, scores) in by_label {
        let Calibration { positives, chosen, curve } = threshold_of(scores, precision);
        let point =
            |p: &Point| CurvePoint { threshold: p.threshold, precision: p.precision, recall: p.recall };
        thresholds.extend(chosen.map(|chosen| (label, chosen.threshold)));
        said.push(LabelThreshold {
            label: version.names()[label as usize].to_string(),
            pictures: positives,
            threshold: chosen.map(|chosen| chosen.threshold),
            precision: chosen.map(|chosen| chosen.precision),
            recall: chosen.map(|chosen| chosen.recall),
            curve: curve.iter().map(point).collect(),
        });
    }
    (said, thresholds)
}

/// The indices of the labels of each picture.
///
/// # Errors
/// 422 for a label that the set does not have.
async fn indices(
    version: &Arc<Version>,
    field: &'static str,
    given: Given,
) -> ApiResult<(Given, Vec<Vec<u32>>)> {
    let version = Arc::clone(version);
    off_runtime(usize::MAX, move || {
        let index = Index::of(&version);
        let of = |(at, picture): (usize, &LabelledPicture)| {
            let place = format!("{field}[{at}]");
            let each = picture.labels.iter().map(|label| index.label(label, &place));
            each.collect::<Result<Vec<u32>, LabelError>>()
        };
        let indices = given.pictures.0.iter().enumerate().map(of).collect::<Result<_, _>>()?;
        Ok((given, indices))
    })
    .await
}

/// Pictures with their labels as they were read, with the memory that they hold.
struct Given {
    pictures: LabelledPictures,
    memory: Charge,
}

/// Reads a body, and takes out what is in it beside its options.
async fn read<T: Options>(
    call: &Call,
    body: Body,
    query: T,
    take: impl FnOnce(&mut T) -> ApiResult<LabelledPictures> + Send + 'static,
) -> ApiResult<(Given, T)> {
    if !call.media.is_json() {
        return Err(call.media.unsupported("application/json", "add -H 'Content-Type: application/json'"));
    }
    let body = call.read(body).await?;
    call.json(body, move |request: T, memory| {
        let mut options = request.and(query)?;
        let pictures = take(&mut options)?;
        Ok((Given { pictures, memory }, options))
    })
    .await
}

/// The model of a request: its own, else that of the set.
fn model_of(call: &Call, version: &Version, given: Option<&str>) -> ApiResult<ModelHandle> {
    call.model(given.or(version.definition().model.as_deref()))
}

/// The embedding of every picture.
async fn embedded(
    call: &Call,
    model: &ModelHandle,
    field: &str,
    given: Given,
    max_num_patches: Option<usize>,
) -> ApiResult<Embedded> {
    let Given { pictures, mut memory } = given;
    let vectors =
        pictures.0.len().saturating_mul(model.info().embedding_dim).saturating_mul(size_of::<f32>());
    let own = call.charge(MemoryKind::Parsed, vectors)?;
    let width = model.info().embedding_dim;
    let mut labels = Vec::with_capacity(pictures.0.len());
    let mut known: Vec<Option<Arc<[f32]>>> = Vec::with_capacity(pictures.0.len());
    let held = pictures.heap();
    let batch = off_runtime(memory.bytes(), {
        let field = field.to_owned();
        move || {
            let images = memory.split(held);
            let mut batch = Batch::new(images);
            for (at, picture) in pictures.0.into_iter().enumerate() {
                let place = format!("{field}[{at}]");
                labels.push(picture.labels);
                known.push(match picture.picture {
                    PictureOrVector::Embedding(vector) => {
                        vector.check(&place, width)?;
                        Some(vector.0)
                    }
                    PictureOrVector::Image(text) => {
                        batch.push_encoded(place, &text);
                        None
                    }
                });
            }
            Ok((batch, labels, known))
        }
    });
    let (batch, labels, known) = batch.await?;
    let run = RunOptions { max_num_patches, if_match_is_taken: true, ..RunOptions::default() };
    let mut results = embed(call, model, batch, run).await?.results.into_iter();
    let mut items = Vec::with_capacity(labels.len());
    for (labels, known) in labels.into_iter().zip(known) {
        let vector = match known {
            Some(vector) => vector,
            None => match results.next() {
                Some(result) => result?.vector,
                None => return Err(ApiError::internal("the engine answered fewer pictures than it got")),
            },
        };
        items.push((labels, vector));
    }
    Ok(Embedded { items, _memory: own })
}

/// What examples do, as an answer.
async fn report(call: &Call, version: Arc<Version>, model: &ModelHandle) -> ApiResult<Response> {
    const EACH: usize = 256;
    let fingerprint = model.info().fingerprint.clone();
    let ready = version.ready(&fingerprint);
    let labels = ready.as_ref().and_then(|ready| ready.fit()).map_or(&[][..], |fit| &fit.labels);
    // A name as it is written, and as a string of its own before.
    let each = |fit: &LabelFit| {
        let name = &version.names()[fit.label as usize];
        EACH + answer::escaped(name) + name.len()
    };
    let room = 1024 + labels.iter().map(each).sum::<usize>();
    let named = Arc::clone(&version);
    document(call, &version, room, move || {
        let share = |accuracy: Accuracy| accuracy.right as f32 / accuracy.of.max(1) as f32;
        let fit = ready.as_ref().and_then(|ready| ready.fit());
        let label = |fit: &LabelFit| LabelExamples {
            label: named.names()[fit.label as usize].to_string(),
            examples: fit.before.of,
            words: fit.words,
            accuracy_before: share(fit.before),
            accuracy_after: share(fit.after),
            keeps_words: fit.keeps_words,
        };
        ExamplesResponse {
            object: ExamplesTag::LabelSetExamples,
            name: named.name().to_string(),
            version: named.id().to_owned(),
            fingerprint,
            examples: named.examples(),
            accuracy_before: fit.map(|fit| share(fit.before)),
            accuracy_after: fit.map(|fit| share(fit.after)),
            labels: fit.map(|fit| fit.labels.iter().map(label).collect()).unwrap_or_default(),
        }
    })
    .await
}

/// An answer of at most `room` bytes about a version; what it is made of is charged until it is sent.
async fn document<T: Serialize>(
    call: &Call,
    version: &Version,
    room: usize,
    response: impl FnOnce() -> T + Send + 'static,
) -> ApiResult<Response> {
    let memory = call.charge(MemoryKind::Answer, room)?;
    let bytes = answer::build(memory, move || answer::document(&response(), Format::Json, room)).await?;
    let headers =
        [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::ETAG, tag(version))];
    Ok((headers, Body::from(bytes)).into_response())
}
