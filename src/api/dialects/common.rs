//! What several dialects do in the same way: read a body, treat long texts, answer with vectors.

use std::fmt;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::inputs::Batch;
use crate::api::read::{Heap, JsonBody};
use crate::api::run::{Embedded, RunOptions, embed};
use crate::budget::{Charge, MemoryKind};
use crate::engine::{Embedding, ModelHandle, Timings};
use crate::model::scores::l2_normalize;

/// What becomes of a text that is longer than the model's context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Truncate {
    /// Its end is cut off.
    #[default]
    End,
    /// Its beginning would be cut off.
    Start,
    /// It is refused.
    Never,
}

impl Heap for Truncate {}

/// `true`, `false`, `"END"`, `"START"`, `"NONE"`, `"left"`, `"right"`.
impl<'de> Deserialize<'de> for Truncate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TruncateVisitor;

        impl Visitor<'_> for TruncateVisitor {
            type Value = Truncate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, END, START or NONE")
            }

            fn visit_bool<E: de::Error>(self, cut: bool) -> Result<Truncate, E> {
                Ok(if cut { Truncate::End } else { Truncate::Never })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Truncate, E> {
                match text.to_ascii_lowercase().as_str() {
                    "end" | "right" => Ok(Truncate::End),
                    "start" | "left" => Ok(Truncate::Start),
                    "none" => Ok(Truncate::Never),
                    _ => Err(E::invalid_value(
                        de::Unexpected::Str(&text[..text.floor_char_boundary(40)]),
                        &self,
                    )),
                }
            }
        }

        deserializer.deserialize_any(TruncateVisitor)
    }
}

impl Truncate {
    /// Refuses what no model here does.
    ///
    /// # Errors
    /// 422 for texts without their beginning.
    pub fn check(self, field: &str) -> ApiResult<()> {
        match self {
            Self::Start => {
                Err(ApiError::field(field, "long texts lose their end here, never their beginning"))
            }
            Self::End | Self::Never => Ok(()),
        }
    }

    /// Refuses texts that were cut, where that was not wanted.
    ///
    /// # Errors
    /// 422 that names the first of them.
    pub fn apply<'a>(
        self,
        vectors: impl IntoIterator<Item = (usize, &'a Embedding)>,
        model: &ModelHandle,
        place: impl Fn(usize) -> String,
    ) -> ApiResult<()> {
        let cut = |(_, embedding): &(usize, &Embedding)| embedding.truncated;
        match vectors.into_iter().find(cut) {
            Some((index, _)) if self == Self::Never => {
                let context = model.info().text.as_ref().map_or(0, |text| text.context);
                let message = format!("the text is longer than the model's context of {context} tokens");
                Err(ApiError::field(&place(index), message))
            }
            _ => Ok(()),
        }
    }
}

/// What a dialect's client says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// `application/json`, or nothing.
    Json,
    /// Anything: the other service does not look.
    Anything,
}

/// Reads a body as a JSON object, within all bounds, and hands on what it holds.
///
/// # Errors
/// 415 where it says to be something else, those of [`Call::read`] and [`Call::json`].
pub async fn json<T: JsonBody, R: Send + 'static>(
    call: &Call,
    body: Body,
    says: Says,
    next: impl FnOnce(T, Charge) -> ApiResult<R> + Send + 'static,
) -> ApiResult<R> {
    if says == Says::Json && !call.media.is_json() {
        return Err(call.media.unsupported("application/json", "add -H 'Content-Type: application/json'"));
    }
    let body = call.read(body).await?;
    call.json(body, next).await
}

/// What a path says in its variable parts.
pub type Segments<T> = Result<Path<T>, PathRejection>;

/// The variable parts of a path.
///
/// # Errors
/// 400 if they are no UTF-8.
pub fn segments<T>(path: Segments<T>) -> ApiResult<T> {
    path.map(|Path(segments)| segments)
        .map_err(|error| ApiError::bad_request("invalid_request", error.body_text()))
}

/// Checks that the client wants vectors as wide as the model's.
///
/// # Errors
/// 422: SigLIP is not trained for shortened vectors.
pub fn check_width(field: &str, wanted: Option<usize>, model: &ModelHandle) -> ApiResult<()> {
    match wanted {
        Some(wanted) if wanted != model.info().embedding_dim => Err(answer::other_width(field, model)),
        _ => Ok(()),
    }
}

/// The vectors of a request, in the order of its inputs.
pub struct Vectors {
    /// The vectors.
    pub all: Vec<Embedding>,
    /// The embedding space that they are in.
    pub fingerprint: String,
    /// Where the time went.
    pub timings: Timings,
}

/// Embeds inputs.
///
/// # Errors
/// Those of [`embed`].
pub async fn vectors(call: &Call, model: &ModelHandle, batch: Batch) -> ApiResult<Vectors> {
    let Embedded { results, fingerprint, timings } = embed(call, model, batch, RunOptions::default()).await?;
    Ok(Vectors { all: results.into_iter().collect::<ApiResult<_>>()?, fingerprint, timings })
}

/// A vector of length 1.
pub fn unit(embedding: &Embedding) -> Vec<f32> {
    let mut vector = embedding.vector.to_vec();
    l2_normalize(&mut vector);
    vector
}

/// What an answer takes at most.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Bytes for each number of a vector: its characters and what is held of it.
    pub number: usize,
    /// Bytes beside the vectors.
    pub beside: usize,
}

impl Default for Room {
    /// Vectors as lists of numbers: at most 16 characters for each, and two copies in f32.
    fn default() -> Self {
        Self { number: 16 + 2 * size_of::<f32>(), beside: 0 }
    }
}

/// Answers with a JSON document made of vectors.
///
/// # Errors
/// 413 or 429 if there is no room for it.
pub async fn respond<T: Serialize>(
    call: &Call,
    model: &ModelHandle,
    vectors: Vectors,
    room: Room,
    make: impl FnOnce(Vec<Embedding>) -> T + Send + 'static,
) -> ApiResult<Response> {
    const ENTRY: usize = 160;
    let Vectors { all, fingerprint, timings } = vectors;
    let each = ENTRY + model.info().embedding_dim.saturating_mul(room.number);
    let room = all.len().saturating_mul(each).saturating_add(room.beside).saturating_add(1000);
    respond_within(call, model, room, &fingerprint, timings, move || make(all)).await
}

/// Answers with a JSON document of at most `room` bytes, what is held of it included.
///
/// # Errors
/// 413 or 429 if there is no room for it.
pub async fn respond_within<T: Serialize>(
    call: &Call,
    model: &ModelHandle,
    room: usize,
    fingerprint: &str,
    timings: Timings,
    make: impl FnOnce() -> T + Send + 'static,
) -> ApiResult<Response> {
    let memory = call.charge(MemoryKind::Answer, room)?;
    let bytes = answer::build(memory, move || answer::document(&make(), Format::Json, room)).await?;
    Ok(answer::respond(bytes, Format::Json, model, fingerprint, timings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_for_long_texts() {
        let of = |json: &str| serde_json::from_str::<Truncate>(json).ok();
        assert_eq!((of("true"), of("false")), (Some(Truncate::End), Some(Truncate::Never)));
        assert_eq!((of("\"END\""), of("\"none\"")), (Some(Truncate::End), Some(Truncate::Never)));
        assert_eq!((of("\"Left\""), of("\"x\""), of("1")), (Some(Truncate::Start), None, None));
        assert!(Truncate::Start.check("truncate").is_err());
    }
}
