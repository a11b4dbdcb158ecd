//! Routes of other services, so that their clients work unchanged. Each dialect is one file: schema, translation to domain
//! inputs, the shape of its errors and answers. Everything else is what our own routes have.
//!
//! None of these routes is part of `openapi.yaml`; `/docs` lists them. To add one: a file here, and a line in [`ALL`].

mod clip_as_service;
mod cohere;
mod common;
mod huggingface;
mod immich;
mod kserve;
mod ollama;
pub mod openai;
mod parts;
mod roboflow;
mod tei;
mod vertex;
mod voyage;
mod weaviate;

use std::fmt;
use std::str::FromStr;

use axum::Router;
use axum::http::Method;
use axum::routing::MethodRouter;
use serde::de::DeserializeOwned;

pub use common::Truncate;
pub use immich::Upstream as ImmichUpstream;

use crate::api::edge::error::quoted;
use crate::api::edge::keys::KeyPlace;
use crate::api::edge::render::{ErrorShape, Style, Styles};
use crate::api::read::parse_json;
use crate::api::state::AppState;

/// Every dialect.
static ALL: [&Dialect; 12] = [
    &openai::DIALECT,
    &tei::DIALECT,
    &huggingface::DIALECT,
    &cohere::DIALECT,
    &voyage::DIALECT,
    &weaviate::DIALECT,
    &immich::DIALECT,
    &ollama::DIALECT,
    &kserve::DIALECT,
    &vertex::DIALECT,
    &roboflow::DIALECT,
    &clip_as_service::DIALECT,
];

/// The routes of another service.
pub struct Dialect {
    /// What `--dialects` calls it.
    pub name: &'static str,
    /// Whose routes these are, in a few words.
    pub about: &'static str,
    /// The routes.
    pub routes: &'static [Route],
    /// Beginnings of paths that are its own: what is no route below them is refused in its shape, too.
    pub below: &'static [&'static str],
    /// Routes of our own that its clients call, too, by POST: their errors have its shape.
    pub shares: &'static [&'static str],
    /// The shape of its errors.
    pub shape: ErrorShape,
    /// Where its clients put their key, beside `Authorization: Bearer` and `X-API-Key`.
    pub key: Option<KeyPlace>,
    /// Parses a body as its routes do, for the fuzz targets.
    pub parse: fn(&[u8]),
    /// A few lines for `/docs`.
    pub example: &'static str,
}

/// Parses a body as a request, and forgets it.
fn parses<T: DeserializeOwned>(data: &[u8]) {
    let _ = parse_json::<T>(data);
}

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET.
    Get,
    /// POST.
    Post,
}

impl Verb {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }

    fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
        }
    }
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever has a key, where keys are asked for. Not taken while the service stops.
    Work,
    /// Everybody: how the service is.
    Open,
}

/// A route of a dialect.
pub struct Route {
    /// Its method.
    pub verb: Verb,
    /// Its path, as the router writes it.
    pub path: &'static str,
    /// Who may ask.
    pub access: Access,
    /// Its handler.
    pub handler: fn() -> MethodRouter<AppState>,
}

impl Route {
    /// A route that works, by POST.
    const fn post(path: &'static str, handler: fn() -> MethodRouter<AppState>) -> Self {
        Self { verb: Verb::Post, path, access: Access::Work, handler }
    }

    /// A route that looks something up.
    const fn get(path: &'static str, handler: fn() -> MethodRouter<AppState>) -> Self {
        Self { verb: Verb::Get, path, access: Access::Work, handler }
    }

    /// A route that says how the service is.
    const fn open(path: &'static str, handler: fn() -> MethodRouter<AppState>) -> Self {
        Self { verb: Verb::Get, path, access: Access::Open, handler }
    }
}

/// The dialects that are served.
#[derive(Clone)]
pub struct Dialects(Vec<&'static Dialect>);

impl Default for Dialects {
    /// All of them.
    fn default() -> Self {
        Self(ALL.to_vec())
    }
}

impl fmt::Debug for Dialects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|dialect| dialect.name)).finish()
    }
}

impl FromStr for Dialects {
    type Err = String;

    /// `all`, `none`, or names with commas.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "all" => return Ok(Self::default()),
            "none" => return Ok(Self(Vec::new())),
            _ => {}
        }
        let wanted: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if let Some(unknown) = wanted.iter().find(|name| !ALL.iter().any(|known| known.name == **name)) {
            let known: Vec<&str> = ALL.iter().map(|dialect| dialect.name).collect();
            return Err(format!("{} is none of all, none, {}", quoted(unknown), known.join(", ")));
        }
        if wanted.is_empty() {
            return Err("give all, none, or names".to_owned());
        }
        Ok(Self(ALL.iter().copied().filter(|dialect| wanted.contains(&dialect.name)).collect()))
    }
}

impl Dialects {
    /// Those that are served.
    pub fn iter(&self) -> impl Iterator<Item = &'static Dialect> {
        self.0.iter().copied()
    }

    /// Whether the dialect of that name is served.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|dialect| dialect.name == name)
    }

    /// The routes that work.
    pub(super) fn work(&self) -> Router<AppState> {
        self.router(Access::Work)
    }

    /// The routes that are open to everybody.
    pub(super) fn open(&self) -> Router<AppState> {
        self.router(Access::Open)
    }

    fn router(&self, access: Access) -> Router<AppState> {
        let routes = self.0.iter().flat_map(|dialect| dialect.routes).filter(|route| route.access == access);
        routes.fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
    }

    /// Says how each route writes errors, and where its clients put their keys.
    pub(super) fn style(&self, styles: &mut Styles) {
        for dialect in &self.0 {
            let style = Style { shape: dialect.shape, key: dialect.key };
            for route in dialect.routes {
                styles.route(route.verb.method(), route.path, style);
            }
            for path in dialect.shares {
                styles.route(Method::POST, path, style);
            }
            for beginning in dialect.below {
                styles.below(beginning, style);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_are_chosen_by_name() {
        let parsed = |text: &str| text.parse::<Dialects>();
        assert_eq!(parsed("all").unwrap().iter().count(), ALL.len());
        assert_eq!(parsed("none").unwrap().iter().count(), 0);
        assert_eq!(format!("{:?}", parsed(" cohere, tei,").unwrap()), r#"["tei", "cohere"]"#);
        assert!(parsed("cohere,coher").unwrap_err().starts_with("\"coher\" is none of all, none, openai"));
        assert!(parsed("").is_err());
    }

    #[test]
    fn each_dialect_is_described() {
        for dialect in ALL {
            assert!(dialect.example.lines().count() <= 5, "{}", dialect.name);
            assert!(!dialect.routes.is_empty() && !dialect.about.is_empty());
            assert_eq!(ALL.iter().filter(|other| other.name == dialect.name).count(), 1);
        }
        // Two dialects at one path would be a panic of the router.
        let _ = (Dialects::default().work(), Dialects::default().open());
    }
}
