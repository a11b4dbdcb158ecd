//! Immich's machine learning service (`machine-learning/immich_ml/main.py`;
//! `server/src/repositories/machine-learning.repository.ts`): pictures and texts of `clip`. Other tasks (faces, text in
//! pictures) go to another service, [`Upstream`]; without one they are refused, and Immich's server then asks the next
//! address of its list.

mod upstream;

use std::fmt;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use upstream::Upstream;

use super::common::{Room, respond, unit, vectors};
use super::{Dialect, Route, parses};
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult, quoted};
use crate::api::edge::keys::KeyPlace;
use crate::api::inputs::Batch;
use crate::api::read::{Form, Heap, Picture, parse_json, text};
use crate::budget::Charge;
use crate::checkpoint::known;
use crate::engine::{EngineError, ModelHandle};

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "immich",
    about: "Immich's machine learning: pictures and texts of clip",
    routes: &[Route::post("/predict", || post(predict)), Route::open("/ping", || get(async || "pong"))],
    below: &[],
    shares: &[],
    shape,
    key: Some(KeyPlace::Password),
    parse: parses::<Task>,
    example: r#"curl localhost:8080/predict -F text='a cat' \
  -F 'entries={"clip": {"textual": {"modelName": "demo"}}}'
curl localhost:8080/predict -F image=@cat.jpg \
  -F 'entries={"clip": {"visual": {"modelName": "demo"}}}'"#,
};

fn shape(error: &ApiError) -> Response {
    Json(json!({"detail": error.detail.message})).into_response()
}

/// What is asked for.
#[derive(Debug)]
enum Task {
    /// An embedding.
    Clip {
        /// Of this model.
        name: String,
        /// Of a picture, else of a text.
        visual: bool,
    },
    /// What this service does not do.
    Other(String),
}

#[derive(Debug, Deserialize)]
struct Clip {
    visual: Option<Entry>,
    textual: Option<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "modelName")]
    name: String,
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TaskVisitor;

        impl<'de> Visitor<'de> for TaskVisitor {
            type Value = Task;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the tasks")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Task, A::Error> {
                let (mut clip, mut other) = (None, None);
                while let Some(task) = map.next_key::<String>()? {
                    if task == "clip" {
                        clip = Some(map.next_value::<Clip>()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                        other = Some(task);
                    }
                }
                match (clip, other) {
                    (None, Some(task)) => Ok(Task::Other(task)),
                    (Some(_), Some(task)) => {
                        let message = format!("clip and {} in one request", quoted(&task));
                        Err(de::Error::custom(message))
                    }
                    (Some(Clip { visual: Some(entry), textual: None }), None) => {
                        Ok(Task::Clip { name: entry.name, visual: true })
                    }
                    (Some(Clip { visual: None, textual: Some(entry) }), None) => {
                        Ok(Task::Clip { name: entry.name, visual: false })
                    }
                    _ => Err(de::Error::custom("clip has either \"visual\" or \"textual\"")),
                }
            }
        }

        deserializer.deserialize_map(TaskVisitor)
    }
}

/// A request, understood.
enum Resolved {
    /// One input of the model of that name.
    Embed(Batch, String),
    /// A task of this name, for another service.
    Forward(String),
}

fn resolve(form: &Form, mut memory: Charge) -> ApiResult<Resolved> {
    let entries = form.field("entries").ok_or_else(|| ApiError::field("entries", "the field is missing"))?;
    let task: Task = parse_json(entries).map_err(|error| {
        ApiError::unprocessable(
            "invalid_request",
            format!("Invalid request format: {}", error.detail.message),
        )
    })?;
    let (name, visual) = match task {
        Task::Clip { name, visual } => (name, visual),
        Task::Other(task) => return Ok(Resolved::Forward(task)),
    };
    let picture = form.pictures.iter().find_map(|picture| match picture {
        Picture::File(bytes, _) => Some(bytes),
        Picture::Text(_) => None,
    });
    let wrong = |message: &str| Err(ApiError::bad_request("invalid_request", message));
    match (visual, picture, form.field("text")) {
        (true, Some(bytes), _) => {
            memory.shrink(memory.bytes().saturating_sub(name.heap()));
            let mut batch = Batch::new(memory);
            batch.push_picture("image".to_owned(), bytes.clone());
            Ok(Resolved::Embed(batch, name))
        }
        (false, None, Some(value)) => {
            let text = text(value, "text")?.to_owned();
            memory.shrink(memory.bytes().saturating_sub(text.len() + name.heap()));
            let mut batch = Batch::new(memory);
            batch.push_text("text".to_owned(), text);
            Ok(Resolved::Embed(batch, name))
        }
        (_, None, None) => wrong("Either image or text must be provided"),
        (true, None, _) => wrong("visual takes an image"),
        (false, Some(_), _) => wrong("textual takes a text"),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// A list of numbers, as a string.
    clip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_width: Option<u32>,
}

async fn predict(call: Call, body: Body) -> ApiResult<Response> {
    if !call.media.is_form() {
        return Err(call
            .media
            .unsupported("multipart/form-data", "send a form: -F entries=… -F image=@file"));
    }
    let body = call.read(body).await?;
    let upstream = call.state.config().immich_upstream.clone();
    // As it came: it is known only afterwards who answers it.
    let whole = upstream.is_some().then(|| body.clone());
    let (batch, name) = match call.parts(body, |form, memory| resolve(&form, memory)).await? {
        Resolved::Embed(batch, name) => (batch, name),
        Resolved::Forward(task) => {
            let (Some(upstream), Some(whole)) = (upstream, whole) else {
                let message = format!("{} is not done here, only clip", quoted(&task));
                return Err(ApiError::unprocessable("unsupported_task", message));
            };
            return upstream.forward(&call, whole).await;
        }
    };
    drop(whole);
    let model = model(&call, &name)?;
    let embedded = vectors(&call, &model, batch).await?;
    // The numbers, and the answer that holds them as a string.
    let room = Room { number: 2 * Room::default().number, beside: 0 };
    respond(&call, &model, embedded, room, |all| {
        let vector = all.first().map(unit).unwrap_or_default();
        let size = all.first().and_then(|embedding| embedding.size);
        let clip = serde_json::to_string(&vector).unwrap_or_default();
        Answer {
            clip,
            image_height: size.map(|(height, _)| height),
            image_width: size.map(|(_, width)| width),
        }
    })
    .await
}

/// The names under which a model of Immich may be served: its own, without the pretraining, timm's, the hub's, and the hub's
/// without its owner.
fn served_names(name: &str) -> impl Iterator<Item = String> {
    let bare = name.strip_suffix("__webli").unwrap_or(name);
    // The hub has these weights for 384 pixels, open_clip for 378: near, and not the same vectors.
    let twin = known::find(bare).filter(|known| !known.open_clip.ends_with("-378"));
    let of_hub = twin.into_iter().flat_map(|known| {
        let short = known.name.rsplit('/').next().unwrap_or_default();
        [known.name.clone(), short.to_owned()]
    });
    [name.to_owned(), bare.to_owned(), format!("timm/{bare}")].into_iter().chain(of_hub)
}

/// The model that Immich asks for.
///
/// # Errors
/// 404 if it is not served: vectors of another one must not get into its index.
fn model(call: &Call, name: &str) -> ApiResult<ModelHandle> {
    const LONGEST: usize = 200;
    if name.len() > LONGEST {
        return call.model(Some(name));
    }
    for served in served_names(name) {
        match call.state.engine().model(Some(&served)) {
            Err(EngineError::UnknownModel { .. }) => {}
            found => return Ok(found?),
        }
    }
    call.model(Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immichs_names_are_found_under_any_of_their_names() {
        let names: Vec<String> = served_names("ViT-B-16-SigLIP2__webli").collect();
        let wanted = [
            "ViT-B-16-SigLIP2__webli",
            "ViT-B-16-SigLIP2",
            "timm/ViT-B-16-SigLIP2",
            "google/siglip2-base-patch16-224",
            "siglip2-base-patch16-224",
        ];
        assert_eq!(names, wanted);
        assert_eq!(served_names("ViT-SO400M-14-SigLIP2-378__webli").count(), 3);
        assert_eq!(served_names("ViT-B-32__openai").count(), 3);
    }
}
