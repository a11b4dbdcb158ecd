//! Runs a request: fetch what has to be fetched, hand everything to the engine, put errors in their places.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;

use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::Batch;
use crate::api::source::Source;
use crate::engine::{EmbedOptions, Embedding, Input, ModelHandle, Timings};
use crate::text::Canonicalization;

/// What a request asks of the engine beyond its inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Another canonicalisation than the checkpoint's.
    pub canonicalization: Option<Canonicalization>,
    /// Another patch budget than the checkpoint's.
    pub max_num_patches: Option<usize>,
    /// Whether an input that cannot be used, or is not done in time, leaves the others alone.
    pub partial: bool,
    /// Whether `If-Match` is about something else than the embedding space.
    pub if_match_is_taken: bool,
}

impl RunOptions {
    /// What is kept of the time to answer what is done by then.
    fn reserve(&self, allowed: Duration) -> Duration {
        const MOST: Duration = Duration::from_millis(250);
        if self.partial { (allowed / 10).min(MOST) } else { Duration::ZERO }
    }
}

/// Embeddings in the order of the inputs; errors in their place only if that was asked for.
#[derive(Debug)]
pub struct Embedded {
    /// One result per input.
    pub results: Vec<ApiResult<Embedding>>,
    /// The embedding space that they are in.
    pub fingerprint: String,
    /// Where the time went.
    pub timings: Timings,
}

/// Fetches what has to be fetched and embeds everything.
///
/// # Errors
/// The first input's error unless `partial`; what concerns the whole request in any case.
pub async fn embed(
    call: &Call,
    model: &ModelHandle,
    batch: Batch,
    options: RunOptions,
) -> ApiResult<Embedded> {
    if options.max_num_patches == Some(0) {
        return Err(ApiError::field("max_num_patches", "must be at least 1"));
    }
    let fingerprint = model.info().fingerprint_with(
        options.canonicalization.filter(|_| batch.has_texts()),
        options.max_num_patches.filter(|_| batch.has_pictures()),
    );
    call.expects(&fingerprint, options.if_match_is_taken)?;
    call.context.note.work(model.name(), batch.len());
    // Held until everything is answered.
    let Batch { items, places, memory: _memory } = batch;
    // What is known to be wrong is said before anything is fetched.
    let items = settle(items, &places, options.partial)?;
    let quota = AtomicUsize::new(call.state.config().max_body_bytes);
    let items = join_all(items.into_iter().map(|item| ready(call, item, &quota))).await;
    let items = settle(items, &places, options.partial)?;

    let mut inputs = Vec::with_capacity(items.len());
    let waiting: Vec<ApiResult<()>> =
        items.into_iter().map(|item| item.map(|input| inputs.push(input))).collect();
    let mut timings = Timings::default();
    let mut embedded = Vec::new().into_iter();
    if !inputs.is_empty() {
        let asked = EmbedOptions {
            canonicalization: options.canonicalization,
            max_num_patches: options.max_num_patches,
            deadline: Some(
                call.context.deadline - options.reserve(call.context.deadline - call.context.started),
            ),
            client: call.context.client,
            partial: options.partial,
            ..EmbedOptions::default()
        };
        let output = model.embed(inputs, asked).await.map_err(|error| call.engine_error(error))?;
        timings = output.timings;
        embedded = output.results.into_iter();
    }
    let results = waiting
        .into_iter()
        .map(|item| {
            item.and_then(|()| match embedded.next() {
                Some(result) => result.map_err(ApiError::from),
                None => Err(ApiError::internal("the engine answered fewer inputs than it got")),
            })
        })
        .collect();
    Ok(Embedded { results: settle(results, &places, options.partial)?, fingerprint, timings })
}

/// Gives errors their place; the first one fails the request unless it is the input's own and `partial` is set.
fn settle<T>(items: Vec<ApiResult<T>>, places: &[String], partial: bool) -> ApiResult<Vec<ApiResult<T>>> {
    items
        .into_iter()
        .zip(places)
        .map(|(item, place)| match item {
            Err(error) => {
                let error = if error.detail.param.is_some() { error } else { error.at(place) };
                if partial && error.is_of_one_input() { Ok(Err(error)) } else { Err(error) }
            }
            ok => Ok(ok),
        })
        .collect()
}

/// An input that the engine takes. `quota` is what is left of the bytes that one request may fetch.
async fn ready(call: &Call, item: ApiResult<Source>, quota: &AtomicUsize) -> ApiResult<Input> {
    let url = match item? {
        Source::Ready(input) => return Ok(input),
        Source::Url(url) => url,
    };
    let Some(fetcher) = call.state.fetcher() else {
        return Err(ApiError::unprocessable(
            "url_fetch_disabled",
            "pictures are not fetched by URL here (the service runs without --allow-url-fetch); \
             send the bytes, base64 or a data: URL",
        ));
    };
    let bytes = fetcher.fetch(&url, call.state.memory(), call.context.client).await?;
    let limit = call.state.config().max_body_bytes;
    let taken =
        quota.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes.len()));
    match taken {
        Ok(_) => Ok(Input::Image(bytes)),
        Err(_) => {
            let message =
                format!("the pictures that one request has fetched are more than {limit} bytes together");
            Err(ApiError::too_large(message))
        }
    }
}
