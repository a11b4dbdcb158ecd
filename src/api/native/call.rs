//! What every route that embeds begins with.

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;

use crate::api::edge::body::RawBody;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::{Format, negotiate};
use crate::api::native::work::{self, Batch, Embedded, WorkOptions};
use crate::api::state::{AppState, RequestContext};
use crate::engine::{EngineError, ModelHandle, ScoreOptions};

/// A request as the middleware let it through, its body read within bounds.
pub struct Call {
    /// What every handler shares.
    pub state: AppState,
    /// Its body.
    pub body: RawBody,
    /// What follows the `?` of its address.
    pub query: Option<String>,
    context: RequestContext,
    headers: HeaderMap,
}

impl Call {
    /// In which of `formats` the client wants its answer.
    ///
    /// # Errors
    /// 406 if it wants none of them.
    pub fn format(&self, formats: &[Format]) -> ApiResult<Format> {
        negotiate(&self.headers, formats)
    }

    /// How scores are asked for on behalf of this request.
    pub fn score_options(&self) -> ScoreOptions {
        ScoreOptions { deadline: Some(self.context.deadline), client: self.context.client }
    }

    /// An error of the engine as this request's.
    pub fn engine_error(&self, error: EngineError) -> ApiError {
        match error {
            // The engine knows what was left of the time; the caller, what it was.
            EngineError::Deadline(_) => self.context.late(),
            error => error.into(),
        }
    }

    /// See [`work::embed`].
    pub async fn embed(
        &self,
        model: &ModelHandle,
        batch: Batch,
        options: WorkOptions,
    ) -> ApiResult<Embedded> {
        work::embed(&self.state, &self.context, model, batch, options).await
    }
}

impl FromRequest<AppState> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let context = request.extensions().get::<RequestContext>().cloned();
        let context = context.ok_or_else(|| ApiError::internal("the request was not observed"))?;
        let (headers, query) = (request.headers().clone(), request.uri().query().map(str::to_owned));
        let body = RawBody::from_request(request, state).await?;
        Ok(Self { state: state.clone(), body, query, context, headers })
    }
}
