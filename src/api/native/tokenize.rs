//! `POST /v1/tokenize`: how a model reads texts.

use std::time::Instant;

use axum::body::Body;
use axum::response::Response;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::body::on_blocking_pool;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::inputs::check_count;
use crate::api::native::schema::{
    ListTag, ReadToken, ReadTokens, TokenizeQuery, TokenizeRequest, TokenizeResponse, TokensTag,
};
use crate::api::openapi::WorkErrors;
use crate::api::read::{Bounded, Options, missing};
use crate::budget::MemoryKind;
use crate::engine::{ModelHandle, Timings};
use crate::text::{TextReading, TokenIds};

/// Bytes of all texts at most: they are tokenised outside of the queues in which clients take turns.
const BYTES: usize = 1 << 20;
/// Tokens that were cut off and are listed at most, of each text.
const CUT: usize = 64;

/// Shows how the model reads texts.
///
/// Each as it is after canonicalisation, its tokens with the end token, how much padding follows, and what the context did not
/// hold. Nothing is embedded. The ids may be sent to other routes with `token_ids`.
#[utoipa::path(
    post, path = "/v1/tokenize", tag = "embeddings", operation_id = "tokenize",
    params(TokenizeQuery),
    request_body(content = TokenizeRequest),
    responses(
        (status = 200, description = "The tokens, in the order of the texts",
            content((TokenizeResponse = "application/json"), (TokenizeResponse = "application/msgpack"))),
        WorkErrors,
    )
)]
pub async fn tokenize(call: Call, body: Body) -> ApiResult<Response> {
    let format = call.format(&Format::DOCUMENTS)?;
    if !call.media.is_json() {
        return Err(call.media.unsupported("application/json", "add -H 'Content-Type: application/json'"));
    }
    let query: TokenizeRequest = call.query()?;
    call.model(query.model.as_deref())?;
    let body = call.read(body).await?;
    let most = call.state.config().max_items;
    let (texts, options, held) = call
        .json(body, move |request: TokenizeRequest, memory| {
            let mut options = request.and(query)?;
            let Bounded(texts) = options.texts.take().ok_or_else(|| missing("texts"))?;
            check_count("texts", texts.len(), most)?;
            if texts.iter().map(String::len).sum::<usize>() > BYTES {
                return Err(ApiError::too_large(format!("more than {BYTES} bytes of text")).at("texts"));
            }
            Ok((texts, options, memory))
        })
        .await?;
    let model = call.model(options.model.as_deref())?;
    let fingerprint = model.info().fingerprint.clone();
    call.expects(&fingerprint, false)?;
    call.context.note.work(model.name(), texts.len());
    let context = model.info().text.as_ref().map_or(0, |text| text.context);
    let room = room(&texts, context);
    // What is read, and the document that is written of it.
    let memory = call.charge(MemoryKind::Answer, room.saturating_mul(2))?;
    let (handle, of_request) = (model.clone(), call.context.clone());
    // The work does not stop where the request does: what is charged goes along.
    let (data, held, memory) = on_blocking_pool(move || {
        let mut data = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            if of_request.deadline <= Instant::now() {
                return Err(of_request.late());
            }
            let reading = handle.reading(text, options.canonicalization);
            let reading = reading.map_err(|error| ApiError::from(error).at(format!("texts[{index}]")))?;
            data.push(entry(index, reading, &handle));
        }
        Ok((data, held, memory))
    })
    .await?;
    let name = model.name().to_owned();
    let bytes = answer::build(memory, move || {
        let response = TokenizeResponse { object: ListTag::List, data, model: name, context };
        let bytes = answer::document(&response, format, room);
        drop(held);
        bytes
    })
    .await?;
    Ok(answer::respond(bytes, format, &model, &fingerprint, Timings::default()))
}

fn entry(index: usize, reading: TextReading, model: &ModelHandle) -> ReadTokens {
    let TextReading { canonical, ids: TokenIds { ids, used, truncated }, cut } = reading;
    let token = |&id: &u32| ReadToken { id, token: model.token(id) };
    ReadTokens {
        object: TokensTag::Tokens,
        index,
        canonical,
        tokens: ids.iter().take(used).map(token).collect(),
        padding: ids.len().saturating_sub(used),
        truncated,
        cut: cut.iter().take(CUT).map(token).collect(),
        cut_total: cut.len(),
    }
}

/// Bytes of the document at most.
fn room(texts: &[String], context: usize) -> usize {
    /// Of a token: the longest of Gemma's vocabulary is a run of 31 marks of three bytes.
    const TOKEN: usize = 384;
    const ENTRY: usize = 300;
    /// A lower-case character has at most three times the bytes, and JSON writes a control character in six.
    const GROWTH: usize = 6;
    let text = texts.iter().map(String::len).sum::<usize>().saturating_mul(GROWTH);
    let entries = texts.len().saturating_mul(ENTRY + (context + CUT).saturating_mul(TOKEN));
    1000 + text + entries
}
