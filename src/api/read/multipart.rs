//! `multipart/form-data` (RFC 7578, RFC 2046): the parts of a complete body, as slices of it. Nothing is copied but names.

use bytes::Bytes;
use memchr::memmem;

use crate::api::edge::error::{ApiError, ApiResult, quoted};

/// Bytes of the headers of one part at most.
const HEADER_BYTES: usize = 8 << 10;
/// Characters of a boundary at most (RFC 2046, section 5.1.1).
const BOUNDARY_BYTES: usize = 70;

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// The name of the field.
    pub name: String,
    /// The name of the file, if it is one.
    pub file_name: Option<String>,
    /// The media type without parameters, lower case; empty if there is none.
    pub media_type: String,
    /// The content.
    pub bytes: Bytes,
}

/// The parts of a body in their order; ends after the first error.
pub struct Parts {
    body: Bytes,
    /// `CRLF--boundary`.
    delimiter: Vec<u8>,
    /// Where the next part begins: behind the delimiter before it. None at the end.
    at: Option<usize>,
}

/// Reads the parts of `body`; `content_type` names the boundary between them.
///
/// # Errors
/// 400 `malformed_form` if there is no boundary.
pub fn parts(body: Bytes, content_type: &str) -> ApiResult<Parts> {
    let boundary = parameters(content_type).find(|(name, _)| name == "boundary").map(|(_, value)| value);
    let boundary = match boundary {
        Some(boundary) if !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES => boundary,
        Some(boundary) => return Err(malformed(format!("the boundary {} is not valid", quoted(&boundary)))),
        None => return Err(malformed("the Content-Type names no boundary")),
    };
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    // The first delimiter may be the first line. What is before it is for people.
    let first = match body.starts_with(&delimiter[2..]) {
        true => Some(delimiter.len() - 2),
        false => memmem::find(&body, &delimiter).map(|at| at + delimiter.len()),
    };
    match first {
        Some(at) => Ok(Parts { body, delimiter, at: Some(at) }),
        None => Err(malformed("the boundary is not in the body")),
    }
}

impl Iterator for Parts {
    type Item = ApiResult<Part>;

    fn next(&mut self) -> Option<ApiResult<Part>> {
        let at = self.at.take()?;
        self.part(at).transpose()
    }
}

impl Parts {
    /// The part whose delimiter ends at `at`; none if that was the last delimiter.
    fn part(&mut self, at: usize) -> ApiResult<Option<Part>> {
        let rest = &self.body[at..];
        let line = match end_of_delimiter(rest) {
            Some(Delimiter::Last) => return Ok(None),
            Some(Delimiter::Next(length)) => length,
            None => return Err(malformed("a boundary is not followed by a line break")),
        };
        let head_at = at + line;
        let head = &self.body[head_at..];
        // Without headers the empty line comes at once.
        let (head_length, content_at) = if head.starts_with(b"\r\n") {
            (0, head_at + 2)
        } else {
            let within = &head[..head.len().min(HEADER_BYTES)];
            let length = memmem::find(within, b"\r\n\r\n").ok_or_else(|| {
                malformed(format!("a part without an empty line within {HEADER_BYTES} bytes"))
            })?;
            (length, head_at + length + 4)
        };
        let mut part = headers(&head[..head_length])?;
        let content = &self.body[content_at..];
        let mut from = 0;
        loop {
            let found = memmem::find(&content[from..], &self.delimiter).map(|found| from + found);
            let Some(end) = found else { return Err(malformed("the body ends in the middle of a part")) };
            let after = content_at + end + self.delimiter.len();
            // A line that only begins like the boundary belongs to the content.
            if end_of_delimiter(&self.body[after..]).is_some() {
                part.bytes = self.body.slice(content_at..content_at + end);
                self.at = Some(after);
                return Ok(Some(part));
            }
            from = end + 2;
        }
    }
}

enum Delimiter {
    /// `--`: nothing that matters comes after it.
    Last,
    /// A line break, and the length with the spaces before it.
    Next(usize),
}

fn end_of_delimiter(rest: &[u8]) -> Option<Delimiter> {
    if rest.starts_with(b"--") {
        return Some(Delimiter::Last);
    }
    let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest[spaces..].starts_with(b"\r\n").then_some(Delimiter::Next(spaces + 2))
}

/// Name, file name and type out of the headers of a part.
fn headers(head: &[u8]) -> ApiResult<Part> {
    let head = std::str::from_utf8(head).map_err(|_| malformed("the headers of a part are not UTF-8"))?;
    let mut part = Part::default();
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            return Err(malformed(format!("{} is not a header", quoted(line))));
        };
        let name = name.trim();
        if name.eq_ignore_ascii_case("content-disposition") {
            for (name, value) in parameters(value) {
                match name.as_str() {
                    "name" => part.name = value,
                    "filename" => part.file_name = Some(value),
                    // RFC 5987, which wins over the plain one; RFC 7578 does without, but some clients send it.
                    "filename*" => {
                        part.file_name = Some(value.rsplit('\'').next().unwrap_or_default().to_owned())
                    }
                    _ => {}
                }
            }
        } else if name.eq_ignore_ascii_case("content-type") {
            part.media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        }
    }
    Ok(part)
}

/// The parameters of a header, `; name=value` or `; name="value"`, the names in lower case.
fn parameters(header: &str) -> impl Iterator<Item = (String, String)> {
    let mut rest = header.split_once(';').map(|(_, rest)| rest);
    std::iter::from_fn(move || {
        let (name, value) = rest.take()?.split_once('=')?;
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            }
        };
        rest = after.split_once(';').map(|(_, rest)| rest);
        Some((name.trim().to_ascii_lowercase(), value))
    })
}

/// The text up to the closing quotation mark, and what comes after it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            // Windows sends paths with plain backslashes: only what must be escaped is.
            '\\' if matches!(text[at + 1..].chars().next(), Some('"' | '\\')) => {
                value.extend(chars.next().map(|(_, c)| c));
            }
            c => value.push(c),
        }
    }
    (value, "")
}

fn malformed(what: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request("malformed_form", format!("the multipart/form-data body cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: &str = "multipart/form-data; boundary=XX";

    fn read(body: impl Into<Bytes>) -> ApiResult<Vec<Part>> {
        parts(body.into(), KIND)?.collect()
    }

    #[test]
    fn parts_are_slices_of_the_body() {
        let body = Bytes::from_static(
            b"for people\r\n--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--XX  \r\n\
              content-disposition: form-data; filename=\"a \\\"b\\\" C:\\x.jpg\"; name=image\r\n\
              Content-Type: Image/JPEG; q=1\r\n\r\n\x00\r\n--XXX\r\n--X\r\n--XX\r\n\r\nbare\r\n--XX--\r\nrest",
        );
        let parts = read(body.clone()).unwrap();
        let part = |name: &str, file: Option<&str>, kind: &str, bytes: &'static [u8]| Part {
            name: name.to_owned(),
            file_name: file.map(str::to_owned),
            media_type: kind.to_owned(),
            bytes: Bytes::from_static(bytes),
        };
        let wanted = [
            part("a", None, "", b"one"),
            part("image", Some("a \"b\" C:\\x.jpg"), "image/jpeg", b"\x00\r\n--XXX\r\n--X"),
            part("", None, "", b"bare"),
        ];
        assert_eq!(parts, wanted);
        let within = |part: &Part| body.as_ptr_range().contains(&part.bytes.as_ptr());
        assert!(parts.iter().all(within), "nothing is copied");
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let ok = b"--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--XX--".as_slice();
        assert_eq!(read(ok.to_vec()).unwrap().len(), 1);
        for length in 0..ok.len() - 2 {
            assert!(read(ok[..length].to_vec()).is_err(), "cut to {length} bytes");
        }
        for kind in
            ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=YY"]
        {
            assert!(parts(Bytes::from_static(ok), kind).is_err(), "{kind}");
        }
        let quoted = parts(Bytes::from_static(ok), "multipart/form-data; charset=x; boundary=\"XX\"");
        assert_eq!(quoted.unwrap().count(), 1);
        let long = format!("--XX\r\nA: {}\r\n\r\n\r\n--XX--", "x".repeat(HEADER_BYTES));
        assert!(read(long).is_err());
        assert!(read("--XX\r\nno header\r\n\r\n\r\n--XX--").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6)) {
            prop_assume!(contents.iter().all(|content| memmem::find(content, b"--XX").is_none()));
            let mut body = Vec::new();
            for content in &contents {
                body.extend_from_slice(b"--XX\r\nContent-Disposition: form-data; name=\"n\"; filename=\"f\"\r\n\r\n");
                body.extend_from_slice(content);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"--XX--\r\n");
            let read: Vec<Vec<u8>> = read(body).unwrap().into_iter().map(|part| part.bytes.to_vec()).collect();
            prop_assert_eq!(read, contents);
        }

        #[test]
        fn nothing_panics(body in "(--XX|\r\n|--|XX|name=|\"|;|content-disposition:|[ -~]|\\PC){0,60}", kind in "\\PC{0,40}") {
            let _ = read(body.clone().into_bytes());
            if let Ok(parts) = parts(body.into(), &format!("multipart/form-data;{kind}")) {
                parts.for_each(drop);
            }
        }
    }
}
