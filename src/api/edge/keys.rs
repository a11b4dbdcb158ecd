//! API keys: only their digests are kept, and comparing takes the same time whatever is wrong.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{Error, Result};

/// A key, for clients that cannot set `Authorization`.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Longest name of a key.
const LONGEST_NAME: usize = 64;

/// The keys that are let in. Clones share what is read anew.
#[derive(Clone, Default)]
pub struct ApiKeys {
    given: Vec<Key>,
    file: Option<PathBuf>,
    current: Arc<RwLock<Arc<Vec<Key>>>>,
}

#[derive(Clone)]
struct Key {
    name: Arc<str>,
    digest: [u8; 32],
}

impl ApiKeys {
    /// Keeps the SHA-256 of each key; they are named by their place.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let given: Vec<Key> =
            keys.into_iter().zip(1..).map(|(key, place)| Key::new(&format!("key-{place}"), key)).collect();
        let current = Arc::new(RwLock::new(Arc::new(given.clone())));
        Self { given, file: None, current }
    }

    /// The keys that were given and those of a file: one on each line, `name:key` or `key`; empty lines and lines that
    /// begin with `#` are skipped.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Config`] if it holds no key or one that no header can carry.
    pub fn with_file<'a>(given: impl IntoIterator<Item = &'a str>, file: &Path) -> Result<Self> {
        let keys = Self { file: Some(file.to_owned()), ..Self::new(given) };
        keys.reload()?;
        Ok(keys)
    }

    /// Reads the file again, where there is one.
    ///
    /// # Errors
    /// As [`Self::with_file`]; the keys from before stay.
    pub fn reload(&self) -> Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let wrong = |what: &str| Error::Config(format!("--api-key-file {}: {what}", path.display()));
        let mut keys = self.given.clone();
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        for (line, number) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
            let key = match line.split_once(':') {
                Some((name, key)) if is_name(name) && !key.trim().is_empty() => {
                    Key::new(name, check(key.trim())?)
                }
                _ => Key::new(&format!("line-{number}"), check(line)?),
            };
            keys.push(key);
        }
        if keys.len() == self.given.len() {
            // Otherwise a file that was emptied by mistake would open the service to everyone.
            return Err(wrong("there is no key in it"));
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// The file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether no key is asked for.
    pub fn is_empty(&self) -> bool {
        self.current().is_empty()
    }

    /// Whether `key` is one of them.
    pub fn contains(&self, key: &str) -> bool {
        self.name(key).is_some()
    }

    /// The name of `key`, if it is one of them. Every digest is compared, whichever matches.
    pub fn name(&self, key: &str) -> Option<Arc<str>> {
        let keys = self.current();
        if keys.is_empty() {
            return None;
        }
        let shown = digest(key);
        keys.iter().fold(None, |found, known| {
            if bool::from(known.digest.ct_eq(&shown)) { Some(Arc::clone(&known.name)) } else { found }
        })
    }

    fn current(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Key {
    fn new(name: &str, key: &str) -> Self {
        Self { name: name.into(), digest: digest(key) }
    }
}

/// A key that a header can carry.
///
/// # Errors
/// [`Error::Config`] if it cannot.
pub fn check(key: &str) -> Result<&str> {
    match key.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(key),
        false => Err(Error::Config("an API key has characters that no header can carry".to_owned())),
    }
}

/// Whether it is short and plain enough to stand in a log; what it is not is part of a key.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(plain)
}

/// The key that a request shows: in `Authorization: Bearer`, or in `X-API-Key`.
pub fn shown(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| headers.get(API_KEY).and_then(|value| value.to_str().ok()))
}

/// Where the clients of a dialect put their key, beside the usual places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a header of another name.
    Header(&'static str),
    /// As the password of `Authorization: Basic`: for clients that can be given an address with a name and a password, and
    /// nothing else.
    Password,
    /// In a parameter of the query.
    Query(&'static str),
}

impl KeyPlace {
    fn shown(self, request: &Request) -> Option<Cow<'_, str>> {
        match self {
            Self::Header(name) => request.headers().get(name)?.to_str().ok().map(Cow::Borrowed),
            Self::Password => {
                let (scheme, encoded) =
                    request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
                if !scheme.eq_ignore_ascii_case("basic") {
                    return None;
                }
                let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
                pair.split_once(':').map(|(_, password)| Cow::Owned(password.to_owned()))
            }
            Self::Query(name) => {
                let query = request.uri().query()?.as_bytes();
                form_urlencoded::parse(query).find(|(key, _)| key == name).map(|(_, value)| value)
            }
        }
    }
}

/// The key that a request shows: in the usual places, or where the clients of its route put it.
pub fn shown_by(request: &Request) -> Option<Cow<'_, str>> {
    let usual = shown(request.headers()).map(Cow::Borrowed);
    usual.or_else(|| request.extensions().get::<KeyPlace>().and_then(|place| place.shown(request)))
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.current().len())
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_the_keys_and_nothing_else() {
        let keys = ApiKeys::new(["alpha", "beta"]);
        assert!(keys.contains("alpha") && keys.contains("beta"));
        assert!(!keys.contains("") && !keys.contains("alph") && !keys.contains("alphaa"));
        assert!(!ApiKeys::default().contains(""));
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
        assert_eq!(keys.name("beta").as_deref(), Some("key-2"));
    }

    #[test]
    fn a_key_is_found_where_the_clients_of_a_route_put_it() {
        let shown = |place: KeyPlace, header: (&str, &str), path: &str| {
            let mut request =
                Request::get(path).header(header.0, header.1).body(axum::body::Body::empty()).unwrap();
            request.extensions_mut().insert(place);
            shown_by(&request).map(Cow::into_owned)
        };
        let found = |key: &str| Some(key.to_owned());
        // `user:a:b`
        let basic = ("authorization", "basic dXNlcjphOmI=");
        assert_eq!(shown(KeyPlace::Password, basic, "/"), found("a:b"));
        assert_eq!(shown(KeyPlace::Query("api_key"), basic, "/?x=1&api_key=a%2Bb"), found("a+b"));
        assert_eq!(shown(KeyPlace::Header("api-key"), ("api-key", "k"), "/"), found("k"));
        assert_eq!(shown(KeyPlace::Header("api-key"), ("authorization", "Bearer b"), "/"), found("b"));
        for value in ["Basic", "Basic ?", "Basic dXNlcg==", "Basic /w=="] {
            assert_eq!(shown(KeyPlace::Password, ("authorization", value), "/"), None, "{value}");
        }
    }

    #[test]
    fn keys_of_a_file_have_names_and_change_with_it() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let write = |text: &str| std::fs::write(file.path(), text).expect("written");
        write("# people\nanna:one\n\n two \nhttp://x:three\n");
        let keys = ApiKeys::with_file(["zero"], file.path()).expect("keys");
        let name = |key: &str| keys.name(key).map(|name| name.to_string());
        assert_eq!(name("one").as_deref(), Some("anna"));
        assert_eq!(name("two").as_deref(), Some("line-4"));
        assert_eq!(name("zero").as_deref(), Some("key-1"));
        assert!(name("anna:one").is_none() && name("three").is_none());
        assert_eq!(name("//x:three").as_deref(), Some("http"), "the name ends at the first colon");
        let clone = keys.clone();
        write("bert:four\n");
        keys.reload().expect("keys");
        assert!(clone.contains("four") && clone.contains("zero") && !clone.contains("one"));
        for nothing in ["", "# all gone\n", "k\u{e4}y\n"] {
            write(nothing);
            assert!(keys.reload().is_err() && clone.contains("four"), "{nothing:?}");
        }
    }
}
