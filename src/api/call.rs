//! A request as every route that embeds gets it: its head is checked, its body not read yet.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use bytes::Bytes;

use crate::api::edge::body::{self, off_runtime};
use crate::api::edge::error::{ApiError, ApiResult, quoted, shortened};
use crate::api::edge::keys::shown;
use crate::api::edge::negotiate::{Format, negotiate};
use crate::api::read::{Form, JsonBody, Options, options_of, parse_json, parsed_bound};
use crate::api::state::{AppState, RequestContext};
use crate::budget::{Charge, MemoryBudget, MemoryKind};
use crate::engine::{EngineError, ModelHandle, ScoreOptions};
use crate::labels::Condition;

/// The embedding space that the client's index is of; any other is refused.
pub const EXPECT_FINGERPRINT: HeaderName = HeaderName::from_static("x-siglip-expect-fingerprint");

/// A request. What costs nothing is looked at before [`Call::read`] is asked for its body.
pub struct Call {
    /// What every handler shares.
    pub state: AppState,
    /// When it came, until when, and from whom.
    pub context: RequestContext,
    /// What its body is.
    pub media: MediaType,
    query: Option<String>,
    headers: HeaderMap,
}

/// What a body says that it is.
pub struct MediaType {
    /// The media type without parameters, lower case; empty without the header.
    pub kind: String,
    /// The whole `Content-Type` header; empty without it.
    pub header: String,
}

impl MediaType {
    fn of(headers: &HeaderMap) -> ApiResult<Self> {
        let header = match headers.get(header::CONTENT_TYPE) {
            None => "",
            Some(value) => value.to_str().map_err(|_| {
                ApiError::bad_request("invalid_header", "not visible ASCII").at("Content-Type")
            })?,
        };
        let kind = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Ok(Self { kind, header: header.to_owned() })
    }

    /// Whether it is JSON, or says nothing of what it is.
    pub fn is_json(&self) -> bool {
        let kind = self.kind.as_str();
        kind.is_empty()
            || kind == "application/json"
            || (kind.starts_with("application/") && kind.ends_with("+json"))
    }

    /// Whether it is a form.
    pub fn is_form(&self) -> bool {
        self.kind == "multipart/form-data"
    }

    /// Whether it is what curl says when it is told nothing.
    pub fn is_curls_default(&self) -> bool {
        self.kind == "application/x-www-form-urlencoded"
    }

    /// 415: a route that reads `wanted` got this body. `hint` says what to do where curl's default was sent.
    pub fn unsupported(&self, wanted: &str, hint: &str) -> ApiError {
        let hint = if self.is_curls_default() {
            format!(" (curl sends that by default: {hint})")
        } else {
            String::new()
        };
        let message = format!("this route reads {wanted}, not {}{hint}", quoted(&self.kind));
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
            .at("Content-Type")
    }
}

impl Call {
    /// In which of `formats` the client wants its answer.
    ///
    /// # Errors
    /// 406 if it wants none of them.
    pub fn format(&self, formats: &[Format]) -> ApiResult<Format> {
        negotiate(&self.headers, formats)
    }

    /// The options in the query.
    ///
    /// # Errors
    /// 400 for a parameter that the route does not have.
    pub fn query<T: Options>(&self) -> ApiResult<T> {
        options_of(form_urlencoded::parse(self.query.as_deref().unwrap_or_default().as_bytes()))
    }

    /// The model of that name; the service's first for `None`.
    ///
    /// # Errors
    /// 404 with the names there are.
    pub fn model(&self, name: Option<&str>) -> ApiResult<ModelHandle> {
        // No model has a name that is too long for a message.
        let name = name.map(|name| shortened(name, 200));
        Ok(self.state.engine().model(name.as_deref())?)
    }

    /// Reads the body, within bounds of its length, of the memory of all requests, and of time.
    ///
    /// # Errors
    /// 408, 413 or 429.
    pub async fn read(&self, body: Body) -> ApiResult<Bytes> {
        body::read(&self.headers, body, self.state.config(), &self.memory(), self.context.client).await
    }

    /// Parses a body as JSON and hands it on with the memory that it holds. Not on the runtime where it is large; the body
    /// is released before `next` is called.
    ///
    /// # Errors
    /// 400 where it is not what the route wants, 413 and 429 without room, and those of `next`.
    pub async fn json<T: JsonBody, R: Send + 'static>(
        &self,
        body: Bytes,
        next: impl FnOnce(T, Charge) -> ApiResult<R> + Send + 'static,
    ) -> ApiResult<R> {
        let mut memory = self.charge(MemoryKind::Parsed, T::bound(&body))?;
        off_runtime(body.len(), move || {
            let request: T = parse_json(&body)?;
            drop(body);
            // What was parsed may be small, and become more on its way to the engine.
            memory.resize(request.held())?;
            next(request, memory)
        })
        .await
    }

    /// Reads a body as a form with at most `max_items` pictures and hands on the form, its fields as options, and the memory
    /// that the options hold; the pictures are slices of the body. Not on the runtime where it is large.
    ///
    /// # Errors
    /// 400 where it is not what the route wants, 413 and 429 without room, and those of `next`.
    pub async fn form<T: Options, R: Send + 'static>(
        &self,
        body: Bytes,
        next: impl FnOnce(Form, T, Charge) -> ApiResult<R> + Send + 'static,
    ) -> ApiResult<R> {
        self.parts(body, |form, mut memory| {
            let options: T = form.options()?;
            memory.shrink(memory.bytes().saturating_sub(options.heap()));
            next(form, options, memory)
        })
        .await
    }

    /// Reads a body as a form, whose fields the route looks at itself. The memory is what they may become at most.
    ///
    /// # Errors
    /// As [`Self::form`].
    pub async fn parts<R: Send + 'static>(
        &self,
        body: Bytes,
        next: impl FnOnce(Form, Charge) -> ApiResult<R> + Send + 'static,
    ) -> ApiResult<R> {
        let memory = self.charge(MemoryKind::Parsed, parsed_bound(body.len()))?;
        let (content_type, most) = (self.media.header.clone(), self.state.config().max_items);
        off_runtime(body.len(), move || next(Form::read(body, &content_type, most)?, memory)).await
    }

    /// Whether the request announces a body.
    pub fn has_body(&self) -> bool {
        let length = self.headers.get(header::CONTENT_LENGTH);
        length.is_some_and(|length| length != "0") || self.headers.contains_key(header::TRANSFER_ENCODING)
    }

    /// The name of the key that the request shows in the usual places, where keys are asked for.
    pub fn key_name(&self) -> Option<Arc<str>> {
        shown(&self.headers).and_then(|key| self.state.config().api_keys.name(key))
    }

    /// A header of the request, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the client takes the resource for that it changes: `If-Match` with versions, or `If-None-Match: *`.
    ///
    /// # Errors
    /// 400 for both, or for versions in `If-None-Match`.
    pub fn condition(&self) -> ApiResult<Condition> {
        let tags = |name: &HeaderName| -> Vec<String> {
            let values = self.headers.get_all(name).iter();
            values
                .flat_map(|value| value.to_str().unwrap_or_default().split(','))
                .map(|tag| tag.trim().trim_matches('"').to_owned())
                .collect()
        };
        let (matches, absent) = (tags(&header::IF_MATCH), tags(&header::IF_NONE_MATCH));
        let wrong = |message: &str| Err(ApiError::bad_request("invalid_header", message).at("If-None-Match"));
        match (matches.is_empty(), absent.as_slice()) {
            (true, []) => Ok(Condition::Any),
            (false, []) => Ok(Condition::Match(matches)),
            (true, [tag]) if tag == "*" => Ok(Condition::Absent),
            (true, _) => wrong("only * is understood: the label set must not exist"),
            (false, _) => wrong("send either If-Match or If-None-Match"),
        }
    }

    /// How scores are asked for on behalf of this request.
    pub fn score_options(&self) -> ScoreOptions {
        let RequestContext { deadline, client, tally, .. } = &self.context;
        ScoreOptions { deadline: Some(*deadline), client: *client, tally: Some(tally.clone()) }
    }

    /// The memory of all requests, for the charges of this one.
    pub fn memory(&self) -> MemoryBudget {
        self.state.memory().of_request(&self.context.tally)
    }

    /// An error of the engine as this request's.
    pub fn engine_error(&self, error: EngineError) -> ApiError {
        match error {
            // The engine knows what was left of the time; the caller, what it was.
            EngineError::Deadline(_) => self.context.late(),
            error => error.into(),
        }
    }

    /// Charges the client for memory.
    ///
    /// # Errors
    /// 413 where it can never fit with what the request holds already, 429 where there is no room now.
    pub fn charge(&self, kind: MemoryKind, bytes: usize) -> ApiResult<Charge> {
        Ok(self.memory().charge(self.context.client, kind, bytes)?)
    }

    /// Checks the client's precondition: `x-siglip-expect-fingerprint`, or `If-Match` unless that is about something else.
    ///
    /// # Errors
    /// 412 if it expects another embedding space than `fingerprint`.
    pub fn expects(&self, fingerprint: &str, if_match_is_taken: bool) -> ApiResult<()> {
        let if_match = (!if_match_is_taken).then_some(header::IF_MATCH);
        for name in [EXPECT_FINGERPRINT].into_iter().chain(if_match) {
            let mut given = self.headers.get_all(&name).iter().peekable();
            if given.peek().is_none() {
                continue;
            }
            let tags: Vec<&str> = given
                .flat_map(|value| value.to_str().unwrap_or_default().split(','))
                .map(str::trim)
                .collect();
            let matches = |tag: &&str| *tag == "*" || tag.trim_matches('"') == fingerprint;
            if !tags.iter().any(matches) {
                let message = format!(
                    "the vectors would be of the embedding space {fingerprint}, not of {}",
                    quoted(tags.join(", ").trim_matches('"'))
                );
                let error = ApiError::new(StatusCode::PRECONDITION_FAILED, "fingerprint_mismatch", message);
                return Err(error.at(name.as_str()));
            }
        }
        Ok(())
    }
}

impl FromRequestParts<AppState> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let context = parts.extensions.get::<RequestContext>().cloned();
        let context = context.ok_or_else(|| ApiError::internal("the request was not observed"))?;
        let media = MediaType::of(&parts.headers)?;
        let query = parts.uri.query().map(str::to_owned);
        Ok(Self { state: state.clone(), context, media, query, headers: parts.headers.clone() })
    }
}
