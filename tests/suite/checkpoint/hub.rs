//! Downloads, from a server in this process that answers as the hub does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use siglip::testing::checkpoint::{Checkpoint, CheckpointError, HubOptions, ModelRef, open};
use siglip::testing::text::TextProcessor;

use crate::support::tiny::{self, Array, Family, Tiny};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MODEL: &str = "owner/tiny";

/// What the server does wrong.
#[derive(Debug, Clone, Default)]
struct Faults {
    /// Breaks each transfer of the weights after so many bytes of it.
    break_after: Option<usize>,
    /// Sends everything although a range was asked for.
    ignore_ranges: bool,
    /// Answers so many requests with status 500 first.
    errors: usize,
    /// Answers everything with this status and error code.
    status: Option<(u16, &'static str)>,
    /// Sends other weights than the hash says.
    wrong_bytes: bool,
    /// Sends other bytes of this file than the hash says.
    wrong_file: Option<&'static str>,
    /// Redirects the headers of a file to another path first, as for a renamed repository.
    renamed: bool,
    /// Accepts connections and never answers.
    silent: bool,
    /// Wants this token.
    token: Option<&'static str>,
}

/// A request, as the log keeps it: method, path, and the range asked for.
type Logged = (String, String, Option<String>);

struct Hub {
    address: String,
    log: Arc<Mutex<Vec<Logged>>>,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: Mutex<Faults>,
    log: Arc<Mutex<Vec<Logged>>>,
}

impl Hub {
    fn start(files: Vec<(String, Vec<u8>)>, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let state = Arc::new(State {
            files: files.into_iter().collect(),
            faults: Mutex::new(faults),
            log: log.clone(),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || {
                    let _ = serve(stream, &state);
                });
            }
        });
        Self { address, log }
    }

    fn options(&self, cache: &Path) -> HubOptions {
        let mut options = HubOptions::from_variables(|_| None);
        options.cache = cache.to_path_buf();
        options.endpoint = self.address.clone();
        options.progress = false;
        options.backoff = Duration::from_millis(1);
        options.timeout = Duration::from_millis(800);
        options
    }

    fn requests(&self) -> Vec<Logged> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_string);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_string());
        }
    }
    let range = headers.get("range").cloned();
    state.log.lock().unwrap().push((method.clone(), path.clone(), range.clone()));
    let faults = {
        let mut faults = state.faults.lock().unwrap();
        let now = faults.clone();
        faults.errors = faults.errors.saturating_sub(1);
        now
    };
    if faults.silent {
        std::thread::sleep(Duration::from_secs(30));
        return Ok(());
    }
    let mut answer = |status: u16, headers: &[(&str, &str)], body: &[u8]| -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if method != "HEAD" {
            stream.write_all(body)?;
        }
        stream.flush()
    };
    if faults.errors > 0 {
        return answer(500, &[], b"");
    }
    if let Some((status, code)) = faults.status {
        return answer(status, &[("X-Error-Code", code)], b"");
    }
    if let Some(token) = faults.token
        && !path.starts_with("/cdn/")
        && headers.get("authorization").map(String::as_str) != Some(&format!("Bearer {token}"))
    {
        return answer(401, &[("X-Error-Code", "GatedRepo")], b"");
    }
    if let Some(revision) = path.strip_prefix(&format!("/api/models/{MODEL}/revision/")) {
        if !["main", COMMIT].contains(&revision) {
            return answer(404, &[("X-Error-Code", "RevisionNotFound")], b"");
        }
        let siblings: Vec<_> = state.files.keys().map(|name| json!({ "rfilename": name })).collect();
        let body = json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return answer(200, &[], body.as_bytes());
    }
    if faults.renamed && method == "HEAD" && path.starts_with(&format!("/{MODEL}/")) {
        let location = path.replacen(MODEL, "owner/renamed", 1);
        return answer(307, &[("Location", &location)], b"");
    }
    let path = path.replacen("owner/renamed", MODEL, 1);
    let storage = path.starts_with("/cdn/");
    let Some(bytes) = path.split_once(&format!("{COMMIT}/")).and_then(|(_, name)| state.files.get(name))
    else {
        return answer(404, &[("X-Error-Code", "EntryNotFound")], b"");
    };
    let large = path.ends_with(".safetensors");
    let size = bytes.len().to_string();
    let etag = if large { sha256(bytes) } else { git_blob(bytes) };
    let quoted = format!("\"{etag}\"");
    if large && !storage {
        let host = headers.get("host").cloned().unwrap_or_default();
        let location = format!("http://{host}{}", path.replacen('/', "/cdn/", 1));
        return answer(
            302,
            &[
                ("Location", &location),
                ("X-Repo-Commit", COMMIT),
                ("X-Linked-Etag", &quoted),
                ("X-Linked-Size", &size),
                ("ETag", "\"of the redirect\""),
            ],
            b"",
        );
    }
    if method == "HEAD" {
        return answer(200, &[("ETag", &quoted), ("X-Repo-Commit", COMMIT), ("Content-Length", &size)], b"");
    }
    let mut bytes = bytes.clone();
    if large && faults.wrong_bytes || faults.wrong_file.is_some_and(|name| path.ends_with(name)) {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    }
    let start = range
        .filter(|_| !faults.ignore_ranges)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let from = start.unwrap_or(0);
    let length = (bytes.len() - from).to_string();
    let content_range = format!("bytes {from}-{}/{size}", bytes.len() - 1);
    let mut rest = &bytes[from..];
    if let Some(limit) = faults.break_after.filter(|limit| large && *limit < rest.len()) {
        rest = &rest[..limit];
    }
    match start {
        Some(_) => answer(206, &[("Content-Range", &content_range), ("Content-Length", &length)], rest),
        None => answer(200, &[("Content-Length", &length)], rest),
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What git, and so the hub, calls a file that is not stored by its SHA-256.
fn git_blob(bytes: &[u8]) -> String {
    hex(&Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tiny checkpoint, and beside it files that nobody needs.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = Tiny::new(Family::SigLip1).files();
    files.push(("tokenizer_config.json".into(), br#"{"tokenizer_class": "SiglipTokenizer"}"#.to_vec()));
    files.push(("pytorch_model.bin".into(), vec![0; 5000]));
    files.push(("README.md".into(), b"hello".to_vec()));
    files
}

fn reference(revision: Option<&str>) -> ModelRef {
    ModelRef::Hub { id: MODEL.into(), revision: revision.map(str::to_string) }
}

fn fetch(faults: Faults) -> (Result<Checkpoint, CheckpointError>, Hub, tempfile::TempDir) {
    let hub = Hub::start(files(), faults);
    let cache = tempfile::tempdir().unwrap();
    let result = open(&reference(None), &hub.options(cache.path()));
    (result, hub, cache)
}

fn blobs(cache: &Path) -> PathBuf {
    cache.join("models--owner--tiny/blobs")
}

#[test]
fn a_model_is_downloaded_once_into_the_shared_cache() {
    let (result, hub, cache) = fetch(Faults::default());
    let checkpoint = result.unwrap();
    assert_eq!((checkpoint.name.as_str(), checkpoint.revision.as_deref()), (MODEL, Some(COMMIT)));
    assert!(checkpoint.tokenizer.config.is_some());
    // The folders of huggingface_hub: a blob by its hash, a relative link, a reference.
    let root = cache.path().join("models--owner--tiny");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let weights = root.join("snapshots").join(COMMIT).join("model.safetensors");
    let hash = sha256(&std::fs::read(&weights).unwrap());
    #[cfg(unix)]
    assert_eq!(std::fs::read_link(&weights).unwrap(), Path::new("../../blobs").join(&hash));
    assert!(root.join("blobs").join(hash).is_file());
    let log = hub.requests();
    assert!(!log.iter().any(|(_, path, _)| path.ends_with(".bin") || path.ends_with(".md")), "{log:?}");

    // A second start asks which commit is meant, and no more.
    open(&reference(None), &hub.options(cache.path())).unwrap();
    assert_eq!(hub.requests().len(), log.len() + 1);
}

#[test]
fn a_token_that_has_run_out_does_not_keep_a_cached_model_from_starting() {
    let (result, hub, cache) = fetch(Faults::default());
    result.unwrap();
    for status in [401, 403] {
        let refusing = Hub::start(files(), Faults { status: Some((status, "")), ..Faults::default() });
        let mut options = hub.options(cache.path());
        options.endpoint.clone_from(&refusing.address);
        options.token = Some("hf_old".into());
        open(&reference(None), &options).unwrap();
        assert_eq!(refusing.requests().len(), 1);
        let empty = tempfile::tempdir().unwrap();
        options.cache = empty.path().to_path_buf();
        let error = open(&reference(None), &options).unwrap_err();
        assert!(matches!(error, CheckpointError::AccessDenied { .. }), "{error}");
    }
}

#[test]
fn small_files_are_checked_too() {
    let (result, _, cache) = fetch(Faults { wrong_file: Some("config.json"), ..Faults::default() });
    let error = result.unwrap_err();
    assert!(matches!(error, CheckpointError::WrongDownload { .. }), "{error}");
    assert!(error.to_string().contains("config.json"), "{error}");
    assert_eq!(std::fs::read_dir(blobs(cache.path())).unwrap().count(), 0);
}

/// TLS before a server that has none, with a certificate that nobody else trusts; one request a connection.
fn tls_before(server: &str, certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let (config, server) = (Arc::new(config), server.trim_start_matches("http://").to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let forward = move |stream: TcpStream| -> std::io::Result<()> {
        let connection = rustls::ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        let mut tls = rustls::StreamOwned::new(connection, stream);
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tls.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        let mut plain = TcpStream::connect(&server)?;
        plain.write_all(&request)?;
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
        let head = String::from_utf8_lossy(&answer[..end]).replace("http://", "https://");
        tls.write_all(head.as_bytes())?;
        tls.write_all(&answer[end..])?;
        tls.conn.send_close_notify();
        tls.flush()
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = forward(stream);
        }
    });
    address
}

/// Companies look into TLS with certificates of their own.
#[test]
fn certificates_of_ones_own_are_trusted_when_named() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let hub = Hub::start(files(), Faults::default());
    let folder = tempfile::tempdir().unwrap();
    let mut options = hub.options(folder.path());
    options.endpoint = tls_before(&hub.address, &certificate);
    options.attempts = 1;
    let error = open(&reference(None), &options).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");

    let pem = folder.path().join("company.pem");
    std::fs::write(&pem, certificate.cert.pem()).unwrap();
    options.certificates = Some(pem.clone());
    open(&reference(None), &options).unwrap();
    std::fs::write(&pem, "no certificate").unwrap();
    let error = open(&reference(None), &options).unwrap_err().to_string();
    assert!(error.contains("company.pem") && error.contains("SSL_CERT_FILE"), "{error}");
}

/// A SigLIP 1 repository has a SentencePiece model and a `tokenizer.json`: from the hub it must run the same one as from
/// a folder.
#[test]
fn texts_become_the_same_ids_from_the_hub_and_from_a_folder() {
    let mut files = files();
    files.push(("spiece.model".into(), tiny::sentencepiece(tiny::PIECES)));
    files.push(("tokenizer.json".into(), tiny::unigram_json(tiny::PIECES)));
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in &files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let hub = Hub::start(files, Faults::default());
    let cache = tempfile::tempdir().unwrap();
    let downloaded = open(&reference(None), &hub.options(cache.path())).unwrap();
    let local = super::open_path(folder.path()).unwrap();
    let [downloaded, local] = [&downloaded, &local].map(|checkpoint| {
        TextProcessor::new(&checkpoint.tokenizer, checkpoint.text.clone().unwrap()).unwrap()
    });
    assert_eq!(downloaded.describe().tokenizer, "SentencePiece (unigram)");
    assert_eq!(downloaded.describe(), local.describe());
    assert_eq!(downloaded.fingerprint(), local.fingerprint());
    for text in ["a cat", "A DOG, a cat!", "</s> tac", ""] {
        assert_eq!(downloaded.encode(text, None), local.encode(text, None), "{text:?}");
    }
}

fn snapshot(cache: &Path) -> PathBuf {
    cache.join("models--owner--tiny/snapshots").join(COMMIT)
}

/// Two configurations, and weights under names that fit only one pair: no more than a header is read of the other file.
#[test]
fn of_two_layouts_the_one_is_downloaded_whose_names_fit() {
    let tiny = Tiny::new(Family::SigLip1);
    let other = Array { shape: vec![200_000], values: vec![0.0; 200_000] };
    let other = [("visual.trunk.patch_embed.proj.weight".to_owned(), other)].into();
    let mut files = tiny.files();
    files.retain(|(name, _)| name != "model.safetensors");
    files.push(("model.safetensors".into(), tiny::serialize(&other, safetensors::tensor::Dtype::F32)));
    files.push(("open_clip_config.json".into(), b"{}".to_vec()));
    let weights = tiny.files().into_iter().find(|(name, _)| name == "model.safetensors").unwrap().1;
    files.push(("open_clip_model.safetensors".into(), weights));
    let hub = Hub::start(files, Faults::default());
    let cache = tempfile::tempdir().unwrap();
    let checkpoint = open(&reference(None), &hub.options(cache.path())).unwrap();
    super::assert_same(&checkpoint, &super::open_tiny(&tiny).unwrap());
    assert!(snapshot(cache.path()).join("open_clip_model.safetensors").is_file());
    assert!(!snapshot(cache.path()).join("model.safetensors").exists());
}

#[test]
fn what_cannot_be_loaded_is_refused_before_it_is_downloaded() {
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.config["auto_map"] = json!({ "AutoModel": "modeling_navit.X" });
    let hub = Hub::start(tiny.files(), Faults::default());
    let cache = tempfile::tempdir().unwrap();
    let error = open(&reference(None), &hub.options(cache.path())).unwrap_err();
    assert!(matches!(error, CheckpointError::Unsupported { .. }), "{error}");
    assert!(!hub.requests().iter().any(|(_, path, _)| path.ends_with(".safetensors")));
}

#[test]
fn a_checkpoint_in_a_folder_of_its_repository_is_downloaded_from_there() {
    let tiny = Tiny::new(Family::SigLip1);
    let mut files: Vec<_> =
        tiny.files().into_iter().map(|(name, bytes)| (format!("0_Transformer/{name}"), bytes)).collect();
    files.push(("modules.json".into(), br#"[{"path": "0_Transformer"}, {"path": "1_Normalize"}]"#.to_vec()));
    let hub = Hub::start(files, Faults::default());
    let cache = tempfile::tempdir().unwrap();
    let mut options = hub.options(cache.path());
    for offline in [false, true] {
        options.offline = offline;
        super::assert_same(&open(&reference(None), &options).unwrap(), &super::open_tiny(&tiny).unwrap());
    }
    let pointer = snapshot(cache.path()).join("0_Transformer/model.safetensors");
    #[cfg(unix)]
    assert!(std::fs::read_link(&pointer).unwrap().starts_with("../../../blobs"));
    assert!(pointer.is_file());
}

#[test]
fn an_adapter_is_downloaded_and_merged() {
    let base = tempfile::tempdir().unwrap();
    Tiny::new(Family::SigLip1).write(base.path());
    let arrays = ["A", "B"].map(|side| {
        let shape = if side == "A" { vec![1, tiny::WIDTH] } else { vec![tiny::WIDTH, 1] };
        let name =
            format!("base_model.model.vision_model.encoder.layers.0.self_attn.v_proj.lora_{side}.weight");
        (name, Array { shape, values: vec![1.0; tiny::WIDTH] })
    });
    let config =
        json!({ "peft_type": "LORA", "base_model_name_or_path": base.path(), "r": 1, "lora_alpha": 1 });
    let files = vec![
        ("adapter_config.json".to_owned(), config.to_string().into_bytes()),
        (
            "adapter_model.safetensors".to_owned(),
            tiny::serialize(&arrays.into(), safetensors::tensor::Dtype::F32),
        ),
    ];
    let hub = Hub::start(files, Faults::default());
    let cache = tempfile::tempdir().unwrap();
    let mut options = hub.options(cache.path());
    let name = "vision_model.encoder.layers.0.self_attn.v_proj.weight";
    let shape = [tiny::WIDTH, tiny::WIDTH];
    let plain = super::values(&super::open_path(base.path()).unwrap(), name, &shape);
    for offline in [false, true] {
        options.offline = offline;
        let merged = open(&reference(None), &options).unwrap();
        assert_eq!((merged.name.as_str(), merged.revision.as_deref()), (MODEL, Some(COMMIT)));
        let found = super::values(&merged, name, &shape);
        assert!(found.iter().zip(&plain).all(|(found, plain)| (found - plain - 1.0).abs() < 1e-6));
    }
}

#[test]
fn offline_touches_no_network() {
    let (result, hub, cache) = fetch(Faults::default());
    result.unwrap();
    let before = hub.requests().len();
    let mut options = hub.options(cache.path());
    options.offline = true;
    for revision in [None, Some("main"), Some(COMMIT)] {
        let checkpoint = open(&reference(revision), &options).unwrap();
        assert_eq!(checkpoint.revision.as_deref(), Some(COMMIT));
    }
    let missing = open(&ModelRef::Hub { id: "owner/other".into(), revision: None }, &options).unwrap_err();
    assert!(matches!(missing, CheckpointError::NotCached { .. }), "{missing}");
    assert!(missing.to_string().contains("HF_HUB_OFFLINE"), "{missing}");
    assert_eq!(hub.requests().len(), before);

    // An incomplete snapshot is not one.
    std::fs::remove_file(
        cache.path().join("models--owner--tiny/snapshots").join(COMMIT).join("model.safetensors"),
    )
    .unwrap();
    let incomplete = open(&reference(None), &options).unwrap_err().to_string();
    assert!(incomplete.contains("model.safetensors"), "{incomplete}");
}

#[test]
fn a_dead_hub_is_not_waited_for_and_the_cache_serves() {
    let (result, hub, cache) = fetch(Faults::default());
    result.unwrap();
    let silent = Hub::start(files(), Faults { silent: true, ..Faults::default() });
    let mut options = hub.options(cache.path());
    options.endpoint.clone_from(&silent.address);
    let start = Instant::now();
    open(&reference(None), &options).unwrap();
    // What is in the cache is not waited for: one question, and that is all.
    assert_eq!(silent.requests().len(), 1);
    let empty = tempfile::tempdir().unwrap();
    options.cache = empty.path().to_path_buf();
    let error = open(&reference(None), &options).unwrap_err();
    assert!(matches!(error, CheckpointError::Transfer { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn broken_transfers_are_resumed() {
    let (result, hub, cache) = fetch(Faults { break_after: Some(3000), ..Faults::default() });
    result.unwrap();
    let ranges: Vec<_> = hub.requests().into_iter().filter_map(|(_, _, range)| range).collect();
    assert!(ranges.len() > 2 && ranges.contains(&"bytes=3000-".to_string()), "{ranges:?}");
    let left = std::fs::read_dir(blobs(cache.path())).unwrap().flatten();
    assert!(!left.into_iter().any(|file| file.path().extension().is_some_and(|end| end == "incomplete")));
}

#[test]
fn a_partial_file_of_an_earlier_start_is_continued() {
    let hub = Hub::start(files(), Faults::default());
    let cache = tempfile::tempdir().unwrap();
    let all = files();
    let (_, weights) = all.iter().find(|(name, _)| name == "model.safetensors").unwrap();
    std::fs::create_dir_all(blobs(cache.path())).unwrap();
    let partial = blobs(cache.path()).join(format!("{}.incomplete", sha256(weights)));
    std::fs::write(partial, &weights[..1234]).unwrap();
    open(&reference(None), &hub.options(cache.path())).unwrap();
    assert!(hub.requests().iter().any(|(_, _, range)| range.as_deref() == Some("bytes=1234-")));
}

#[test]
fn a_server_without_ranges_does_not_double_what_is_there() {
    let faults = Faults { ignore_ranges: true, ..Faults::default() };
    let hub = Hub::start(files(), faults);
    let cache = tempfile::tempdir().unwrap();
    let all = files();
    let (_, weights) = all.iter().find(|(name, _)| name == "model.safetensors").unwrap();
    std::fs::create_dir_all(blobs(cache.path())).unwrap();
    let partial = blobs(cache.path()).join(format!("{}.incomplete", sha256(weights)));
    std::fs::write(partial, &weights[..1234]).unwrap();
    open(&reference(None), &hub.options(cache.path())).unwrap();
}

#[test]
fn transfers_that_never_move_are_given_up() {
    let (result, _, _cache) = fetch(Faults { break_after: Some(0), ..Faults::default() });
    let error = result.unwrap_err();
    assert!(matches!(error, CheckpointError::Transfer { attempts: 5, .. }), "{error}");
}

#[test]
fn wrong_bytes_are_found_and_deleted() {
    let (result, _, cache) = fetch(Faults { wrong_bytes: true, ..Faults::default() });
    let error = result.unwrap_err();
    assert!(matches!(error, CheckpointError::WrongDownload { .. }), "{error}");
    let names: Vec<_> = std::fs::read_dir(blobs(cache.path())).unwrap().flatten().collect();
    assert!(!names.iter().any(|file| file.path().extension().is_some_and(|end| end == "incomplete")));
}

#[test]
fn passing_errors_are_retried() {
    let (result, _, _cache) = fetch(Faults { errors: 2, ..Faults::default() });
    result.unwrap();
    let (result, _, _cache) = fetch(Faults { errors: 1000, ..Faults::default() });
    let error = result.unwrap_err().to_string();
    assert!(error.contains("500") && error.contains("3 attempts"), "{error}");
}

#[test]
fn relative_redirects_are_followed() {
    let (result, hub, _cache) = fetch(Faults { renamed: true, ..Faults::default() });
    result.unwrap();
    assert!(hub.requests().iter().any(|(_, path, _)| path.contains("renamed")));
}

#[test]
fn refusals_say_what_to_do() {
    let gated = Faults { token: Some("hf_secret"), ..Faults::default() };
    let (result, hub, cache) = fetch(gated);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("HF_TOKEN"), "{error}");
    let mut options = hub.options(cache.path());
    options.token = Some("hf_wrong".into());
    let error = open(&reference(None), &options).unwrap_err().to_string();
    assert!(
        error.contains("the token of HF_TOKEN may not read it") && !error.contains("hf_wrong"),
        "{error}"
    );
    options.token = Some("hf_secret".into());
    open(&reference(None), &options).unwrap();

    for (status, code, expected) in [
        (401, "RepoNotFound", "no such repository, or a gated or private one"),
        (403, "GatedRepo", "HF_TOKEN"),
        (404, "RepoNotFound", "no such repository"),
    ] {
        let (result, _, _cache) = fetch(Faults { status: Some((status, code)), ..Faults::default() });
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{status}: {error}");
    }
    let hub = Hub::start(files(), Faults::default());
    let cache = tempfile::tempdir().unwrap();
    let error = open(&reference(Some("nowhere")), &hub.options(cache.path())).unwrap_err();
    assert!(matches!(error, CheckpointError::NoSuchRevision { .. }), "{error}");
}

#[test]
fn only_the_shards_of_the_tower_are_downloaded() {
    let mut tiny = Tiny::new(Family::SigLip1);
    let mut vision = tiny.config["vision_config"].clone();
    vision["model_type"] = json!("siglip_vision_model");
    tiny.config = json!({ "model_type": "paligemma", "vision_config": vision });
    let other = tiny.arrays["logit_scale"].clone();
    tiny.arrays = (tiny.arrays.into_iter())
        .filter(|(name, _)| name.starts_with("vision_model."))
        .map(|(name, array)| (format!("vision_tower.{name}"), array))
        .collect();
    let mut map = serde_json::Map::new();
    for name in tiny.arrays.keys() {
        map.insert(name.clone(), json!("model-1.safetensors"));
    }
    map.insert("language_model.model.norm.weight".into(), json!("model-2.safetensors"));
    let mut files = tiny.files();
    for (name, _) in files.iter_mut().filter(|(name, _)| name == "model.safetensors") {
        *name = "model-1.safetensors".into();
    }
    let second = [("language_model.model.norm.weight".to_string(), other)].into_iter().collect();
    let second = tiny::serialize(&second, safetensors::tensor::Dtype::F32);
    files.push(("model-2.safetensors".into(), second));
    files
        .push(("model.safetensors.index.json".into(), json!({ "weight_map": map }).to_string().into_bytes()));
    let hub = Hub::start(files, Faults::default());
    let cache = tempfile::tempdir().unwrap();
    let checkpoint = open(&reference(None), &hub.options(cache.path())).unwrap();
    assert!(checkpoint.spec.image.is_some());
    assert!(!hub.requests().iter().any(|(_, path, _)| path.ends_with("model-2.safetensors")));
}
