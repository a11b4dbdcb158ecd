//! OpenAI's paths without `/v1`, and the other ways to put a picture into OpenAI's request: `messages` (vLLM), and what Jina,
//! NVIDIA and Voyage add, `detail` of errors included. `modality` (infinity), data: URLs (NV-CLIP) and `{"image": …}` (Jina, SGLang) are our own
//! contract.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::common::Truncate;
use super::parts::{Only, Part};
use super::{Dialect, Route, parses};
use crate::api::edge::error::{ApiError, ApiResult, ErrorDetail, shortened};
use crate::api::native;
use crate::api::native::schema::{EmbeddingsRequest, Input, Inputs};
use crate::api::read::{Heap, missing};

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "openai",
    about: "OpenAI's paths without /v1; messages, task, normalized and truncate on /v1/embeddings",
    routes: &[
        Route::post("/embeddings", || post(native::embeddings::create)),
        Route::get("/models", || get(native::models::list)),
        Route::get("/models/{id}", || get(native::models::get)),
        Route::get("/models/{owner}/{name}", || get(native::models::get_of_owner)),
    ],
    below: &[],
    shares: &["/v1/embeddings"],
    shape,
    key: None,
    parse: parses::<EmbeddingsRequest>,
    example: r#"curl localhost:8080/v1/embeddings -H 'content-type: application/json' -d '{
  "messages": [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo…"}}]}]}'"#,
};

#[derive(Serialize)]
struct ErrorAnswer<'a> {
    error: &'a ErrorDetail,
    detail: Detail<'a>,
}

/// The message as services made with FastAPI write it: a list where they find a request invalid (422), else a text.
#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    Text(&'a str),
    Invalid([Invalid<'a>; 1]),
}

#[derive(Serialize)]
struct Invalid<'a> {
    loc: Vec<&'a str>,
    msg: &'a str,
    r#type: &'a str,
}

/// Our own shape, which is OpenAI's, and the message again where clients of Jina, Voyage and infinity look for it.
fn shape(error: &ApiError) -> Response {
    let text = &shortened(&error.detail.message, 200);
    let detail = match error.status {
        StatusCode::UNPROCESSABLE_ENTITY => {
            let loc = ["body"].into_iter().chain(error.detail.param.as_deref()).collect();
            Detail::Invalid([Invalid { loc, msg: text, r#type: &error.detail.code }])
        }
        _ => Detail::Text(text),
    };
    Json(ErrorAnswer { error: &error.detail, detail }).into_response()
}

/// A conversation of one message with one text or one picture: vLLM's input of models that embed pictures.
#[derive(Debug, Clone)]
pub struct Messages(Only<Message>);

#[derive(Debug, Clone, Deserialize)]
struct Message {
    content: Content,
}

#[derive(Debug, Clone)]
struct Content(Part);

impl Heap for Messages {
    fn heap(&self) -> usize {
        self.0.0.content.0.heap()
    }
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Only::deserialize(deserializer).map(Self)
    }
}

/// A text, or a list of one part.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;

        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a list of one part")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content(Part::Text(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Content, A::Error> {
                Only::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(|only| Content(only.0))
            }
        }

        deserializer.deserialize_any(ContentVisitor)
    }
}

/// The inputs of a request, and what its field is called. `served` says whether the fields of others are taken.
///
/// # Errors
/// 400 if there is none or both, or one of a dialect that is not served.
pub fn inputs(options: &mut EmbeddingsRequest, served: bool) -> ApiResult<(&'static str, Inputs)> {
    let foreign = [
        ("messages", options.messages.is_some()),
        ("normalized", options.normalized.is_some()),
        ("task", options.task.is_some()),
        ("input_type", options.input_type.is_some()),
        ("truncate", options.truncate.is_some()),
        ("truncation", options.truncation.is_some()),
        ("output_dtype", options.output_dtype.is_some()),
        ("output_dimension", options.output_dimension.is_some()),
        ("encoding_type", options.encoding_type.is_some()),
        ("late_chunking", options.late_chunking.is_some()),
    ];
    let bad = |message: String| Err(ApiError::bad_request("invalid_request", message));
    if let (false, Some((name, _))) = (served, foreign.iter().find(|(_, given)| *given)) {
        return bad(format!("unknown field `{name}` (this service runs without the dialect openai)"));
    }
    if options.late_chunking == Some(true) {
        return Err(ApiError::field("late_chunking", "each text is embedded by itself"));
    }
    for (own, other, twice) in [
        ("normalize", "normalized", options.normalize.is_some() && options.normalized.is_some()),
        (
            "embedding_type",
            "output_dtype",
            options.embedding_type.is_some() && options.output_dtype.is_some(),
        ),
        (
            "embedding_type",
            "encoding_type",
            options.embedding_type.or(options.output_dtype).is_some() && options.encoding_type.is_some(),
        ),
        (
            "dimensions",
            "output_dimension",
            options.dimensions.is_some() && options.output_dimension.is_some(),
        ),
    ] {
        if twice {
            return bad(format!("give either {own} or {other}"));
        }
    }
    options.normalize = options.normalize.or(options.normalized);
    options.embedding_type = options.embedding_type.or(options.output_dtype).or(options.encoding_type);
    // infinity's client sends 0 where nothing is asked for.
    options.dimensions = options.dimensions.or(options.output_dimension).filter(|&dimensions| dimensions > 0);
    match (options.input.take(), options.messages.take()) {
        (Some(inputs), None) => Ok(("input", inputs)),
        (None, Some(Messages(Only(Message { content: Content(part) })))) => {
            let input = match part {
                Part::Text(text) => Input::Text(text),
                Part::Picture(picture) => Input::Image(picture),
            };
            Ok(("messages", Inputs { items: vec![input], single: true }))
        }
        (Some(_), Some(_)) => bad("give either input or messages".to_owned()),
        (None, None) => Err(missing("input")),
    }
}

/// What becomes of long texts.
///
/// # Errors
/// 422 where their beginning is to go.
pub fn truncate(options: &EmbeddingsRequest) -> ApiResult<Truncate> {
    let (field, truncate) = match (options.truncate, options.truncation) {
        (Some(truncate), _) => ("truncate", truncate),
        (None, truncation) => ("truncation", truncation.unwrap_or_default()),
    };
    truncate.check(field)?;
    Ok(truncate)
}
