//! What requests to other hosts have in common: nothing is kept or followed by itself, and an answer is bounded.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use bytes::Bytes;
use ureq::config::{AutoHeaderValue, Config};
use ureq::{Body, http};

use crate::api::edge::buffer::ChargedBuffer;
use crate::budget::{Charge, Exceeded};

/// Bytes that are read from a host at once.
const PIECE: usize = 32 << 10;

/// The settings of a client for one request: no proxy, no kept connections, no redirects; a status is no error, and what
/// is answered comes without compression.
pub fn settings(timeout: Duration, accept: impl Into<AutoHeaderValue>) -> Config {
    Config::builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .user_agent(concat!("siglip/", env!("CARGO_PKG_VERSION")))
        .accept(accept)
        .accept_encoding("identity")
        .build()
}

/// Why an answer was not read.
#[derive(Debug)]
pub enum Unread {
    /// The host failed, or the time ended.
    Failed(ureq::Error),
    /// It has more bytes than may be read.
    TooLarge,
    /// There is no memory for it.
    Memory(Exceeded),
}

/// The bytes of an answer, at most `most`, charged as they arrive.
///
/// # Errors
/// See [`Unread`].
pub fn read(mut response: http::Response<Body>, most: usize, charge: Charge) -> Result<Bytes, Unread> {
    let mut buffer = ChargedBuffer::new(charge, None);
    let mut reader = response.body_mut().as_reader();
    let mut piece = vec![0; PIECE];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(buffer.into_bytes()),
            Ok(read) if read > most - buffer.len() => return Err(Unread::TooLarge),
            Ok(read) => buffer.add(&piece[..read]).map_err(Unread::Memory)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Unread::Failed(error.into())),
        }
    }
}
