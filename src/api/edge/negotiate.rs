//! Which format the client wants its answer in (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, StatusCode, header};

use crate::api::edge::error::{ApiError, ApiResult};

/// A format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: the default.
    Json,
    /// `application/msgpack`: the same document.
    MsgPack,
    /// `application/x-npy`: one array, NumPy's own file format.
    Npy,
    /// `application/octet-stream`: the rows and nothing else.
    OctetStream,
}

impl Format {
    /// Every format, the preferred first.
    pub const ALL: [Self; 4] = [Self::Json, Self::MsgPack, Self::Npy, Self::OctetStream];
    /// Those that hold a document: for answers that are not one array.
    pub const DOCUMENTS: [Self; 2] = [Self::Json, Self::MsgPack];

    /// The media type in the answer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MsgPack => "application/msgpack",
            Self::Npy => "application/x-npy",
            Self::OctetStream => "application/octet-stream",
        }
    }

    fn is_named(self, media_type: &str) -> bool {
        let also: &[&str] = match self {
            Self::MsgPack => &["application/x-msgpack", "application/vnd.msgpack"],
            Self::Npy => &["application/npy"],
            Self::Json | Self::OctetStream => &[],
        };
        media_type == self.media_type() || also.contains(&media_type)
    }
}

/// Picks among `offered` (preferred first) by the `Accept` header; without one, the first.
///
/// # Errors
/// 406 if the client takes none of them.
pub fn negotiate(headers: &HeaderMap, offered: &[Format]) -> ApiResult<Format> {
    let mut accepted = false;
    let mut ranges: Vec<(String, f32)> = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        accepted = true;
        let value = value.to_str().map_err(|_| {
            ApiError::bad_request("invalid_header", "the Accept header is not visible ASCII").at("Accept")
        })?;
        ranges.extend(value.split(',').filter_map(range));
    }
    if !accepted || ranges.is_empty() {
        return Ok(offered[0]);
    }
    let mut best: Option<(Format, f32)> = None;
    for &format in offered {
        let quality = quality(format, &ranges);
        // A strict comparison keeps our order among equals.
        if quality > best.map_or(0.0, |(_, q)| q) {
            best = Some((format, quality));
        }
    }
    best.map(|(format, _)| format).ok_or_else(|| {
        let names: Vec<&str> = offered.iter().map(|f| f.media_type()).collect();
        let message =
            format!("this route answers as {}; the Accept header takes none of them", names.join(", "));
        ApiError::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message)
    })
}

/// Whether the client is somebody's browser: it names HTML, and not JSON before it.
pub fn wants_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<(String, f32)> = values.flat_map(|value| value.split(',')).filter_map(range).collect();
    let named = |name: &str| {
        ranges.iter().filter(|(range, _)| range == name).map(|(_, quality)| *quality).fold(0.0, f32::max)
    };
    named("text/html") > named("application/json")
}

/// One element of an `Accept` header: media range and quality.
fn range(element: &str) -> Option<(String, f32)> {
    let mut parts = element.split(';');
    let name = parts.next()?.trim().to_ascii_lowercase();
    if name.is_empty() {
        return None;
    }
    let quality = parts
        .filter_map(|p| p.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()))
        .next()
        .filter(|q| q.is_finite())
        .unwrap_or(1.0);
    Some((name, quality.clamp(0.0, 1.0)))
}

/// The quality of a format: that of the most specific range that covers it.
fn quality(format: Format, ranges: &[(String, f32)]) -> f32 {
    let specificity = |name: &str| match name {
        name if format.is_named(name) => Some(2),
        "application/*" => Some(1),
        "*/*" | "*" => Some(0),
        _ => None,
    };
    ranges
        .iter()
        .filter_map(|(name, q)| specificity(name).map(|s| (s, *q)))
        .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map_or(0.0, |(_, q)| q)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(accept: &str) -> Result<Format, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        negotiate(&headers, &Format::ALL).map_err(|e| e.status.as_u16())
    }

    #[test]
    fn browsers_name_html() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wants_html(&headers)
        };
        assert!(wants("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(wants("application/json;q=0.5, Text/HTML"));
        for other in ["*/*", "application/json", "text/*", "text/html;q=0", "application/json, text/html"] {
            assert!(!wants(other), "{other}");
        }
        assert!(!wants_html(&HeaderMap::new()));
    }

    #[test]
    fn the_accept_header_decides() {
        assert_eq!(negotiate(&HeaderMap::new(), &Format::ALL).unwrap(), Format::Json);
        assert_eq!(pick(""), Ok(Format::Json));
        assert_eq!(pick("*/*"), Ok(Format::Json));
        assert_eq!(pick("text/html, application/*;q=0.8"), Ok(Format::Json));
        assert_eq!(pick("application/x-npy"), Ok(Format::Npy));
        assert_eq!(pick("Application/MsgPack; q=0.9, application/json;q=0.5"), Ok(Format::MsgPack));
        assert_eq!(pick("application/octet-stream, */*;q=0.1"), Ok(Format::OctetStream));
        assert_eq!(pick("application/json;q=0, */*"), Ok(Format::MsgPack));
        assert_eq!(pick("image/png"), Err(406));
        assert_eq!(pick("application/json;q=0"), Err(406));
        assert_eq!(pick("application/json;q=NaN"), Ok(Format::Json));
    }
}
