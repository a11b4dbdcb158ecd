//! Forms: files under any name, pictures as strings, and fields.

use std::borrow::Cow;

use bytes::Bytes;

use super::multipart::{Part, parts};
use super::{Options, options_of};
use crate::api::edge::error::{ApiError, ApiResult};

/// Most fields of a form that are not pictures.
const MOST_FIELDS: usize = 4096;
/// Fields that hold a picture as a string when they are no file.
const PICTURE_FIELDS: [&str; 6] = ["image", "images", "file", "files", "input", "url"];

/// A picture of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A file, and its name.
    File(Bytes, Option<String>),
    /// A field: base64, a data: URL or an http(s) URL.
    Text(Bytes),
}

/// A form, read. Everything in it is a slice of the body.
#[derive(Debug, Default)]
pub struct Form {
    /// Its pictures in their order.
    pub pictures: Vec<Picture>,
    fields: Vec<(String, Bytes)>,
}

impl Form {
    /// Reads a form.
    ///
    /// # Errors
    /// 400 if it is malformed, 413 if it has more than `most` pictures.
    pub fn read(body: Bytes, content_type: &str, most: usize) -> ApiResult<Self> {
        let mut form = Self::default();
        for part in parts(body, content_type)? {
            let Part { name, file_name, media_type, bytes } = part?;
            let is_picture = media_type.starts_with("image/") || media_type == "application/octet-stream";
            if file_name.is_some() || is_picture {
                form.pictures.push(Picture::File(bytes, file_name));
            } else if PICTURE_FIELDS.contains(&name.as_str()) {
                form.pictures.push(Picture::Text(bytes));
            } else {
                form.fields.push((name, bytes));
            }
            if form.pictures.len() > most {
                let message = format!("more than {most} pictures in one request");
                return Err(ApiError::too_large(message).at("image"));
            }
            if form.fields.len() > MOST_FIELDS {
                return Err(ApiError::too_large(format!("more than {MOST_FIELDS} fields")));
            }
        }
        Ok(form)
    }

    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The fields as options.
    ///
    /// # Errors
    /// 400 for a field that is no text, or no option of the route.
    pub fn options<T: Options>(&self) -> ApiResult<T> {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| Ok((Cow::Borrowed(name.as_str()), Cow::Borrowed(text(value, name)?))))
            .collect::<ApiResult<_>>()?;
        options_of(fields)
    }
}

/// The text of a field.
///
/// # Errors
/// 400 if it is none.
pub fn text<'a>(value: &'a [u8], name: &str) -> ApiResult<&'a str> {
    std::str::from_utf8(value)
        .map_err(|_| ApiError::bad_request("invalid_request", "not UTF-8 (a file needs a filename)").at(name))
}
