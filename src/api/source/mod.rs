//! Where the inputs of a request come from: bytes, base64, data: URLs, and http(s) URLs where allowed.

mod address;
mod decode;
mod fetch;
pub mod outbound;
mod slots;

pub use address::is_public;
pub use decode::{begins_as_url, decode_image, is_data_url, is_url};
pub use fetch::{FetchPolicy, Fetcher, HostPattern};
pub use slots::Slots;

use crate::engine::Input;

/// One input: here, or still to be fetched.
#[derive(Debug, Clone)]
pub enum Source {
    /// What the engine takes.
    Ready(Input),
    /// A picture at this http(s) URL.
    Url(String),
}

impl Source {
    /// Whether it is a picture.
    pub fn is_picture(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Ready(Input::Image(_)))
    }
}
