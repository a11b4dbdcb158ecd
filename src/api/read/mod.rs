//! From the bytes of a request to typed values, within bounds: JSON, text fields, forms. Knows no route.

mod fields;
mod form;
mod json;
mod list;
mod multipart;
mod options;

pub use fields::options_of;
pub use form::{Form, Picture, text};
pub use json::parse_json;
pub use list::{Bounded, Listed, MOST, OneOrMany, within};
pub(crate) use options::options;
pub use options::{Heap, JsonBody, Options, missing};

/// Bytes that parsing `length` bytes can make at most, while the lists grow: strings are no longer than what they were
/// read from, a token id of two bytes becomes four, and a list has at most [`MOST`] elements of a small size.
pub fn parsed_bound(length: usize) -> usize {
    const PER_BYTE: usize = 64;
    const ELEMENTS: usize = 12 << 20;
    length.saturating_mul(2).saturating_add(length.saturating_mul(PER_BYTE).min(ELEMENTS))
}
