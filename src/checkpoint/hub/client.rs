//! Requests to the hub: what a repository holds, what a file is, and its bytes.
//!
//! hf-hub 0.5 names the cache's folders for us, but its transfers are not used: it has no offline
//! mode, no timeouts, does not look whether a server honoured `Range` before it appends to a
//! partial file, and never compares the size or the hash of what it got.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::thread::sleep;

use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::options::HubOptions;
use super::progress::Progress;
use crate::checkpoint::{CheckpointError, weights_file};

/// Redirects within the hub (a renamed repository) that are followed for a file's headers.
const REDIRECTS: usize = 5;

/// Largest answer to a question about a repository.
const ANSWER: u64 = 16 << 20;

/// A repository at one commit.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What the hub says about a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The name of its content, and of its blob in the cache.
    pub(super) etag: String,
    pub(super) size: u64,
}

/// A client of one hub.
pub(super) struct Client<'a> {
    options: &'a HubOptions,
    id: &'a str,
    agent: Agent,
}

/// Why a request failed: for good, or perhaps only now.
enum Failure {
    Final(CheckpointError),
    Passing(String),
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Self::Final(error)
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a HubOptions, id: &'a str) -> Result<Self, CheckpointError> {
        let timeout = Some(options.timeout);
        let mut tls = TlsConfig::builder();
        if let Some(file) = &options.certificates {
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(file)?));
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects_will_error(false)
            // The token is the hub's: storage hosts have the right to read in their URLs.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .accept_encoding("identity")
            .user_agent(concat!("siglip-server/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { options, id, agent })
    }

    /// The commit that a revision means, and the names of all files.
    pub(super) fn repository(&self, revision: &str) -> Result<Repository, CheckpointError> {
        let revision_part = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision_part}", self.options.endpoint, self.id);
        self.retry(&url, || {
            let response = self.get(&url, None)?;
            self.check(&url, &response, Some(revision))?;
            let mut text = Vec::new();
            let read = response.into_body().into_reader().take(ANSWER).read_to_end(&mut text);
            read.map_err(|error| Failure::Passing(error.to_string()))?;
            let odd = |reason: &str| reply(&url, reason);
            let value: Value = serde_json::from_slice(&text).map_err(|error| odd(&error.to_string()))?;
            let commit = value["sha"].as_str().filter(|sha| is_plain(sha)).ok_or_else(|| odd("no sha"))?;
            let files = value["siblings"].as_array().ok_or_else(|| odd("no siblings"))?;
            let files = files.iter().filter_map(|file| file["rfilename"].as_str().map(str::to_string));
            Ok(Repository { commit: commit.to_string(), files: files.collect() })
        })
    }

    /// What the hub says about a file at a commit; `None` if it is not there.
    pub(super) fn metadata(&self, commit: &str, file: &str) -> Result<Option<Metadata>, CheckpointError> {
        let first = self.file_url(commit, file);
        self.retry(&first, || {
            let mut url = first.clone();
            for _ in 0..REDIRECTS {
                let mut request = self.agent.head(&url).config().max_redirects(0).build();
                if let Some(token) = &self.options.token {
                    request = request.header("Authorization", format!("Bearer {token}"));
                }
                let response = request.call().map_err(|error| passing(&error))?;
                if response.status() == StatusCode::NOT_FOUND
                    && header(response.headers(), "x-error-code") == Some("EntryNotFound")
                {
                    return Ok(None);
                }
                // A redirect within the hub is to another name of the file; one to another host is to
                // the storage, and says itself what it leads to.
                let redirect = response.status().is_redirection();
                if redirect
                    && let Some(location) = header(response.headers(), "location")
                    && location.starts_with('/')
                {
                    url = format!("{}{location}", origin(&self.options.endpoint));
                    continue;
                }
                if !redirect {
                    self.check(&url, &response, None)?;
                }
                return metadata_of(&url, response.headers(), redirect).map(Some).map_err(Failure::Final);
            }
            Err(Failure::Final(reply(&first, "too many redirects")))
        })
    }

    /// The names of the tensors in a safetensors file, of which no more than the header is transferred.
    pub(super) fn tensors(&self, commit: &str, file: &str) -> Result<Option<Vec<String>>, CheckpointError> {
        let url = self.file_url(commit, file);
        self.retry(&url, || {
            let response = self.get(&url, None)?;
            self.check(&url, &response, None)?;
            let header = weights_file::header(response.into_body().into_reader());
            let header = header.map_err(|error| Failure::Passing(error.to_string()))?;
            Ok(header.map(|header| weights_file::names_of(&header)))
        })
    }

    /// Downloads a file to `target`, going on where a broken transfer stopped, and checks what came.
    pub(super) fn download(
        &self,
        commit: &str,
        file: &str,
        metadata: &Metadata,
        target: &Path,
    ) -> Result<(), CheckpointError> {
        let url = self.file_url(commit, file);
        let mut progress = Progress::new(&format!("{}/{file}", self.id), metadata.size, self.options);
        let mut failures = 0;
        loop {
            let before = target.metadata().map_or(0, |data| data.len());
            let failure = match self.transfer(&url, metadata, target, &mut progress) {
                Ok(()) => break,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => reason,
            };
            // A transfer that moved something was worth it, however often it breaks.
            let moved = target.metadata().map_or(0, |data| data.len()) > before;
            failures = if moved { 1 } else { failures + 1 };
            if failures >= self.options.attempts {
                return Err(CheckpointError::Transfer { url, attempts: failures, reason: failure });
            }
            sleep(self.pause(failures));
        }
        progress.done();
        self.verify(&url, metadata, target)
    }

    fn transfer(
        &self,
        url: &str,
        metadata: &Metadata,
        target: &Path,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut start = target.metadata().map_or(0, |data| data.len());
        if start > metadata.size {
            std::fs::remove_file(target).map_err(|error| write_error(target, metadata, error))?;
            start = 0;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(target)
            .map_err(|error| write_error(target, metadata, error))?;
        if start == metadata.size {
            return Ok(());
        }
        let response = self.get(url, (start > 0).then_some(start))?;
        self.check(url, &response, None)?;
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT
            && header(response.headers(), "content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
        if start > 0 && !resumed {
            // The server sends everything again: what is there would be doubled.
            file.set_len(0).map_err(|error| write_error(target, metadata, error))?;
            start = 0;
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 17];
        let mut position = start;
        while position < metadata.size {
            let read = match body.read(&mut buffer) {
                Ok(0) => {
                    return Err(Failure::Passing(format!(
                        "it ended after {position} of {} bytes",
                        metadata.size
                    )));
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Passing(format!("after {position} bytes: {error}"))),
            };
            file.write_all(&buffer[..read]).map_err(|error| write_error(target, metadata, error))?;
            position += read as u64;
            progress.at(position);
        }
        file.sync_all().map_err(|error| write_error(target, metadata, error))?;
        Ok(())
    }

    /// Size and content: the hub names large files by their SHA-256, the others by the SHA-1 of their git blob (some
    /// mirrors, by that of the bytes). What is wrong is deleted, so that the next attempt does not go on from it.
    fn verify(&self, url: &str, metadata: &Metadata, target: &Path) -> Result<(), CheckpointError> {
        let mut problem = None;
        let size = target.metadata().map_or(0, |data| data.len());
        if size != metadata.size {
            problem = Some((format!("{} bytes", metadata.size), format!("{size} bytes")));
        } else if metadata.etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let hash = |header: &[u8]| match metadata.etag.len() {
                64 => digest::<Sha256>(target, header).map(Some),
                40 => digest::<Sha1>(target, header).map(Some),
                _ => Ok(None),
            };
            let failed = |error| write_error(target, metadata, error);
            let wrong = |found: &Option<String>| {
                found.as_ref().is_some_and(|found| !found.eq_ignore_ascii_case(&metadata.etag))
            };
            let header = if metadata.etag.len() == 40 { format!("blob {size}\0") } else { String::new() };
            let found = hash(header.as_bytes()).map_err(failed)?;
            if wrong(&found) && (header.is_empty() || wrong(&hash(b"").map_err(failed)?)) {
                problem = Some((format!("hash {}", metadata.etag), found.unwrap_or_default()));
            }
        }
        let Some((expected, found)) = problem else { return Ok(()) };
        let _ = std::fs::remove_file(target);
        Err(CheckpointError::WrongDownload { url: url.to_string(), expected, found })
    }

    fn file_url(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{file}", self.options.endpoint, self.id)
    }

    fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.options.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| passing(&error))
    }

    /// What a status means. `revision` is the one asked for, where the question was about it.
    fn check(&self, url: &str, response: &Response<Body>, revision: Option<&str>) -> Result<(), Failure> {
        let status = response.status();
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let id = self.id.to_string();
        let token = self.options.token.is_some();
        Err(match (status.as_u16(), code) {
            (200..=299, _) => return Ok(()),
            (404, "RevisionNotFound") => {
                CheckpointError::NoSuchRevision { id, revision: revision.unwrap_or_default().to_string() }
                    .into()
            }
            (401 | 403, _) => CheckpointError::AccessDenied { id, status: status.as_u16(), token }.into(),
            (404, _) if revision.is_some() => CheckpointError::NoSuchRepository { id }.into(),
            (408 | 425 | 429 | 500..=599, _) => Failure::Passing(format!("status {status}")),
            _ => reply(url, &format!("status {status}")).into(),
        })
    }

    fn pause(&self, failures: u32) -> std::time::Duration {
        self.options.backoff * 2u32.pow(failures.saturating_sub(1).min(6))
    }

    fn retry<T>(&self, url: &str, ask: impl Fn() -> Result<T, Failure>) -> Result<T, CheckpointError> {
        let mut failures = 0;
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => {
                    failures += 1;
                    // A question costs little: fewer attempts than for a transfer of gigabytes.
                    if failures >= self.options.attempts.min(3) {
                        let url = url.to_string();
                        return Err(CheckpointError::Transfer { url, attempts: failures, reason });
                    }
                    sleep(self.pause(failures));
                }
            }
        }
    }
}

/// Whether a word from the hub may become a file's name.
pub(super) fn is_plain(word: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !word.is_empty() && word.len() <= 200 && !word.starts_with('.') && word.bytes().all(known)
}

fn metadata_of(url: &str, headers: &HeaderMap, redirect: bool) -> Result<Metadata, CheckpointError> {
    let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string());
    let etag = etag.filter(|etag| is_plain(etag)).ok_or_else(|| reply(url, "no etag that names a file"))?;
    // The length of a redirect is that of its own body.
    let own = if redirect { None } else { header(headers, "content-length") };
    let size = header(headers, "x-linked-size").or(own);
    let size = size.and_then(|size| size.parse().ok()).ok_or_else(|| reply(url, "no size"))?;
    Ok(Metadata { etag, size })
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Scheme and host of a URL.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..].find('/').map_or(url, |end| &url[..start + end])
}

fn reply(url: &str, reason: &str) -> CheckpointError {
    CheckpointError::OddReply { url: url.to_string(), reason: reason.to_string() }
}

fn passing(error: &ureq::Error) -> Failure {
    Failure::Passing(error.to_string())
}

fn write_error(target: &Path, metadata: &Metadata, source: std::io::Error) -> CheckpointError {
    let file = target.display().to_string();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            CheckpointError::DiskFull { file, needed: metadata.size }
        }
        _ => CheckpointError::Write { file, source },
    }
}

/// The hash of some bytes and a file after them, in hex.
fn digest<H: Digest>(path: &Path, header: &[u8]) -> std::io::Result<String> {
    let mut hash = H::new();
    hash.update(header);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The certificates of a PEM file.
/// The certificates in a file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, CheckpointError> {
    let file = path.display().to_string();
    let pem = std::fs::read(path).map_err(|source| CheckpointError::Read { file: file.clone(), source })?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let reason = "no certificate in it (SSL_CERT_FILE names it)".to_string();
        return Err(CheckpointError::Header { file, format: "PEM", reason });
    }
    Ok(certificates)
}
