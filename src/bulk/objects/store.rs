//! Buckets and containers: what is in them, and the bytes of it.

use std::collections::{HashMap, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Location;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::Runtime;

use super::http::{ANSWER, Connector, Refused};
use crate::bulk::fault::{Fault, Kind};
use crate::bulk::inputs::{Content, FileEntry, FindOptions, Found, Globs, taken_from_store};
use crate::bulk::stored::Stored;

/// Bytes that are asked for at once.
const BLOCK: usize = 8 << 20;
/// Blocks of an object that are kept: a table is read at several places by turns.
const KEPT: usize = 4;
/// How often a request is tried again, and for how long.
const RETRIES: usize = 6;
const PATIENCE: Duration = Duration::from_secs(90);
/// Bytes of what a store says that are shown.
const TOLD: usize = 200;

const _: () = assert!(BLOCK < ANSWER);

/// Something in an object store, as it was when it was listed.
#[derive(Clone)]
pub struct Object {
    bucket: Arc<Bucket>,
    location: Location,
    size: u64,
    tag: Option<String>,
}

struct Bucket {
    store: Box<dyn ObjectStore>,
    /// Scheme and name, without anything that is secret.
    url: String,
    /// Why it could not be reached, once that was so: trying again later may help.
    lost: Mutex<Option<String>>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({}/{})", self.bucket.url, self.location)
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        (&self.bucket.url, &self.location, &self.tag) == (&other.bucket.url, &other.location, &other.tag)
    }
}

impl Eq for Object {}

/// Timers of the requests. Threads that ask wait in it for their answer.
fn runtime() -> std::result::Result<&'static Runtime, Fault> {
    static RUNTIME: OnceLock<Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build());
    runtime
        .as_ref()
        .map_err(|error| Fault::new(Kind::Temporary, format!("no threads for object stores: {error}")))
}

/// The bucket of a URL, with the credentials of the environment; one of each name.
fn bucket(url: &url::Url) -> std::result::Result<Arc<Bucket>, Fault> {
    static BUCKETS: OnceLock<Mutex<HashMap<String, Arc<Bucket>>>> = OnceLock::new();
    // Of abfss:// the container is where others have a user.
    let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
    let name = format!("{}://{user}{}", url.scheme(), url.host_str().unwrap_or_default());
    let mut buckets = BUCKETS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bucket) = buckets.get(&name) {
        return Ok(Arc::clone(bucket));
    }
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: PATIENCE, ..RetryConfig::default() };
    macro_rules! built {
        ($builder:ty) => {
            <$builder>::from_env()
                .with_url(url.as_str())
                .with_retry(retry)
                .with_http_connector(Connector)
                .build()
                .map(|store| Box::new(store) as Box<dyn ObjectStore>)
        };
    }
    let store = match url.scheme() {
        "s3" | "s3a" => built!(AmazonS3Builder),
        "gs" => built!(GoogleCloudStorageBuilder),
        _ => built!(MicrosoftAzureBuilder),
    };
    let store = store.map_err(|error| Fault::usage(format!("{name}: {}", told(&error))))?;
    let bucket = Arc::new(Bucket { store, url: name.clone(), lost: Mutex::default() });
    buckets.insert(name, Arc::clone(&bucket));
    Ok(bucket)
}

/// Adds what a URL names: an object, or all objects below a prefix.
pub(in crate::bulk) fn find(
    url: &str,
    alone: bool,
    globs: &Globs,
    options: &FindOptions,
    found: &mut Found,
) -> std::result::Result<(), Fault> {
    let wrong = |text: String| Fault::usage(format!("{url}: {text}"));
    let parsed = url::Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    if parsed.password().is_some() || parsed.query().is_some() {
        return Err(Fault::usage("credentials of object stores come from the environment, not from URLs"));
    }
    let bucket = bucket(&parsed)?;
    let prefix = Location::from_url_path(parsed.path()).map_err(|error| wrong(error.to_string()))?;
    runtime()?.block_on(async {
        if !prefix.as_ref().is_empty() && !url.ends_with('/') {
            match bucket.store.head(&prefix).await {
                Ok(meta) => {
                    let name = if alone { prefix.filename().unwrap_or(url) } else { url };
                    let content = Content::of(std::path::Path::new(prefix.as_ref()));
                    found.files.push(entry(&bucket, meta, name.to_owned(), content));
                    return Ok(());
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(fault(url, &error)),
            }
        }
        let mut any = false;
        let mut listed = bucket.store.list((!prefix.as_ref().is_empty()).then_some(&prefix));
        while let Some(meta) = listed.next().await {
            let meta = meta.map_err(|error| fault(url, &error))?;
            any = true;
            let relative =
                meta.location.as_ref().strip_prefix(prefix.as_ref()).unwrap_or(meta.location.as_ref());
            let relative = relative.trim_start_matches('/').to_owned();
            let name =
                if alone { relative.clone() } else { format!("{}/{relative}", url.trim_end_matches('/')) };
            match taken_from_store(&relative, globs, options) {
                Ok(content) => found.files.push(entry(&bucket, meta, name, content)),
                Err(reason) => found.left_out.add(&reason, &name),
            }
        }
        match any {
            true => Ok(()),
            false => Err(wrong("there is no such object, and none below it".to_owned())),
        }
    })
}

fn entry(bucket: &Arc<Bucket>, meta: ObjectMeta, name: String, content: Content) -> FileEntry {
    let ObjectMeta { location, last_modified, size, e_tag, .. } = meta;
    FileEntry {
        name,
        path: PathBuf::from(format!("{}/{location}", bucket.url)),
        object: Some(Object { bucket: Arc::clone(bucket), location, size, tag: e_tag }),
        size,
        mtime: last_modified.timestamp_micros(),
        content,
    }
}

impl Object {
    pub(in crate::bulk) fn open(&self) -> Result<Arc<dyn Stored>> {
        Ok(Arc::new(Blocks { object: self.clone(), kept: Mutex::default() }))
    }

    /// Why its store cannot be reached.
    pub(in crate::bulk) fn lost(&self) -> Option<String> {
        self.bucket.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn range(&self, start: u64, length: usize) -> Result<Bytes> {
        let runtime = runtime().map_err(|fault| Error::other(fault.text))?;
        let range = GetRange::Bounded(start..start + length as u64);
        let options = GetOptions { range: Some(range), if_match: self.tag.clone(), ..GetOptions::default() };
        let got = runtime
            .block_on(async { self.bucket.store.get_opts(&self.location, options).await?.bytes().await });
        got.map_err(|error| {
            let text = told(&error);
            match error {
                object_store::Error::NotFound { .. } => Error::new(ErrorKind::NotFound, text),
                object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. } => {
                    Error::new(ErrorKind::PermissionDenied, text)
                }
                object_store::Error::Precondition { .. } => Error::other(text),
                _ if is_final(&error) => Error::other(text),
                _ => {
                    let text = format!("{}: {text}", self.bucket.url);
                    *self.bucket.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.clone());
                    Error::new(ErrorKind::TimedOut, text)
                }
            }
        })
    }
}

/// An object in blocks, of which the last few are kept.
struct Blocks {
    object: Object,
    kept: Mutex<VecDeque<(u64, Bytes)>>,
}

impl Blocks {
    fn block(&self, number: u64) -> Result<Bytes> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, block)) = kept.iter().find(|(at, _)| *at == number) {
            return Ok(block.clone());
        }
        let start = number * BLOCK as u64;
        let length = (self.object.size - start).min(BLOCK as u64) as usize;
        let block = self.object.range(start, length)?;
        if block.len() != length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((number, block.clone()));
        Ok(block)
    }
}

impl Stored for Blocks {
    fn length(&self) -> u64 {
        self.object.size
    }

    fn read_at(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = self.object.size.min(start.saturating_add(length as u64));
        let mut bytes = Vec::new();
        let mut at = start;
        while at < end {
            let (number, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let block = self.block(number)?;
            let part = block.slice(within..block.len().min(within + (end - at) as usize));
            if at == start && part.len() as u64 == end - start {
                return Ok(part);
            }
            at += part.len() as u64;
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.into())
    }
}

/// An error, and what it was caused by.
fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let error: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(error), |cause| cause.source())
}

/// The status that a store answered with, where that is what is wrong.
fn status(error: &object_store::Error) -> Option<String> {
    let whole = error.to_string();
    let (_, rest) = whole.split_once("status code: ")?;
    Some(rest.split([':', '\n', '<']).next().unwrap_or_default().trim().to_owned())
}

/// Whether trying again is of no use: the request is wrong, not the store. It is when it takes too long or asks for patience.
fn is_final(error: &object_store::Error) -> bool {
    let status = status(error).and_then(|status| status.get(..3)?.parse::<u16>().ok());
    status.is_some_and(|status| (400..500).contains(&status) && !matches!(status, 408 | 429))
        || causes(error).any(|cause| cause.is::<Refused>())
}

fn fault(url: &str, error: &object_store::Error) -> Fault {
    use object_store::Error::{InvalidPath, NotFound, NotSupported, PermissionDenied, Unauthenticated};
    let kind = match error {
        NotFound { .. } | PermissionDenied { .. } | Unauthenticated { .. } => Kind::Usage,
        InvalidPath { .. } | NotSupported { .. } => Kind::Usage,
        _ if is_final(error) => Kind::Usage,
        _ => Kind::Temporary,
    };
    Fault::new(kind, format!("{url}: {}", told(error)))
}

/// What was wrong, in a few words: what a store sends back may hold parts of credentials and of signatures.
fn told(error: &object_store::Error) -> String {
    use object_store::Error::{NotFound, PermissionDenied, Precondition, Unauthenticated};
    match error {
        NotFound { .. } => return "there is no such object or bucket".to_owned(),
        PermissionDenied { .. } => return "access is denied".to_owned(),
        Unauthenticated { .. } => return "the credentials are not accepted".to_owned(),
        Precondition { .. } => return "it has changed since it was listed".to_owned(),
        _ => {}
    }
    match status(error) {
        Some(status) if status.starts_with("404") => return "there is no such object or bucket".to_owned(),
        Some(status) => return format!("the store answers {status}"),
        None => {}
    }
    // The first cause, which knows nothing of the request.
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let plain: Vec<&str> =
        line.split_whitespace().map(|word| word.split('?').next().unwrap_or_default()).collect();
    let plain = plain.join(" ");
    plain[..plain.floor_char_boundary(TOLD)].to_owned()
}
