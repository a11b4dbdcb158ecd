//! Hugging Face inference (`huggingface_hub` and `@huggingface/inference` with the address of an endpoint): zero-shot image
//! classification, feature extraction and sentence similarity, told apart by what the body is.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::common::{self, Says, Segments, Truncate, respond_within, segments};
use super::parts::{Strings, request};
use super::tei::{self, EmbedRequest, Sentences};
use super::{Dialect, Route, parses};
use crate::api::answer::escaped;
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::Batch;
use crate::api::labels::Labels;
use crate::api::native::schema::{Input, Inputs, Label};
use crate::api::read::{Heap, missing};
use crate::api::run::{Classified, RunOptions, ToClassify, classify, scores};
use crate::engine::ModelHandle;
use crate::model::{Match, Question};

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "huggingface",
    about: "Hugging Face inference: zero-shot image classification, feature extraction, sentence similarity",
    routes: &[
        Route::post("/", || post(first)),
        Route::post("/models/{id}", || post(named)),
        Route::post("/models/{owner}/{name}", || post(owned)),
        Route::post("/models/{id}/pipeline/{task}", || post(named_task)),
        Route::post("/models/{owner}/{name}/pipeline/{task}", || post(owned_task)),
        Route::post("/pipeline/{task}/{id}", || post(task_named)),
        Route::post("/pipeline/{task}/{owner}/{name}", || post(task_owned)),
    ],
    below: &["/pipeline/"],
    shares: &[],
    shape,
    key: None,
    parse: parses::<Request>,
    example: r#"curl localhost:8080/ -H 'content-type: application/json' -d '{
  "inputs": "iVBORw0KGgo…", "parameters": {"candidate_labels": ["cat", "dog"]}}'"#,
};

fn shape(error: &ApiError) -> Response {
    Json(json!({"error": error.detail.message})).into_response()
}

/// What a client says that it wants, where it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    ZeroShot,
    Features,
    Similarity,
}

impl Task {
    fn of(name: &str) -> ApiResult<Self> {
        match name {
            "zero-shot-image-classification" => Ok(Self::ZeroShot),
            "feature-extraction" | "image-feature-extraction" => Ok(Self::Features),
            "sentence-similarity" => Ok(Self::Similarity),
            _ => {
                let message = "this service does zero-shot-image-classification, feature-extraction and sentence-similarity";
                Err(ApiError::unprocessable("unsupported_task", message).at("task"))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ZeroShot => "zero-shot-image-classification",
            Self::Features => "feature-extraction",
            Self::Similarity => "sentence-similarity",
        }
    }

    /// Refuses a body of another task than this one, which the path names.
    fn check(self, of_body: Self) -> ApiResult<()> {
        match (self, of_body) {
            (path, body) if path == body => Ok(()),
            (Self::ZeroShot, Self::Features) => Err(missing("candidate_labels")),
            (Self::Similarity, Self::Features) => Err(missing("source_sentence")),
            (path, body) => {
                let message = format!("the path names {}, the body is that of {}", path.name(), body.name());
                Err(ApiError::bad_request("invalid_request", message).at("inputs"))
            }
        }
    }
}

async fn first(call: Call, body: Body) -> ApiResult<Response> {
    run(call, None, None, body).await
}

async fn named(path: Segments<String>, call: Call, body: Body) -> ApiResult<Response> {
    run(call, Some(segments(path)?), None, body).await
}

async fn owned(path: Segments<(String, String)>, call: Call, body: Body) -> ApiResult<Response> {
    let (owner, name) = segments(path)?;
    run(call, Some(format!("{owner}/{name}")), None, body).await
}

async fn named_task(path: Segments<(String, String)>, call: Call, body: Body) -> ApiResult<Response> {
    let (id, task) = segments(path)?;
    run(call, Some(id), Some(task), body).await
}

async fn owned_task(path: Segments<(String, String, String)>, call: Call, body: Body) -> ApiResult<Response> {
    let (owner, name, task) = segments(path)?;
    run(call, Some(format!("{owner}/{name}")), Some(task), body).await
}

async fn task_named(path: Segments<(String, String)>, call: Call, body: Body) -> ApiResult<Response> {
    let (task, id) = segments(path)?;
    run(call, Some(id), Some(task), body).await
}

async fn task_owned(path: Segments<(String, String, String)>, call: Call, body: Body) -> ApiResult<Response> {
    let (task, owner, name) = segments(path)?;
    run(call, Some(format!("{owner}/{name}")), Some(task), body).await
}

request! {
    struct Request {
        inputs: Sent,
        parameters: Parameters,
        truncate: Truncate,
        truncation_direction: Truncate,
        prompt_name: String,
        normalize: bool,
        dimensions: usize,
    }
}

request! {
    struct Parameters {
        candidate_labels: Strings,
        hypothesis_template: String,
        truncate: Truncate,
        truncation_direction: Truncate,
        prompt_name: String,
        normalize: bool,
    }
}

/// Inputs of any of the tasks.
#[derive(Debug)]
enum Sent {
    Inputs(Inputs),
    Sentences(Sentences),
}

impl Heap for Sent {
    fn heap(&self) -> usize {
        match self {
            Self::Inputs(inputs) => inputs.heap(),
            Self::Sentences(sentences) => sentences.heap(),
        }
    }
}

impl<'de> Deserialize<'de> for Sent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SentVisitor;

        impl<'de> Visitor<'de> for SentVisitor {
            type Value = Sent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a list, {\"image\": …} or {\"source_sentence\": …, \"sentences\": …}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sent, E> {
                Ok(Sent::Inputs(Inputs { items: vec![Input::Bare(text.to_owned())], single: true }))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Sent, A::Error> {
                Inputs::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Sent::Inputs)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sent, A::Error> {
                let mut image = None;
                let mut sentences = Sentences::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "image" => image = Some(Input::Image(map.next_value()?)),
                        "text" => image = Some(Input::Text(map.next_value()?)),
                        "source_sentence" => sentences.source_sentence = Some(map.next_value()?),
                        "sentences" => sentences.sentences = Some(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(match image {
                    Some(input) => Sent::Inputs(Inputs { items: vec![input], single: true }),
                    None => Sent::Sentences(sentences),
                })
            }
        }

        deserializer.deserialize_any(SentVisitor)
    }
}

/// A request, resolved.
enum Work {
    Embed(Batch, tei::Options),
    Compare(Batch),
    Classify { picture: Batch, labels: Vec<String>, template: Option<String> },
}

async fn run(call: Call, model: Option<String>, task: Option<String>, body: Body) -> ApiResult<Response> {
    let task = task.as_deref().map(Task::of).transpose()?;
    let model = call.model(model.as_deref())?;
    let most = call.state.config().max_items;
    let work = common::json(&call, body, Says::Json, move |request: Request, memory| {
        let parameters = request.parameters.unwrap_or_default();
        let truncate = request.truncate.or(parameters.truncate);
        let truncation_direction = request.truncation_direction.or(parameters.truncation_direction);
        let prompt_name = request.prompt_name.or(parameters.prompt_name);
        let sent = request.inputs.ok_or_else(|| missing("inputs"))?;
        let found = match (&sent, &parameters.candidate_labels) {
            (Sent::Sentences(_), _) => Task::Similarity,
            (Sent::Inputs(_), Some(_)) => Task::ZeroShot,
            (Sent::Inputs(_), None) => Task::Features,
        };
        task.unwrap_or(found).check(found)?;
        if found != Task::Features {
            tei::refuse_options(truncate, truncation_direction, prompt_name.as_deref())?;
        }
        let inputs = match sent {
            Sent::Sentences(sentences) => return Ok(Work::Compare(sentences.resolve(most, memory)?)),
            Sent::Inputs(inputs) => inputs,
        };
        if let Some(labels) = parameters.candidate_labels.map(|labels| labels.items) {
            let mut picture = Batch::new(memory);
            let place = "inputs".to_owned();
            match inputs.items.into_iter().next() {
                Some(Input::Bare(text) | Input::Image(text)) if inputs.single => {
                    picture.push_encoded(place, &text);
                    picture.memory.shrink(text.heap());
                }
                _ => return Err(ApiError::field("inputs", "one picture is needed, as base64 or a URL")),
            }
            return Ok(Work::Classify { picture, labels, template: parameters.hypothesis_template });
        }
        let request = EmbedRequest {
            inputs: Some(inputs),
            truncate,
            truncation_direction,
            prompt_name,
            normalize: request.normalize.or(parameters.normalize),
            dimensions: request.dimensions,
        };
        let (batch, options) = request.resolve(most, memory)?;
        Ok(Work::Embed(batch, options))
    })
    .await?;
    match work {
        Work::Embed(batch, options) => tei::embed_rows(&call, &model, batch, options).await,
        Work::Compare(batch) => tei::compare_first(&call, &model, batch).await,
        Work::Classify { picture, labels, template } => {
            zero_shot(&call, &model, picture, labels, template).await
        }
    }
}

#[derive(Serialize)]
struct Prediction {
    score: f32,
    label: Label,
}

/// The labels of one picture, best first, each with its own probability, as transformers' pipeline scores SigLIP.
async fn zero_shot(
    call: &Call,
    model: &ModelHandle,
    mut picture: Batch,
    labels: Vec<String>,
    template: Option<String>,
) -> ApiResult<Response> {
    let scores = scores(model)?;
    let most = call.state.config().max_labels;
    let labels = Labels::new(labels, template, None, &model.info().template, most)?;
    const EACH: usize = 64 + size_of::<Prediction>() + size_of::<Match>();
    let room = 1000 + labels.names().iter().map(|name| EACH + escaped(name)).sum::<usize>();
    let names = Arc::clone(labels.names());
    labels.push_prompts(&mut picture)?;
    let wanted = ToClassify {
        batch: picture,
        pictures: 1,
        given: Vec::new(),
        scores,
        question: Question::default(),
        looks_at: None,
    };
    let options = RunOptions::default();
    let classified = classify(call, model, wanted, options, |texts| labels.embedded(texts)).await?;
    let Classified { results, fingerprint, timings, .. } = classified;
    // The one picture's error is the request's.
    let judged = results.into_iter().collect::<ApiResult<Vec<_>>>()?;
    respond_within(call, model, room, &fingerprint, timings, move || {
        let prediction =
            |of: &Match| Prediction { score: of.score, label: Label(Arc::clone(&names[of.label])) };
        judged.iter().flat_map(|judged| &judged.matches).map(prediction).collect::<Vec<_>>()
    })
    .await
}
