//! The playground: a page of plain files, at `/` and `/docs` for browsers. It needs nothing but our own routes.
//!
//! Its files are served below a path that has their common hash in it, so that browsers may keep them for ever; the page itself
//! is asked for anew. They are in the program as gzip, and sent so to who takes it. The page names them relatively (`ui/main.js`), so it works below any path.

use std::collections::HashMap;
use std::io::Read as _;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::api::dialects::Dialects;
use crate::api::edge::error::{ApiError, ApiResult, quoted};

/// Where the files are, in the router and in the page.
pub const FILES: &str = "/ui/{version}/{file}";

/// Scripts, styles and everything else come from here only. Pictures that a person chooses are `blob:` addresses, and those that a
/// script draws are too. Styles that scripts set on elements are no inline styles to a browser.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Every file but the page itself, as gzip (build.rs).
const ASSETS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/playground.rs"));

/// The page.
const PAGE: &str = include_str!("playground/index.html");

/// The playground, made once.
#[derive(Debug)]
pub struct Playground {
    page: Bytes,
    version: String,
    files: HashMap<&'static str, &'static [u8]>,
}

impl Playground {
    /// The playground of a service with these dialects.
    pub fn new(dialects: &Dialects) -> Self {
        let mut hash = Sha256::new();
        for (name, bytes) in ASSETS {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        let version: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let page = PAGE.replace("\"ui/", &format!("\"ui/{version}/"));
        let page = page.replace("<!-- dialects -->", &super::docs::listed(dialects));
        Self { page: page.into(), version, files: ASSETS.iter().copied().collect() }
    }

    /// The page. It is not kept without asking, so that a new version of the service shows its own.
    pub fn page(&self, headers: &HeaderMap) -> Response {
        let hash = Sha256::digest(&self.page);
        let tag: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut response = answer(headers, &tag, "text/html; charset=utf-8", self.page.clone());
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        response
    }

    /// A file of one version.
    ///
    /// # Errors
    /// 404 for a file that is not there, or one of another version.
    pub fn file(
        &self,
        path: Result<Path<(String, String)>, PathRejection>,
        headers: &HeaderMap,
    ) -> ApiResult<Response> {
        let Path((version, file)) =
            path.map_err(|error| ApiError::bad_request("invalid_request", error.body_text()))?;
        let found = self.files.get(file.as_str()).filter(|_| version == self.version);
        let packed = *found.ok_or_else(|| {
            let message =
                format!("the playground has no file {} of that version; load the page again", quoted(&file));
            ApiError::new(StatusCode::NOT_FOUND, "route_not_found", message)
        })?;
        let gzip = takes_gzip(headers);
        let (tag, bytes) = match gzip {
            true => (format!("{version}-gzip"), Bytes::from_static(packed)),
            false => (version, unpacked(packed)?),
        };
        let mut response = answer(headers, &tag, media_type(&file), bytes);
        let answer = response.headers_mut();
        let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
        answer.insert(header::CACHE_CONTROL, forever);
        answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if gzip {
            answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }
}

/// An answer with what is common to all of them, or 304 for who has it.
fn answer(headers: &HeaderMap, tag: &str, media_type: &'static str, bytes: Bytes) -> Response {
    let tag = format!("\"{tag}\"");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.trim_start_matches("W/") == tag
    });
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Body::from(bytes).into_response(),
    };
    let answer = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.insert(header::ETAG, tag);
    }
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Whether the client takes gzip (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        let refused = |part: &str| {
            part.strip_prefix("q=").and_then(|quality| quality.parse().ok()).is_some_and(|q: f32| q <= 0.0)
        };
        named && !parts.any(refused)
    })
}

/// The bytes of a file that was packed when the program was built: some tens of kilobytes.
fn unpacked(packed: &[u8]) -> ApiResult<Bytes> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .map_err(|error| ApiError::internal(format!("a file of the playground: {error}")))?;
    Ok(bytes.into())
}

fn media_type(file: &str) -> &'static str {
    match file.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program may grow by.
    const MOST: usize = 250_000;

    #[test]
    fn every_file_is_served_and_all_are_small() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/pages/playground");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| [".js", ".css", ".svg"].iter().any(|end| name.ends_with(end)))
            .collect();
        there.sort();
        let mut served: Vec<&str> = ASSETS.iter().map(|(name, _)| *name).collect();
        served.sort();
        assert_eq!(served, there);
        let bytes = PAGE.len() + ASSETS.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        assert!(bytes <= MOST, "{bytes} bytes");
    }

    #[test]
    fn the_page_names_files_that_there_are_by_their_version() {
        let playground = Playground::new(&Dialects::default());
        let page = String::from_utf8(playground.page.to_vec()).unwrap();
        let named: Vec<&str> =
            page.split("\"ui/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.len() >= 3, "{named:?}");
        for name in named {
            let (version, file) = name.split_once('/').unwrap();
            assert_eq!(version, playground.version);
            assert!(playground.files.contains_key(file), "{file}");
        }
    }
}
