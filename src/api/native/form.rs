//! `multipart/form-data`: files under any name, and fields.

use bytes::Bytes;
use futures::executor::block_on;
use futures::stream;
use multer::Multipart;

use crate::api::edge::body::{RawBody, off_runtime};
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::native::work::{Batch, file_place, picture};
use crate::api::source::decode_image;

/// Most fields of a form that are not files.
const MOST_FIELDS: usize = 4096;
/// Fields that hold a picture as a string when they are no file.
const IMAGE_FIELDS: [&str; 6] = ["image", "images", "file", "files", "input", "url"];

/// A form, read.
#[derive(Debug, Default)]
pub struct Form {
    /// Its pictures in their order.
    pub images: Batch,
    /// Its other fields in their order.
    pub fields: Vec<(String, String)>,
}

impl Form {
    /// Takes all values of the fields of that name: each as it is, or the list that it holds as JSON; with
    /// `commas`, also the list that commas make of it.
    ///
    /// # Errors
    /// 400 if a value begins like a JSON list and is none.
    pub fn take_list(&mut self, names: &[&str], commas: bool) -> ApiResult<Vec<String>> {
        let mut values = Vec::new();
        let mut rest = Vec::new();
        for (name, value) in self.fields.drain(..) {
            if !names.contains(&name.as_str()) {
                rest.push((name, value));
            } else if value.trim_start().starts_with('[') {
                let list: Vec<String> = serde_json::from_str(&value).map_err(|error| {
                    ApiError::bad_request("invalid_request", format!("not a JSON list of strings: {error}"))
                        .at(&name)
                })?;
                values.extend(list);
            } else if commas {
                values.extend(value.split(',').map(|v| v.trim().to_owned()));
            } else {
                values.push(value);
            }
        }
        self.fields = rest;
        Ok(values)
    }

    /// What is left of the fields, as a query string; later ones win over `query`.
    pub fn over_query(&self, query: Option<&str>) -> String {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let from_query = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
        for (name, value) in from_query.chain(self.fields.iter().cloned()) {
            pairs.retain(|(known, _)| *known != name);
            pairs.push((name, value));
        }
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }
}

/// Reads a form.
///
/// # Errors
/// 400 if it is malformed, 413 if it has more than `max_items` pictures.
pub async fn read(body: &RawBody, max_items: usize) -> ApiResult<Form> {
    let boundary = multer::parse_boundary(&body.content_type).map_err(malformed)?;
    let bytes = body.bytes.clone();
    // The whole body is here, so nothing in it waits.
    off_runtime(bytes.len(), move || block_on(read_parts(bytes, boundary, max_items))).await
}

async fn read_parts(bytes: Bytes, boundary: String, max_items: usize) -> ApiResult<Form> {
    let whole = stream::iter([Ok::<Bytes, std::io::Error>(bytes)]);
    let mut parts = Multipart::new(whole, boundary);
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(malformed)? {
        let name = part.name().unwrap_or_default().to_owned();
        let file_name = part.file_name().map(str::to_owned);
        let kind = part.content_type().map(|mime| mime.essence_str().to_owned()).unwrap_or_default();
        let bytes = part.bytes().await.map_err(malformed)?;
        let is_file = file_name.is_some() || kind.starts_with("image/") || kind == "application/octet-stream";
        if is_file {
            form.images.push(file_place(form.images.len(), file_name.as_deref()), picture(bytes));
        } else {
            let text = String::from_utf8(bytes.to_vec()).map_err(|_| {
                ApiError::bad_request("invalid_request", "not UTF-8 (a file needs a filename)").at(&name)
            })?;
            if IMAGE_FIELDS.contains(&name.as_str()) {
                form.images.push(file_place(form.images.len(), None), decode_image(&text));
            } else {
                form.fields.push((name, text));
            }
        }
        if form.images.len() > max_items {
            let message = format!("more than {max_items} pictures in one request");
            return Err(ApiError::too_large(message).at("image"));
        }
        if form.fields.len() > MOST_FIELDS {
            return Err(ApiError::too_large(format!("more than {MOST_FIELDS} fields")));
        }
    }
    Ok(form)
}

fn malformed(error: multer::Error) -> ApiError {
    ApiError::bad_request("malformed_form", format!("the multipart/form-data body cannot be read: {error}"))
}
