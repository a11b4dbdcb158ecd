//! The inputs of a request on their way to the engine: domain types, with a name for each and the memory that they hold.

use bytes::Bytes;

use crate::api::edge::error::{ApiError, ApiResult, shortened};
use crate::api::read::Heap;
use crate::api::source::{Source, decode_image};
use crate::budget::Charge;
use crate::engine::Input;

/// Bytes that an input takes beside its content until it is in the engine, at most: its name, and its entries in the lists on its
/// way there, which may be twice as long as they need to be while they grow.
pub const EACH_INPUT: usize = 512;

/// Inputs of a request, and what an error calls each of them.
#[derive(Debug)]
pub struct Batch {
    /// The inputs; one that was refused already stays in its place.
    pub items: Vec<ApiResult<Source>>,
    /// What an error calls each of them: `input[3]`.
    pub places: Vec<String>,
    /// What the budget holds for them, but for pictures, which hold their own.
    pub memory: Charge,
}

impl Batch {
    /// No inputs yet; `memory` is what the parsed request holds.
    pub fn new(memory: Charge) -> Self {
        Self { items: Vec::new(), places: Vec::new(), memory }
    }

    /// Adds one input.
    pub fn push(&mut self, place: String, item: ApiResult<Source>) {
        self.items.push(item);
        self.places.push(place);
    }

    /// Adds a text.
    pub fn push_text(&mut self, place: String, text: String) {
        self.push(place, Ok(Source::Ready(Input::Text(text))));
    }

    /// Adds a picture that is here.
    pub fn push_picture(&mut self, place: String, bytes: Bytes) {
        self.push(place, Ok(Source::Ready(Input::Image(bytes))));
    }

    /// Adds a picture out of a string: a URL, a data: URL or base64. Not for the async runtime where it is large.
    pub fn push_encoded(&mut self, place: String, text: &str) {
        let item = decode_image(text, &mut self.memory);
        self.push(place, item);
    }

    /// Adds a list of texts, `field[0]` and so on.
    ///
    /// # Errors
    /// 413 or 429 if there is no room for their names.
    pub fn push_texts(&mut self, field: &str, texts: Vec<String>) -> ApiResult<()> {
        self.memory.grow(texts.len() * EACH_INPUT)?;
        for (index, text) in texts.into_iter().enumerate() {
            self.push_text(format!("{field}[{index}]"), text);
        }
        Ok(())
    }

    /// Adds a list of pictures out of strings, `field[0]` and so on, at most `most`. Not for the async runtime where they
    /// are large.
    ///
    /// # Errors
    /// 413 if they are too many; 413 or 429 if there is no room for their names. What is wrong with one is in its place.
    pub fn push_pictures(&mut self, field: &str, pictures: Vec<String>, most: usize) -> ApiResult<()> {
        if !pictures.is_empty() {
            check_count(field, pictures.len(), most)?;
        }
        self.memory.grow(pictures.len() * EACH_INPUT)?;
        for (index, picture) in pictures.into_iter().enumerate() {
            self.push_encoded(format!("{field}[{index}]"), &picture);
            self.memory.shrink(picture.heap());
        }
        Ok(())
    }

    /// The inputs of both, these first.
    pub fn append(&mut self, mut other: Self) {
        self.items.append(&mut other.items);
        self.places.append(&mut other.places);
        self.memory.merge(other.memory);
    }

    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a picture is among them.
    pub fn has_pictures(&self) -> bool {
        self.items.iter().flatten().any(Source::is_picture)
    }

    /// Whether a text is among them.
    pub fn has_texts(&self) -> bool {
        self.items.iter().flatten().any(|item| !item.is_picture())
    }

    /// Refuses inputs of the other modality: those for which `fits` is false.
    pub fn only(&mut self, fits: impl Fn(&Source) -> bool, message: &str) {
        for item in &mut self.items {
            if item.as_ref().is_ok_and(|source| !fits(source)) {
                *item = Err(ApiError::unprocessable("wrong_modality", message));
            }
        }
    }
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

/// The place of a file in an error.
pub fn file_place(index: usize, file_name: Option<&str>) -> String {
    match file_name {
        None | Some("") => format!("image[{index}]"),
        Some(name) => format!("image[{index}] ({})", shortened(name, 60)),
    }
}
