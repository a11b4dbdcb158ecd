//! Runs a request: fetch what has to be fetched, hand everything to the engine, put errors in their places. Embeddings,
//! labels of pictures, cosines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;

use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::Batch;
use crate::api::source::Source;
use crate::engine::{self, EmbedOptions, Embedding, Input, ModelHandle, Scored, Timings, Viewed};
use crate::image::ViewOptions;
use crate::model::{Judged, PatchVectors, Question, Scores};
use crate::pipeline::fingerprint_of_patches;
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

    /// The same for the engine.
    fn asked(&self, call: &Call) -> EmbedOptions {
        let allowed = call.context.deadline - call.context.started;
        EmbedOptions {
            canonicalization: self.canonicalization,
            max_num_patches: self.max_num_patches,
            deadline: Some(call.context.deadline - self.reserve(allowed)),
            client: call.context.client,
            tally: Some(call.context.tally.clone()),
            partial: self.partial,
            ..EmbedOptions::default()
        }
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
    embed_as(call, model, batch, options, None).await
}

/// [`embed`] that gives what is made of the patches of a picture where `patches` says what.
///
/// # Errors
/// As [`embed`].
pub async fn embed_as(
    call: &Call,
    model: &ModelHandle,
    batch: Batch,
    options: RunOptions,
    patches: Option<PatchVectors>,
) -> ApiResult<Embedded> {
    let fingerprint = begin(call, model, &batch, options, patches)?;
    // Held until everything is answered.
    let Batch { items, places, memory: _memory } = batch;
    let items = gather(call, items, &places, options.partial).await?;
    let mut inputs = Vec::with_capacity(items.len());
    let waiting: Vec<ApiResult<()>> =
        items.into_iter().map(|item| item.map(|input| inputs.push(input))).collect();
    let mut timings = Timings::default();
    let mut embedded = Vec::new().into_iter();
    if !inputs.is_empty() {
        let output = model
            .embed(inputs, EmbedOptions { patches, ..options.asked(call) })
            .await
            .map_err(|error| call.engine_error(error))?;
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

/// Pictures and labels, and what is asked of them.
#[derive(Debug)]
pub struct ToClassify {
    /// The pictures, then the prompts of the labels.
    pub batch: Batch,
    /// How many of them are pictures.
    pub pictures: usize,
    /// Embeddings of this model, after the pictures.
    pub given: Vec<Arc<[f32]>>,
    /// Scale and bias of the logits.
    pub scores: Scores,
    /// Which labels are answered.
    pub question: Question,
    /// What the labels look at in place of embeddings.
    pub looks_at: Option<PatchVectors>,
}

/// The labels of pictures.
#[derive(Debug)]
pub struct Classified {
    /// One result per picture, then one per embedding that was given.
    pub results: Vec<ApiResult<Judged>>,
    /// Tokens of all inputs.
    pub tokens: usize,
    /// The embedding space.
    pub fingerprint: String,
    /// Where the time went.
    pub timings: Timings,
}

/// Embeds pictures and the prompts of labels, and judges the labels of each picture. `labels` makes what the engine scores
/// with of the embeddings of the prompts.
///
/// # Errors
/// Those of [`embed`] and of the engine. A label that cannot be used spoils every picture's answer, so it is never partial.
pub async fn classify(
    call: &Call,
    model: &ModelHandle,
    wanted: ToClassify,
    options: RunOptions,
    labels: impl FnOnce(Vec<Embedding>) -> engine::Labels,
) -> ApiResult<Classified> {
    let ToClassify { batch, pictures, given, scores, question, looks_at } = wanted;
    let Embedded { mut results, fingerprint, timings } =
        embed_as(call, model, batch, options, looks_at).await?;
    let texts: Vec<Embedding> = results.split_off(pictures).into_iter().collect::<ApiResult<_>>()?;
    let tokens = results.iter().flatten().chain(&texts).map(|embedding| embedding.tokens).sum();
    let pictures = results.into_iter().map(|result| result.map(|embedding| embedding.vector));
    let pictures: Vec<ApiResult<Arc<[f32]>>> = pictures.chain(given.into_iter().map(Ok)).collect();
    let vectors = pictures.iter().flatten().cloned().collect();
    let scored = model.judge(vectors, labels(texts), scores, question, call.score_options()).await;
    let Scored { value: judged, timings: scoring } = scored.map_err(|error| call.engine_error(error))?;
    let mut judged = judged.into_iter();
    let fewer = || ApiError::internal("the engine judged fewer pictures than it got");
    let results = pictures.into_iter().map(|picture| picture.and_then(|_| judged.next().ok_or_else(fewer)));
    Ok(Classified { results: results.collect(), tokens, fingerprint, timings: timings.and(scoring) })
}

/// Scale and bias of a model's logits.
///
/// # Errors
/// 422 if it has none.
pub fn scores(model: &ModelHandle) -> ApiResult<Scores> {
    let info = model.info();
    let (Some(scale), Some(bias)) = (info.logit_scale, info.logit_bias) else {
        let message =
            format!("the model {:?} has no logit scale and bias to score labels with", model.name());
        return Err(ApiError::unprocessable("unsupported_by_model", message));
    };
    Ok(Scores { scale, bias })
}

/// The cosines of inputs with each other.
#[derive(Debug)]
pub struct Compared {
    /// A row for each of the first inputs, a column for each of the rest.
    pub cosines: Vec<f32>,
    /// Tokens of all inputs.
    pub tokens: usize,
    /// The embedding space.
    pub fingerprint: String,
    /// Where the time went.
    pub timings: Timings,
}

/// Embeds inputs and compares each of the first `rows` with each of the rest.
///
/// # Errors
/// Those of [`embed`] and of the engine.
pub async fn compare(
    call: &Call,
    model: &ModelHandle,
    batch: Batch,
    rows: usize,
    options: RunOptions,
) -> ApiResult<Compared> {
    let Embedded { results, fingerprint, timings } = embed(call, model, batch, options).await?;
    let mut first: Vec<Embedding> = results.into_iter().collect::<ApiResult<_>>()?;
    let rest = first.split_off(rows);
    let tokens = first.iter().chain(&rest).map(|embedding| embedding.tokens).sum();
    let labels = engine::Labels::unnamed(rest.into_iter().map(|text| text.vector).collect());
    let first = first.into_iter().map(|image| image.vector).collect();
    let scored = model.cosines(first, labels, call.score_options()).await;
    let Scored { value: cosines, timings: scoring } = scored.map_err(|error| call.engine_error(error))?;
    Ok(Compared { cosines, tokens, fingerprint, timings: timings.and(scoring) })
}

/// Views of pictures, and texts to compare them with.
#[derive(Debug)]
pub struct EmbeddedViews {
    /// One for each picture.
    pub pictures: Vec<Viewed>,
    /// One for each text.
    pub texts: Vec<Embedding>,
    /// The embedding space that they are in.
    pub fingerprint: String,
    /// Where the time went.
    pub timings: Timings,
}

/// Fetches what has to be fetched and embeds `views` of the first `pictures` inputs, which are pictures, and the others,
/// which are texts. The memory of the views' vectors and previews is charged by the caller.
///
/// # Errors
/// The first input's error, and what concerns the whole request.
pub async fn embed_views(
    call: &Call,
    model: &ModelHandle,
    batch: Batch,
    pictures: usize,
    views: ViewOptions,
    options: RunOptions,
) -> ApiResult<EmbeddedViews> {
    let options = RunOptions { partial: false, ..options };
    let fingerprint = begin(call, model, &batch, options, None)?;
    let Batch { items, places, memory: _memory } = batch;
    let items = gather(call, items, &places, options.partial).await?;
    let mut inputs = items.into_iter().collect::<ApiResult<Vec<_>>>()?;
    let texts = inputs.split_off(pictures.min(inputs.len()));
    let (of_pictures, of_texts) = places.split_at(inputs.len());
    let bytes = inputs.into_iter().map(|input| match input {
        Input::Image(bytes) => Ok(bytes),
        Input::Text(_) | Input::TokenIds(_) => Err(ApiError::internal("a text in the place of a picture")),
    });
    let bytes = bytes.collect::<ApiResult<Vec<_>>>()?;
    let error = |error| call.engine_error(error);
    // Texts first: they are usually cached, and what is wrong with one costs no picture.
    let output = model.embed(texts, options.asked(call)).await.map_err(error)?;
    let results = output.results.into_iter().map(|result| result.map_err(ApiError::from)).collect();
    let texts = settle(results, of_texts, false)?.into_iter().collect::<ApiResult<Vec<_>>>()?;
    let viewed = model.embed_views(bytes, views, options.asked(call)).await.map_err(error)?;
    let results = viewed.results.into_iter().map(|result| result.map_err(ApiError::from)).collect();
    let pictures = settle(results, of_pictures, false)?.into_iter().collect::<ApiResult<Vec<_>>>()?;
    Ok(EmbeddedViews { pictures, texts, fingerprint, timings: output.timings.and(viewed.timings) })
}

/// Checks what is said of the whole request, notes what it is, and names its embedding space.
fn begin(
    call: &Call,
    model: &ModelHandle,
    batch: &Batch,
    options: RunOptions,
    patches: Option<PatchVectors>,
) -> ApiResult<String> {
    if options.max_num_patches == Some(0) {
        return Err(ApiError::field("max_num_patches", "must be at least 1"));
    }
    let fingerprint = model.info().fingerprint_with(
        options.canonicalization.filter(|_| batch.has_texts()),
        options.max_num_patches.filter(|_| batch.has_pictures()),
    );
    let fingerprint = match patches {
        // A mean is between the model and its own classifier: nobody stores it.
        None | Some(PatchVectors::Mean) => fingerprint,
        Some(PatchVectors::Tokens | PatchVectors::Pooled) => fingerprint_of_patches(&fingerprint),
    };
    call.expects(&fingerprint, options.if_match_is_taken)?;
    call.context.note.work(model.name(), batch.len());
    Ok(fingerprint)
}

/// Fetches what has to be fetched.
async fn gather(
    call: &Call,
    items: Vec<ApiResult<Source>>,
    places: &[String],
    partial: bool,
) -> ApiResult<Vec<ApiResult<Input>>> {
    // What is known to be wrong is said before anything is fetched.
    let items = settle(items, places, partial)?;
    let quota = AtomicUsize::new(call.state.config().max_body_bytes);
    let items = join_all(items.into_iter().map(|item| ready(call, item, &quota))).await;
    settle(items, places, partial)
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
    let bytes = fetcher.fetch(&url, &call.memory(), call.context.client).await?;
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
