//! clip-as-service's HTTP gateway (`jina-ai/clip-as-service`, `docs/user-guides/server.md`): documents with a text, a URI or a
//! blob get an embedding. `/rank` is refused: its scores are a softmax that SigLIP is not trained for.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use serde_json::{Value, json};

use super::common::{self, Room, Says, respond, unit, vectors};
use super::parts::{Part, batch_of, request};
use super::{Dialect, Route, parses};
use crate::api::answer::escaped;
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult, quoted};
use crate::api::read::{Bounded, missing};

/// The dialect.
pub static DIALECT: Dialect = Dialect {
    name: "clip-as-service",
    about: "clip-as-service's HTTP gateway: embeddings of documents",
    routes: &[Route::post("/post", || post(embed))],
    below: &[],
    shares: &[],
    shape,
    key: None,
    parse: parses::<Request>,
    example: r#"curl localhost:8080/post -H 'content-type: application/json' -d '{
  "execEndpoint": "/", "data": [{"text": "a cat"}, {"blob": "iVBORw0KGgo…"}]}'"#,
};

/// As Jina's gateway says that a request failed.
fn shape(error: &ApiError) -> Response {
    let status = json!({"code": "ERROR", "description": error.detail.message, "exception": null});
    Json(json!({"header": {"status": status}, "data": []})).into_response()
}

request! {
    struct Request {
        data: Bounded<Document>,
        #[serde(rename = "execEndpoint")]
        endpoint: String,
    }
}

request! {
    struct Document {
        id: String,
        text: String,
        uri: String,
        blob: String,
    }
}

#[derive(Serialize)]
struct Answer {
    header: Value,
    data: Vec<Embedded>,
}

#[derive(Serialize)]
struct Embedded {
    id: String,
    embedding: Vec<f32>,
}

fn part(index: usize, document: Document) -> ApiResult<(String, Part)> {
    let id = document.id.unwrap_or_else(|| index.to_string());
    match (document.text, document.uri, document.blob) {
        (Some(text), None, None) => Ok((id, Part::Text(text))),
        (None, Some(picture), None) | (None, None, Some(picture)) => Ok((id, Part::Picture(picture))),
        _ => Err(ApiError::field(&format!("data[{index}]"), "one of text, uri and blob is needed")),
    }
}

async fn embed(call: Call, body: Body) -> ApiResult<Response> {
    let model = call.model(None)?;
    let most = call.state.config().max_items;
    let (batch, ids) = common::json(&call, body, Says::Json, move |request: Request, mut memory| {
        let endpoint = request.endpoint.as_deref().unwrap_or("/");
        if endpoint != "/" && endpoint != "/encode" {
            let message = format!("documents are embedded here (execEndpoint /), not {}", quoted(endpoint));
            return Err(ApiError::field("execEndpoint", message));
        }
        let documents = request.data.ok_or_else(|| missing("data"))?.0;
        memory.grow(documents.len() * size_of::<(String, Part)>())?;
        let named = documents.into_iter().enumerate().map(|(index, document)| part(index, document));
        let (ids, parts): (Vec<_>, Vec<_>) = named.collect::<ApiResult<_>>()?;
        let batch = batch_of("data", parts, most, memory, |index| format!("data[{index}]"))?;
        Ok((batch, ids))
    })
    .await?;
    let embedded = vectors(&call, &model, batch).await?;
    // They are held, and written.
    let of_ids = 2 * ids.iter().map(|id: &String| escaped(id)).sum::<usize>();
    let room = Room { beside: of_ids, ..Room::default() };
    respond(&call, &model, embedded, room, move |all| Answer {
        header: json!({"execEndpoint": "/", "status": null}),
        data: ids.into_iter().zip(&all).map(|(id, of)| Embedded { id, embedding: unit(of) }).collect(),
    })
    .await
}
