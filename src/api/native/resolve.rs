//! From the inputs of our own schema to domain inputs.

use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::inputs::{Batch, check_count};
use crate::api::native::schema::{Input, Inputs, Modality};
use crate::api::read::{Heap, missing};
use crate::api::source::{Source, is_data_url, is_url};
use crate::budget::Charge;
use crate::engine;

/// How the inputs of a field are meant.
#[derive(Debug, Clone, Copy)]
pub struct Meaning {
    /// What bare strings are.
    pub bare: Modality,
    /// Whether the client says that token ids are of this model's tokenizer.
    pub token_ids: bool,
    /// Pictures at most. Texts are counted by what they cost, by the engine.
    pub max_pictures: usize,
}

impl Meaning {
    fn is_picture(&self, input: &Input) -> bool {
        match input {
            Input::Image(_) => true,
            Input::Bare(text) => match self.bare {
                Modality::Image => true,
                Modality::Auto => is_data_url(text),
                Modality::Text => false,
            },
            Input::Text(_) | Input::TokenIds(_) => false,
        }
    }
}

/// Resolves the inputs of one field; decodes base64, so not for the async runtime where they are large. `memory` is what
/// the inputs hold, and follows them.
///
/// # Errors
/// 422 if there is none, 413 if there are too many pictures. What is wrong with one input is in its place.
pub fn resolve(field: &str, inputs: Inputs, meaning: Meaning, memory: Charge) -> ApiResult<Batch> {
    let Inputs { items, single } = inputs;
    if items.is_empty() {
        return Err(ApiError::field(field, "at least one is needed"));
    }
    // Counted before anything is decoded.
    let pictures = items.iter().filter(|input| meaning.is_picture(input)).count();
    if pictures > 0 {
        check_count(field, pictures, meaning.max_pictures)?;
    }
    let mut batch = Batch::new(memory);
    for (index, item) in items.into_iter().enumerate() {
        let place = if single { field.to_owned() } else { format!("{field}[{index}]") };
        let is_picture = meaning.is_picture(&item);
        match item {
            Input::Image(text) | Input::Bare(text) if is_picture => {
                batch.push_encoded(place, &text);
                batch.memory.shrink(text.heap());
            }
            Input::Bare(text) if meaning.bare == Modality::Auto && is_url(&text) => {
                let message = "a URL as a bare string: send {\"image\": …} for the picture there, or {\"text\": …} for \
                               its words";
                batch.push(place, Err(ApiError::unprocessable("ambiguous_input", message)));
            }
            Input::Text(text) | Input::Bare(text) | Input::Image(text) => batch.push_text(place, text),
            Input::TokenIds(ids) => batch.push(place, token_ids(ids, meaning.token_ids)),
        }
    }
    Ok(batch)
}

/// Resolves pictures and the texts that they are compared with: the pictures first, and how many there are. As [`resolve`].
///
/// # Errors
/// As [`resolve`], or if there are too many texts.
pub fn resolve_pairs(
    images: Option<Inputs>,
    texts: Option<Inputs>,
    (max_pictures, max_texts): (usize, usize),
    token_ids: bool,
    mut memory: Charge,
) -> ApiResult<(Batch, usize)> {
    let texts = texts.ok_or_else(|| missing("texts"))?;
    check_count("texts", texts.items.len(), max_texts)?;
    let of_texts = memory.split(texts.heap());
    let mut batch = resolve_images(images, max_pictures, memory)?;
    let pictures = batch.len();
    let meaning = Meaning { bare: Modality::Text, token_ids, max_pictures: max_texts };
    let mut texts = resolve("texts", texts, meaning, of_texts)?;
    texts.only(|source| !source.is_picture(), "a picture among the texts");
    batch.append(texts);
    Ok((batch, pictures))
}

/// Resolves the pictures of `images`. As [`resolve`].
///
/// # Errors
/// As [`resolve`].
pub fn resolve_images(images: Option<Inputs>, max_pictures: usize, memory: Charge) -> ApiResult<Batch> {
    let images = images.ok_or_else(|| missing("images"))?;
    let meaning = Meaning { bare: Modality::Image, token_ids: true, max_pictures };
    let mut batch = resolve("images", images, meaning, memory)?;
    batch.only(Source::is_picture, "a text among the pictures");
    Ok(batch)
}

/// Ids of another tokenizer give vectors without meaning, and nothing in them tells.
fn token_ids(ids: Vec<u32>, are_ours: bool) -> ApiResult<Source> {
    if are_ours {
        return Ok(Source::Ready(engine::Input::TokenIds(ids)));
    }
    let message = "token ids mean another text in each tokenizer, and most clients send those of another model: send the \
                   text (LangChain: check_embedding_ctx_length=False), or set token_ids to true if they are of this \
                   model's tokenizer";
    Err(ApiError::unprocessable("token_ids_refused", message))
}
