//! From the inputs of a request to embeddings: collect, fetch, hand to the engine, put errors in place.

use futures::future::join_all;

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::native::schema;
use crate::api::native::schema::{Inputs, Modality, TextRules};
use crate::api::source::{Source, decode_image, is_data_url};
use crate::api::state::{AppState, RequestContext};
use crate::engine::{EmbedOptions, Embedding, EngineError, Input, ModelHandle, Timings};

/// Inputs of a request on their way to the engine, and what to call each of them in an error.
#[derive(Debug, Default)]
pub struct Batch {
    /// The inputs; one that was refused already stays in its place.
    pub items: Vec<ApiResult<Source>>,
    /// What an error calls each of them: `input[3]`.
    pub places: Vec<String>,
}

impl Batch {
    /// Adds one input.
    pub fn push(&mut self, place: String, item: ApiResult<Source>) {
        self.items.push(item);
        self.places.push(place);
    }

    /// Adds the inputs of a JSON field; decodes base64, so not for the async runtime where they are large.
    pub fn extend(&mut self, field: &str, inputs: Inputs, bare: Modality) {
        let single = inputs.single;
        for (index, item) in inputs.items.into_iter().enumerate() {
            let place = if single { field.to_owned() } else { format!("{field}[{index}]") };
            self.push(place, resolve(item, bare));
        }
    }

    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Refuses inputs of the other modality: those for which `fits` is false.
    pub fn only(&mut self, fits: impl Fn(&Input) -> bool, message: &str) {
        for item in &mut self.items {
            if let Ok(Source::Ready(input)) = item
                && !fits(input)
            {
                *item = Err(ApiError::unprocessable("wrong_modality", message));
            }
        }
    }
}

fn resolve(item: schema::Input, bare: Modality) -> ApiResult<Source> {
    match item {
        schema::Input::Text(text) => Ok(Source::Ready(Input::Text(text))),
        schema::Input::Image(text) => decode_image(&text),
        schema::Input::TokenIds(ids) => Ok(Source::Ready(Input::TokenIds(ids))),
        schema::Input::Bare(text) => match bare {
            Modality::Image => decode_image(&text),
            Modality::Auto if is_data_url(&text) => decode_image(&text),
            Modality::Auto | Modality::Text => Ok(Source::Ready(Input::Text(text))),
        },
    }
}

/// Embeddings in the order of the inputs; errors in their place only if that was asked for.
#[derive(Debug)]
pub struct Embedded {
    /// One result an input.
    pub results: Vec<ApiResult<Embedding>>,
    /// Where the time went.
    pub timings: Timings,
}

/// What a request asks of the engine beyond its inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkOptions {
    /// Another canonicalisation than the checkpoint's.
    pub canonicalization: Option<TextRules>,
    /// Another patch budget than the checkpoint's.
    pub max_num_patches: Option<usize>,
    /// Whether an input that cannot be used leaves the others alone.
    pub partial: bool,
}

/// Checks that a list is neither empty nor longer than the service takes.
///
/// # Errors
/// 422 if it is empty, 413 if it is too long.
pub fn check_count(field: &str, count: usize, limit: usize) -> ApiResult<()> {
    if count == 0 {
        return Err(ApiError::field(field, "at least one is needed"));
    }
    if count > limit {
        return Err(
            ApiError::too_large(format!("{count} in one request; the service takes {limit}")).at(field)
        );
    }
    Ok(())
}

/// Fetches what has to be fetched and embeds everything.
///
/// # Errors
/// The first input's error unless `partial`; what concerns the whole request in any case.
pub async fn embed(
    state: &AppState,
    context: &RequestContext,
    model: &ModelHandle,
    batch: Batch,
    options: WorkOptions,
) -> ApiResult<Embedded> {
    let Batch { items, places } = batch;
    // What is known to be wrong is said before anything is fetched.
    let items = settle(items, &places, options.partial)?;
    let items = join_all(items.into_iter().map(|item| ready(state, item))).await;
    let items = settle(items, &places, options.partial)?;

    let mut inputs = Vec::with_capacity(items.len());
    let waiting: Vec<ApiResult<()>> =
        items.into_iter().map(|item| item.map(|input| inputs.push(input))).collect();
    let mut timings = Timings::default();
    let mut embedded = Vec::new().into_iter();
    if !inputs.is_empty() {
        let options = EmbedOptions {
            canonicalization: options.canonicalization.map(Into::into),
            max_num_patches: options.max_num_patches,
            deadline: Some(context.deadline),
            client: context.client,
        };
        let output = model.embed(inputs, options).await.map_err(|error| match error {
            // The engine knows what was left of the time; the caller, what it was.
            EngineError::Deadline(_) => context.late(),
            error => error.into(),
        })?;
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
    Ok(Embedded { results: settle(results, &places, options.partial)?, timings })
}

/// Gives errors their place; the first one fails the request unless it is the input's own and `partial` is set.
fn settle<T>(items: Vec<ApiResult<T>>, places: &[String], partial: bool) -> ApiResult<Vec<ApiResult<T>>> {
    items
        .into_iter()
        .zip(places)
        .map(|(item, place)| match item {
            Err(error) => {
                let error = if error.detail.param.is_some() { error } else { error.at(place) };
                if partial && error.is_of_the_input() { Ok(Err(error)) } else { Err(error) }
            }
            ok => Ok(ok),
        })
        .collect()
}

async fn ready(state: &AppState, item: ApiResult<Source>) -> ApiResult<Input> {
    match item? {
        Source::Ready(input) => Ok(input),
        Source::Url(url) => match state.fetcher() {
            Some(fetcher) => fetcher.fetch(&url).await.map(Input::Image),
            None => Err(ApiError::unprocessable(
                "url_fetch_disabled",
                "pictures are not fetched by URL here (the service runs without --allow-url-fetch); \
                 send the bytes, base64 or a data: URL",
            )),
        },
    }
}

/// The model that a request names.
///
/// # Errors
/// 404 with the names there are; 503 while the model is being loaded.
pub fn model(state: &AppState, name: Option<&str>) -> ApiResult<ModelHandle> {
    Ok(state.engine().model(name)?)
}

/// The name of a file in an error, kept short and printable.
pub fn file_place(index: usize, file_name: Option<&str>) -> String {
    let name: String = file_name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(80).collect();
    if name.is_empty() { format!("image[{index}]") } else { format!("image[{index}] ({name})") }
}

/// Whether an input is a picture.
pub fn is_image(input: &Input) -> bool {
    matches!(input, Input::Image(_))
}

/// A picture that came as it is.
pub fn picture(bytes: bytes::Bytes) -> ApiResult<Source> {
    Ok(Source::Ready(Input::Image(bytes)))
}

/// Reads a query string that the route does not know as an error in our shape.
///
/// # Errors
/// 400 with what is wrong.
pub fn query<T: serde::de::DeserializeOwned>(pairs: &str) -> ApiResult<T> {
    let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(pairs.as_bytes()));
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = ApiError::bad_request("invalid_request", error.into_inner().to_string());
        if path == "." { error } else { error.at(path) }
    })
}
