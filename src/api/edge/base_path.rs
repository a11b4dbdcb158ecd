//! A path in front of every route, for use behind a proxy that does not take it away.

use std::str::FromStr;

use axum::Router;
use axum::extract::Request;
use http::Uri;
use http::uri::PathAndQuery;
use tower::util::MapRequest;

/// `/siglip`, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(String);

/// The request named the path itself, without a slash at its end. What a page's relative addresses are relative to is then
/// missing: this is the address with it.
#[derive(Debug, Clone)]
pub struct Bare(pub String);

impl FromStr for BasePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.trim_end_matches('/');
        let parts = || path.split('/').skip(1);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        let good = path.is_empty()
            || path.starts_with('/')
                && parts()
                    .all(|part| !part.is_empty() && part.bytes().all(plain) && part != "." && part != "..");
        match good {
            true => Ok(Self(path.to_owned())),
            false => Err(format!("{text:?} is not a path such as /siglip")),
        }
    }
}

impl BasePath {
    /// The address without the path; none if it does not begin with it.
    fn strip(&self, uri: &Uri) -> Option<Uri> {
        let whole = uri.path_and_query()?.as_str();
        let rest = whole.strip_prefix(&self.0)?;
        let rest = match rest.bytes().next() {
            Some(b'/') => rest.to_owned(),
            None | Some(b'?') => format!("/{rest}"),
            Some(_) => return None,
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(rest).ok()?);
        Uri::from_parts(parts).ok()
    }
}

/// `router` below a path. It answers without the path too: to probes, and behind a proxy that takes the path away.
pub fn below(base: &BasePath, router: Router) -> Router {
    if base.0.is_empty() {
        return router;
    }
    let base = base.clone();
    Router::new().fallback_service(MapRequest::new(router, move |mut request: Request| {
        if let Some(uri) = base.strip(request.uri()) {
            if request.uri().path() == base.0 {
                request.extensions_mut().insert(Bare(format!("{}/", base.0)));
            }
            *request.uri_mut() = uri;
        }
        request
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_and_what_is_below_it_is_stripped() {
        let strip = |base: &str, uri: &str| {
            let base: BasePath = base.parse().expect("a path");
            base.strip(&uri.parse().expect("an address")).map(|uri| uri.to_string())
        };
        assert_eq!(strip("/siglip/", "/siglip/v1/models?x=1").as_deref(), Some("/v1/models?x=1"));
        assert_eq!(strip("/siglip", "/siglip?x=1").as_deref(), Some("/?x=1"));
        assert_eq!(strip("/a/b", "/a/b").as_deref(), Some("/"));
        assert_eq!(strip("/a", "http://host/a/b").as_deref(), Some("http://host/b"));
        assert_eq!(strip("/siglip", "/siglip2/v1"), None);
        assert_eq!(strip("/siglip", "/v1/models"), None);
        for wrong in ["siglip", "//", "/a//b", "/a b", "/../x", "http://x/"] {
            let parsed = wrong.parse::<BasePath>();
            assert!(wrong == "//" || parsed.is_err(), "{wrong:?}");
        }
    }
}
