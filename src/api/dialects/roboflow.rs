//! Roboflow's CLIP routes (`roboflow/inference`, `inference/core/entities/requests/clip.py`, `responses/clip.py`).

use std::fmt;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::common::{self, Room, Says, respond, respond_within, unit, vectors};
use super::parts::{Part, Strings, batch_of, request};
use super::{Dialect, Route, parses};
use crate::api::answer::escaped;
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult, quoted};
use crate::api::edge::keys::KeyPlace;
use crate::api::inputs::Batch;
use crate::api::read::{Bounded, Heap, Listed, OneOrMany, missing};
use crate::api::run::{Compared, RunOptions, compare};
use crate::api::source::begins_as_url;
use crate::budget::Charge;

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "roboflow",
    about: "Roboflow's CLIP routes",
    routes: &[
        Route::post("/clip/embed_image", || post(embed_image)),
        Route::post("/clip/embed_text", || post(embed_text)),
        Route::post("/clip/compare", || post(compare_all)),
    ],
    below: &["/clip/"],
    shares: &[],
    shape,
    key: Some(KeyPlace::Query("api_key")),
    parse: |data| {
        parses::<ImageRequest>(data);
        parses::<TextRequest>(data);
        parses::<CompareRequest>(data);
    },
    example: r#"curl localhost:8080/clip/compare -H 'content-type: application/json' -d '{
  "subject": {"type": "base64", "value": "iVBORw0KGgo…"}, "subject_type": "image",
  "prompt": ["a cat", "a dog"], "prompt_type": "text"}'"#,
};

fn shape(error: &ApiError) -> Response {
    Json(json!({"message": error.detail.message})).into_response()
}

/// `{"type": "base64" or "url", "value": …}`.
#[derive(Debug, Deserialize)]
struct Image {
    #[serde(rename = "type")]
    kind: Kind,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Base64,
    Url,
}

impl Image {
    /// The picture, if its value is what its type says.
    fn part<E: de::Error>(self) -> Result<Part, E> {
        match begins_as_url(&self.value) == (self.kind == Kind::Url) {
            true => Ok(Part::Picture(self.value)),
            false => Err(E::custom("the value is not what its type says")),
        }
    }
}

/// An element: a picture object, or a string.
#[derive(Debug)]
struct Element(Part);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or {\"type\": …, \"value\": …}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element(Part::Text(text.to_owned())))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                Image::deserialize(de::value::MapAccessDeserializer::new(map))?.part().map(Element)
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

impl Listed for Element {
    const ONE_OR_MANY: &'static str = "one element or a list of them";
}

impl Heap for Element {
    fn heap(&self) -> usize {
        self.0.heap()
    }
}

/// One or many pictures, or strings.
type Many = OneOrMany<Element>;

request! {
    struct ImageRequest {
        image: Many,
        clip_version_id: String,
    }
}

request! {
    struct TextRequest {
        text: Strings,
        clip_version_id: String,
    }
}

request! {
    struct CompareRequest {
        subject: Many,
        subject_type: String,
        prompt: Prompt,
        prompt_type: String,
        clip_version_id: String,
    }
}

/// Prompts, with names where they came in an object.
#[derive(Debug)]
struct Prompt {
    parts: Vec<Part>,
    names: Option<Vec<String>>,
}

impl Heap for Prompt {
    fn heap(&self) -> usize {
        // The list is made once more, with the subject.
        self.parts.heap() + 2 * self.parts.len() * size_of::<Part>() + self.names.heap()
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PromptVisitor;

        impl<'de> Visitor<'de> for PromptVisitor {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a prompt, a list of prompts, or an object of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt { parts: vec![Part::Text(text.to_owned())], names: None })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Prompt, A::Error> {
                let list = Bounded::<Element>::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
                let many = OneOrMany { items: list.0, single: false };
                Ok(Prompt { parts: parts_of(many), names: None })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Prompt, A::Error> {
                let (mut parts, mut names) = (Vec::new(), Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    // One picture is an object too.
                    if parts.is_empty() && (name == "type" || name == "value") {
                        return one_picture(name, map);
                    }
                    names.push(name);
                    parts.push(map.next_value::<Element>()?.0);
                    crate::api::read::within::<A::Error>(parts.len())?;
                }
                Ok(Prompt { parts, names: Some(names) })
            }
        }

        fn one_picture<'de, A: de::MapAccess<'de>>(first: String, mut map: A) -> Result<Prompt, A::Error> {
            let (mut kind, mut value, mut key) = (None, None, Some(first));
            while let Some(name) = key {
                match name.as_str() {
                    "type" => kind = Some(map.next_value::<Kind>()?),
                    "value" => value = Some(map.next_value::<String>()?),
                    _ => {
                        map.next_value::<de::IgnoredAny>()?;
                    }
                }
                key = map.next_key::<String>()?;
            }
            let kind = kind.ok_or_else(|| de::Error::missing_field("type"))?;
            let value = value.ok_or_else(|| de::Error::missing_field("value"))?;
            Ok(Prompt { parts: vec![Image { kind, value }.part()?], names: None })
        }

        deserializer.deserialize_any(PromptVisitor)
    }
}

#[derive(Serialize)]
struct Embeddings {
    /// Always null; inference-sdk does without the vectors of pictures if it is not there.
    frame_id: Option<()>,
    embeddings: Vec<Vec<f32>>,
    time: f32,
}

fn parts_of(many: Many) -> Vec<Part> {
    many.items.into_iter().map(|element| element.0).collect()
}

async fn embed_image(call: Call, body: Body) -> ApiResult<Response> {
    let most = call.state.config().max_items;
    let read = move |request: ImageRequest, memory| {
        let parts = parts_of(request.image.ok_or_else(|| missing("image"))?);
        if parts.iter().any(|part| !part.is_picture()) {
            return Err(ApiError::field("image", "a picture is {\"type\": \"base64\", \"value\": …}"));
        }
        let batch = batch_of("image", parts, most, memory, |index| format!("image[{index}]"))?;
        Ok((batch, request.clip_version_id))
    };
    let (batch, name) = common::json(&call, body, Says::Json, read).await?;
    embeddings(&call, batch, name).await
}

async fn embed_text(call: Call, body: Body) -> ApiResult<Response> {
    let read = move |request: TextRequest, memory| {
        let texts = request.text.ok_or_else(|| missing("text"))?;
        let parts = texts.items.into_iter().map(Part::Text).collect();
        let batch = batch_of("text", parts, 0, memory, |index| format!("text[{index}]"))?;
        Ok((batch, request.clip_version_id))
    };
    let (batch, name) = common::json(&call, body, Says::Json, read).await?;
    embeddings(&call, batch, name).await
}

async fn embeddings(call: &Call, batch: Batch, name: Option<String>) -> ApiResult<Response> {
    let model = call.model(name.as_deref())?;
    let embedded = vectors(call, &model, batch).await?;
    let started = call.context.started;
    respond(call, &model, embedded, Room::default(), move |all| Embeddings {
        frame_id: None,
        embeddings: all.iter().map(unit).collect(),
        time: started.elapsed().as_secs_f32(),
    })
    .await
}

/// A comparison, resolved: the subject, then the prompts.
struct Task {
    batch: Batch,
    names: Option<Vec<String>>,
    model: Option<String>,
}

/// Checks a part against the type that was named for it: strings in a place for pictures are base64.
fn typed(field: &str, part: Part, kind: &str) -> ApiResult<Part> {
    match (kind, part) {
        ("image", Part::Text(text) | Part::Picture(text)) => Ok(Part::Picture(text)),
        ("text", Part::Text(text)) => Ok(Part::Text(text)),
        ("text", Part::Picture(_)) => Err(ApiError::field(field, "a picture where a text was announced")),
        (other, _) => {
            Err(ApiError::field(&format!("{field}_type"), format!("image or text, not {}", quoted(other))))
        }
    }
}

impl CompareRequest {
    fn resolve(self, most: usize, memory: Charge) -> ApiResult<Task> {
        let mut subjects = parts_of(self.subject.ok_or_else(|| missing("subject"))?);
        let Prompt { parts: prompts, names } = self.prompt.ok_or_else(|| missing("prompt"))?;
        let subject = match (subjects.pop(), subjects.is_empty()) {
            (Some(subject), true) => {
                typed("subject", subject, self.subject_type.as_deref().unwrap_or("image"))?
            }
            _ => return Err(ApiError::field("subject", "one subject is compared with the prompts")),
        };
        if prompts.is_empty() {
            return Err(ApiError::field("prompt", "at least one is needed"));
        }
        let kind = self.prompt_type.as_deref().unwrap_or("text");
        let prompts = prompts.into_iter().map(|prompt| typed("prompt", prompt, kind));
        let parts = std::iter::once(Ok(subject)).chain(prompts).collect::<ApiResult<Vec<_>>>()?;
        let batch = batch_of("prompt", parts, most, memory, |index| match index {
            0 => "subject".to_owned(),
            index => format!("prompt[{}]", index - 1),
        })?;
        Ok(Task { batch, names, model: self.clip_version_id })
    }
}

#[derive(Serialize)]
struct Similarities {
    similarity: Similarity,
    time: f32,
}

enum Similarity {
    List(Vec<f32>),
    Named(Vec<(String, f32)>),
}

impl Serialize for Similarity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::List(list) => list.serialize(serializer),
            Self::Named(list) => serializer.collect_map(list.iter().map(|(name, value)| (name, value))),
        }
    }
}

async fn compare_all(call: Call, body: Body) -> ApiResult<Response> {
    let most = call.state.config().max_items;
    let read = move |request: CompareRequest, memory| request.resolve(most, memory);
    let Task { batch, names, model } = common::json(&call, body, Says::Json, read).await?;
    let model = call.model(model.as_deref())?;
    const EACH: usize = 64;
    let of_names = names.iter().flatten().map(|name| escaped(name)).sum::<usize>();
    // The names are held, and written.
    let room = 1000 + batch.len() * EACH + 2 * of_names;
    let Compared { cosines, fingerprint, timings, .. } =
        compare(&call, &model, batch, 1, RunOptions::default()).await?;
    let started = call.context.started;
    respond_within(&call, &model, room, &fingerprint, timings, move || Similarities {
        similarity: match names {
            None => Similarity::List(cosines),
            Some(names) => Similarity::Named(names.into_iter().zip(cosines).collect()),
        },
        time: started.elapsed().as_secs_f32(),
    })
    .await
}
