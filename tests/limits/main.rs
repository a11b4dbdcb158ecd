//! Whatever one request holds, the process takes no more memory than the budget, and no error is long.
//!
//! A program of its own: its allocator counts, so nothing else may run beside a measurement.

#[path = "../suite/api/fake.rs"]
mod fake;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use http_body_util::BodyExt;
use siglip::testing::api::{ApiConfig, AppState, app};
use siglip::testing::budget::MemoryBudget;
use siglip::testing::engine::{Engine, EngineConfig};
use tower::ServiceExt;

/// Counts what is held, the most that was held since [`Counting::start`], and the most that was held without a charge.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static BEFORE: AtomicUsize = AtomicUsize::new(0);
static UNCHARGED: AtomicUsize = AtomicUsize::new(0);
/// The budget that requests are charged to now; it is never dropped.
static BUDGET: AtomicPtr<MemoryBudget> = AtomicPtr::new(std::ptr::null_mut());

impl Counting {
    fn add(bytes: usize) {
        let held = HELD.fetch_add(bytes, Ordering::SeqCst) + bytes;
        PEAK.fetch_max(held, Ordering::SeqCst);
        // SAFETY: it is null, or a budget that was leaked.
        let budget = unsafe { BUDGET.load(Ordering::SeqCst).as_ref() };
        if let Some(charged) = budget.and_then(MemoryBudget::try_total) {
            // What another thread has freed in the meantime it has also given back.
            let held = held.min(HELD.load(Ordering::SeqCst));
            let charged = BEFORE.load(Ordering::SeqCst) + charged;
            UNCHARGED.fetch_max(held.saturating_sub(charged), Ordering::SeqCst);
        }
    }

    /// Measures from here on, and gives what is held now.
    fn start() -> usize {
        let before = HELD.load(Ordering::SeqCst);
        BEFORE.store(before, Ordering::SeqCst);
        PEAK.store(before, Ordering::SeqCst);
        UNCHARGED.store(0, Ordering::SeqCst);
        before
    }
}

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may be there for a moment.
        Self::add(size);
        // SAFETY: as the caller promises.
        let moved = unsafe { System.realloc(block, layout, size) };
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;
/// What one request takes beside the budget: frames, tasks, the messages of errors on their way to be shortened.
const BESIDE: usize = 8 * MIB;
/// What one request may hold at any time beyond what is charged for it at that time: an answer that is known to be held
/// once more than it is written, and lists while they grow.
const UNCHARGED_AT_MOST: usize = 4 * MIB;
/// The longest error.
const ERROR: usize = 2000;

struct Service {
    budget: usize,
    router: axum::Router,
    state: AppState,
    runtime: tokio::runtime::Runtime,
}

/// What came of a request.
struct Outcome {
    status: u16,
    body: Vec<u8>,
    /// The most that was held beyond what there was before.
    peak: usize,
    /// The most that was held at any time beyond that and what was charged then.
    uncharged: usize,
}

impl Service {
    /// A service whose requests may hold `budget` bytes together, and each a body of `longest`.
    fn new(budget: usize, longest: usize) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let memory = MemoryBudget::new(budget);
        BUDGET.store(Box::leak(Box::new(memory.clone())), Ordering::SeqCst);
        let config = ApiConfig { max_body_bytes: longest, memory: memory.clone(), ..ApiConfig::default() };
        // It has a bound of its own, and would be filled by what it may keep.
        let cache_bytes = 0;
        let engine = EngineConfig {
            prepare_threads: 1,
            tokenize_threads: 1,
            memory,
            cache_bytes,
            ..EngineConfig::default()
        };
        let state = runtime.block_on(async {
            let engine = Engine::start(engine);
            engine.insert(&["fake"], Arc::new(fake::Fake::new("fake"))).unwrap();
            engine.warmed_up().await.unwrap();
            AppState::new(engine, config, None)
        });
        let service = Self { budget, router: app(state.clone()), state, runtime };
        // What is made once is no part of a request.
        service.send("/v1/embeddings", JSON, b"{\"input\":\"a\"}".to_vec());
        service
    }

    fn send(&self, path: &str, kind: &str, body: Vec<u8>) -> Outcome {
        let request = Request::post(path).header("content-type", kind).header("content-length", body.len());
        // The client's own copy is there before and after.
        let body = Bytes::from(body);
        self.ask(request.body(Body::from(body.clone())).unwrap())
    }

    fn ask(&self, request: Request<Body>) -> Outcome {
        let before = Counting::start();
        let (status, body) = self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.into_body().collect().await.unwrap().to_bytes())
        });
        let peak = PEAK.load(Ordering::SeqCst).saturating_sub(before);
        let uncharged = UNCHARGED.load(Ordering::SeqCst);
        Outcome { status, body: body.to_vec(), peak, uncharged }
    }

    /// Sends it and checks what holds for every request.
    #[track_caller]
    fn hostile(&self, what: &str, path: &str, kind: &str, body: Vec<u8>) -> Outcome {
        let length = body.len();
        let outcome = self.send(path, kind, body);
        let said = String::from_utf8_lossy(&outcome.body[..outcome.body.len().min(300)]).into_owned();
        assert!(outcome.status < 500, "{what}: {} {said}", outcome.status);
        if outcome.status != 200 {
            assert!(outcome.body.len() <= ERROR, "{what}: an error of {} bytes: {said}", outcome.body.len());
        }
        assert!(
            outcome.peak <= self.budget + BESIDE,
            "{what}: {} MiB for a body of {length} bytes ({})",
            outcome.peak / MIB,
            outcome.status
        );
        // A thread of the engine may be about to drop its last slice.
        let since = Instant::now();
        while self.state.memory().total() > 0 {
            assert!(since.elapsed() < Duration::from_secs(5), "{what}: charged after the answer");
            std::thread::yield_now();
        }
        outcome
    }
}

fn form(fields: &[(&str, Option<&str>, &[u8])]) -> (&'static str, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, content) in fields {
        body.extend_from_slice(format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"").as_bytes());
        if let Some(file) = file {
            body.extend_from_slice(format!("; filename=\"{file}\"").as_bytes());
        }
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    ("multipart/form-data; boundary=XX", body)
}

/// How long the values of fields are; the body may be twice as long.
const LONG: usize = 2 * MIB;
const JSON: &str = "application/json";
/// Elements that a list has at most.
const MOST: usize = 65_536;
/// `PIC` in base64: what the fake model takes for a picture.
const PICTURE: &str = "\"UElD\"";

/// Values for a field: long, many, nested, repeated, of other types, of odd characters, of odd numbers.
fn values() -> Vec<(&'static str, String)> {
    let long = LONG;
    let list = |element: &str| format!("[{}]", vec![element; long / (element.len() + 1)].join(","));
    vec![
        ("a long string", format!("\"{}\"", "x".repeat(long))),
        ("a long string of quotation marks", format!("\"{}\"", "\\\"".repeat(long / 2))),
        ("a long string of escapes", format!("\"{}\"", "\\u0001".repeat(long / 6))),
        ("a long string of wide characters", format!("\"{}\"", "🙂".repeat(long / 4))),
        ("many empty strings", list("\"\"")),
        ("many short strings", list("\"ab\"")),
        ("many numbers", list("1")),
        ("many large numbers", list("4294967295")),
        ("many empty lists", list("[]")),
        ("many short lists", list("[1,2]")),
        ("many pictures", list("{\"image\":\"UElD\"}")),
        ("many texts", list("{\"text\":\"a\"}")),
        ("many empty objects", list("{}")),
        ("many urls", list("{\"image\":\"http://h/\"}")),
        ("deep lists", format!("{}{}", "[".repeat(long / 2), "]".repeat(long / 2))),
        ("deep objects", "{\"a\":".repeat(long / 5)),
        ("a long key", format!("{{\"{}\":1}}", "k".repeat(long))),
        (
            "many keys",
            format!("{{{}}}", (0..long / 12).map(|i| format!("\"{i:08}\":1")).collect::<Vec<_>>().join(",")),
        ),
        ("a number of many digits", "9".repeat(long)),
        ("a number of many places", format!("0.{}", "1".repeat(long))),
        ("a huge exponent", "1e999999999".to_owned()),
        ("a negative number", "-1".to_owned()),
        ("a label of a megabyte", format!("[\"{}\"]", "x".repeat(MIB))),
        ("labels of a kilobyte", format!("[{}]", vec![format!("\"{}\"", "x".repeat(1000)); 1024].join(","))),
        ("a template of many slots", format!("\"{}\"", "{}".repeat(50_000))),
        (
            "templates of a few slots",
            format!("[{}]", vec![format!("\"{}\"", "{}".repeat(16)); 1024].join(",")),
        ),
    ]
}

/// The fields of each route, and what the others must be so that the one is looked at.
fn routes() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let options = ["model", "canonicalization", "max_num_patches", "partial", "nonsense"];
    let with = |path: &'static str, required: &[(&'static str, &'static str)], more: &[&'static str]| {
        let mut fields = required.to_vec();
        fields.extend(options.iter().chain(more).map(|name| (*name, "")));
        (path, fields)
    };
    let embeddings = [
        "encoding_format",
        "embedding_type",
        "normalize",
        "output",
        "dimensions",
        "modality",
        "token_ids",
        "user",
    ];
    vec![
        with("/v1/embeddings", &[("input", "\"a\"")], &embeddings),
        with("/v1/embeddings/images", &[("input", PICTURE)], &embeddings),
        with(
            "/v1/classify",
            &[("input", PICTURE), ("labels", "[\"a\",\"b\"]")],
            &["template", "templates", "activation", "top_k", "threshold"],
        ),
        with("/v1/score", &[("images", PICTURE), ("texts", "[\"a\"]")], &["token_ids"]),
        with(
            "/v1/heatmaps",
            &[("images", PICTURE), ("texts", "[\"a\"]")],
            &["method", "window", "budget", "boxes", "threshold", "overlay", "token_ids"],
        ),
        with("/v1/tokenize", &[("texts", "[\"a\"]")], &[]),
    ]
}

fn every_field_of_every_route_as_json(service: &Service) {
    let values = values();
    for (path, fields) in routes() {
        for (field, _) in &fields {
            for (what, value) in &values {
                let mut parts = vec![format!("\"{field}\":{value}")];
                parts.extend(
                    fields
                        .iter()
                        .filter(|(name, usual)| name != field && !usual.is_empty())
                        .map(|(name, usual)| format!("\"{name}\":{usual}")),
                );
                let body = format!("{{{}}}", parts.join(","));
                service.hostile(&format!("{path} {field}: {what}"), path, JSON, body.into_bytes());
            }
        }
        for (what, value) in &values {
            service.hostile(&format!("{path}: {what}"), path, JSON, value.clone().into_bytes());
        }
    }
}

/// Where inputs go in the requests of other services: `@` is the value.
const DIALECTS: [(&str, &str); 23] = [
    ("/v1/embeddings", "{\"messages\":@}"),
    ("/v1/embeddings", "{\"messages\":[{\"content\":@}]}"),
    ("/embed", "{\"inputs\":@}"),
    ("/similarity", "{\"inputs\":{\"source_sentence\":\"a\",\"sentences\":@}}"),
    ("/", "{\"inputs\":@}"),
    ("/", "{\"inputs\":\"UElD\",\"parameters\":{\"candidate_labels\":@}}"),
    ("/v2/embed", "{\"model\":\"fake\",\"texts\":@,\"embedding_types\":[\"float\",\"int8\",\"base64\"]}"),
    ("/v2/embed", "{\"model\":\"fake\",\"inputs\":@}"),
    ("/v1/multimodalembeddings", "{\"model\":\"fake\",\"inputs\":@}"),
    ("/vectorize", "{\"texts\":@}"),
    ("/vectorize", "{\"images\":@}"),
    ("/api/embed", "{\"model\":\"fake\",\"input\":@}"),
    (
        "/v2/models/fake/infer",
        "{\"id\":@,\"inputs\":[{\"name\":\"text\",\"datatype\":\"BYTES\",\"data\":[\"a\"]}]}",
    ),
    ("/v2/models/fake/infer", "{\"inputs\":[{\"name\":\"text\",\"datatype\":\"BYTES\",\"data\":@}]}"),
    ("/v1/projects/p/locations/l/publishers/google/models/fake:predict", "{\"instances\":@}"),
    ("/clip/embed_text", "{\"text\":@}"),
    ("/clip/compare", "{\"subject\":\"a\",\"subject_type\":\"text\",\"prompt\":@}"),
    ("/clip/compare", "{\"subject\":\"a\",\"subject_type\":\"text\",\"prompt\":\"a\",\"prompt_type\":@}"),
    ("/clip/compare", "{\"subject\":\"a\",\"subject_type\":\"text\",\"prompt\":{@:\"a\"}}"),
    ("/post", "{\"data\":@}"),
    ("/post", "{\"data\":[{\"id\":@,\"text\":\"a\"}]}"),
    ("/tokenize", "{\"inputs\":@}"),
    ("/api/embed", "{\"model\":@,\"input\":\"a\"}"),
];

fn inputs_of_every_dialect(service: &Service) {
    let content = "{\"content\":[{\"text\":\"a\"}]}";
    let contents = format!("[{}]", vec![content; LONG / (content.len() + 1)].join(","));
    let listed = |element: &str| format!("[{}]", vec![element; MOST].join(","));
    let named = (0..MOST).map(|at| format!("\"{at:08}\":\"a\"")).collect::<Vec<_>>().join(",");
    let more = [
        ("many contents", contents),
        ("as many strings as a list may have", listed("\"ab\"")),
        ("as many texts as a list may have", listed("{\"text\":\"a\"}")),
        ("as many contents as a list may have", listed(content)),
        ("as many names as a list may have", format!("{{{named}}}")),
        ("texts of 60 kB", format!("[{}]", vec![format!("\"{}\"", "x".repeat(60_000)); 16].join(","))),
    ];
    // What is refused as a field of another type is refused here as on our own routes.
    const WHAT: [&str; 8] = [
        "a long string",
        "a long string of escapes",
        "many empty strings",
        "many empty lists",
        "many pictures",
        "many texts",
        "many empty objects",
        "deep lists",
    ];
    let too_much = RefCell::new(Vec::new());
    let charged = |what: &str, path: &str, kind: &str, body: Vec<u8>| {
        let Outcome { uncharged, status, .. } = service.hostile(what, path, kind, body);
        if uncharged > UNCHARGED_AT_MOST {
            let message = format!("{what}: {} kB are held without a charge ({status})", uncharged / 1000);
            too_much.borrow_mut().push(message);
        }
    };
    let of_interest = |(what, _): &(&str, String)| WHAT.contains(what);
    for (what, value) in values().into_iter().filter(of_interest).chain(more) {
        for (path, document) in DIALECTS {
            let body = document.replace('@', &value);
            charged(&format!("{path} {document}: {what}"), path, JSON, body.into_bytes());
        }
        let (kind, body) = form(&[("entries", None, value.as_bytes()), ("text", None, value.as_bytes())]);
        charged(&format!("/predict: {what}"), "/predict", kind, body);
    }
    let too_much = too_much.into_inner();
    assert!(too_much.is_empty(), "{}", too_much.join("\n"));
    let tensor = vec![0; LONG];
    let head = format!(
        "{{\"inputs\":[{{\"name\":\"text\",\"datatype\":\"BYTES\",\"parameters\":{{\"binary_data_size\":{LONG}}}}}]}}"
    );
    let mut request = Request::post("/v2/models/fake/infer");
    request = request.header("inference-header-content-length", head.len());
    let outcome = service.ask(request.body([head.as_bytes(), &tensor].concat().into()).unwrap());
    assert_eq!(outcome.status, 413, "a tensor of half a million empty texts");
    assert!(outcome.uncharged <= UNCHARGED_AT_MOST, "{} kB", outcome.uncharged / 1000);
}

fn every_field_of_every_form(service: &Service) {
    let long = LONG;
    let values: [(&str, Vec<u8>); 7] = [
        ("commas", vec![b','; long]),
        ("a long text", vec![b'x'; long]),
        ("a JSON list of empty strings", format!("[{}]", vec!["\"\""; long / 3].join(",")).into_bytes()),
        ("a JSON list that is cut", format!("[{}", "\"\",".repeat(long / 3)).into_bytes()),
        ("no UTF-8", vec![0xff; long]),
        ("slots", "{}".repeat(50_000).into_bytes()),
        ("base64", vec![b'A'; long]),
    ];
    for (path, fields) in routes()
        .into_iter()
        .filter(|(path, _)| path.ends_with('s') && *path != "/v1/embeddings" || *path == "/v1/classify")
    {
        let names =
            fields.iter().map(|(name, _)| *name).chain(["labels", "label", "templates", "image", "url", ""]);
        for name in names {
            for (what, value) in &values {
                let (kind, body) = form(&[("image", Some("a.png"), b"PIC"), (name, None, value)]);
                service.hostile(&format!("{path} {name} of a form: {what}"), path, kind, body);
            }
        }
        let many =
            |part: &str| [part.repeat(long / part.len()), "--XX--\r\n".to_owned()].concat().into_bytes();
        for (what, body) in [
            ("many parts", many("--XX\r\n\r\n\r\n")),
            ("many fields", many("--XX\r\nContent-Disposition: form-data; name=labels\r\n\r\na,b\r\n")),
            ("many files", many("--XX\r\nContent-Disposition: form-data; filename=a\r\n\r\nPIC\r\n")),
            ("many beginnings of a boundary", many("\r\n--X")),
            ("a long header", [&b"--XX\r\nA: "[..], &vec![b'a'; long]].concat()),
            ("a long name", form(&[(&"n".repeat(4000), None, b"1")]).1),
            ("a long file name", form(&[("a", Some(&"n".repeat(4000)), b"1")]).1),
        ] {
            service.hostile(&format!("{path}: {what}"), path, "multipart/form-data; boundary=XX", body);
        }
    }
}

fn every_route_with_another_content_type(service: &Service) {
    for (path, _) in routes() {
        for kind in
            ["image/png", "application/octet-stream", "text/plain", "application/x-www-form-urlencoded", ""]
        {
            for byte in [0, b'{', b'[', b'x', 0xff] {
                service.hostile(&format!("{path} as {kind:?}"), path, kind, vec![byte; LONG]);
            }
        }
        let query = format!("{path}?{}", "a=b&".repeat(10_000));
        service.hostile(&query[..40], &query, JSON, b"{}".to_vec());
        let query = format!("{path}?model={}", "x".repeat(60_000));
        service.hostile(&query[..40], &query, JSON, b"{}".to_vec());
    }
    let path = format!("/{}", "x".repeat(60_000));
    service.hostile("a long path", &path, JSON, Vec::new());
}

/// What one request did to an earlier version: it aborted, or grew by gigabytes.
fn requests_that_took_the_process_down(service: &Service) {
    let picture = |n: usize| vec![PICTURE; n].join(",");
    let small = |outcome: &Outcome, what: &str| {
        assert!(outcome.peak < 64 * MIB, "{what}: {} MiB", outcome.peak / MIB);
    };

    let template = "{}".repeat(50_000);
    let body =
        format!("{{\"input\":{PICTURE},\"labels\":[\"{}\"],\"template\":\"{template}\"}}", "x".repeat(MIB));
    let what = "50,000 slots and a label of a megabyte";
    let outcome = service.hostile(what, "/v1/classify", JSON, body.into_bytes());
    assert_eq!(outcome.status, 422);
    small(&outcome, what);

    let labels: Vec<String> = (0..1000).map(|i| format!("\"{}\"", i % 10)).collect();
    let template = format!("{}{{}}", "y".repeat(12 * MIB));
    let body =
        format!("{{\"input\":{PICTURE},\"labels\":[{}],\"template\":\"{template}\"}}", labels.join(","));
    let outcome = service.hostile("a template of 12 MB", "/v1/classify", JSON, body.into_bytes());
    assert_eq!(outcome.status, 422);

    let labels = vec![format!("\"{}\"", "z".repeat(60_000)); 200].join(",");
    let body = format!("{{\"input\":[{}],\"labels\":[{labels}]}}", picture(256));
    let outcome = service.hostile("labels of 60 kB", "/v1/classify", JSON, body.into_bytes());
    assert_eq!(outcome.status, 422);

    let labels = vec![format!("\"{}\"", "z".repeat(1000)); 1000].join(",");
    let body = format!("{{\"input\":[{}],\"labels\":[{labels}]}}", picture(512));
    let outcome = service.hostile("512 times 1,000 labels of 1 kB", "/v1/classify", JSON, body.into_bytes());
    assert_eq!(outcome.status, 413);

    let what = "a million commas";
    let (kind, body) = form(&[("image", Some("a.png"), b"PIC"), ("labels", None, &vec![b','; 1_000_000])]);
    let outcome = service.hostile(what, "/v1/classify", kind, body);
    assert_eq!(outcome.status, 413);
    assert!(outcome.peak < 20 * MIB, "{what}: {} MiB", outcome.peak / MIB);

    for (what, body) in [
        ("a long model", format!("{{\"input\":\"a\",\"model\":\"{}\"}}", "m".repeat(15 * MIB))),
        ("a long key", format!("{{\"input\":\"a\",\"{}\":1}}", "k".repeat(15 * MIB))),
        ("a long input key", format!("{{\"input\":{{\"{}\":1}}}}", "k".repeat(15 * MIB))),
        ("a long option", format!("{{\"input\":\"a\",\"modality\":\"{}\"}}", "k".repeat(15 * MIB))),
    ] {
        let outcome = service.hostile(what, "/v1/embeddings", JSON, body.into_bytes());
        assert!(outcome.status >= 400, "{what}");
    }
}

fn large_honest_requests_stay_within_the_budget(service: &Service) {
    let texts: Vec<String> = (0..2000).map(|i| format!("\"{i:05}{}\"", "t".repeat(4000))).collect();
    let body = format!("{{\"input\":[{}]}}", texts.join(","));
    let outcome = service.hostile("2,000 texts of 4 kB", "/v1/embeddings", JSON, body.into_bytes());
    assert_eq!(outcome.status, 200);
    let mut files = [b"PIC".to_vec()];
    files[0].resize(12 * MIB, 0);
    let outcome = service.hostile("a file of 12 MiB", "/v1/embeddings/images", "image/png", files[0].clone());
    assert_eq!(outcome.status, 200);
    assert!(outcome.peak < 40 * MIB, "{} MiB: a file is held once, and prepared once", outcome.peak / MIB);
    let (kind, body) = form(&[("image", Some("a.png"), &files[0])]);
    let outcome = service.hostile("a file of 12 MiB in a form", "/v1/embeddings/images", kind, body);
    assert_eq!(outcome.status, 200);
    assert!(outcome.peak < 40 * MIB, "{} MiB: a part is a slice of the body", outcome.peak / MIB);
}

/// Texts of a label set are far larger than what they are made of, and are made in the background.
fn label_sets(service: &Service) {
    const SET: &str = "/v1/label-sets/set";
    let words: Vec<String> = (0..64).map(|i| format!("\"{i:02}{}\"", "x".repeat(990))).collect();
    let templates: Vec<String> = (0..100).map(|i| format!("\"{i:02}{}\"", "{}".repeat(16))).collect();
    let many = format!("[{}]", vec!["\"\\u0001\""; LONG / 12].join(","));
    for (what, body, status) in [
        (
            "6,500 texts of 16 kB out of 70 kB",
            format!(
                "{{\"labels\":[{{\"name\":\"a\",\"synonyms\":[{}]}}],\"templates\":[{}]}}",
                words.join(","),
                templates.join(",")
            ),
            201,
        ),
        (
            "a prompt of many slots",
            format!("{{\"labels\":[{{\"name\":\"a\",\"prompts\":[\"{}\"]}}]}}", "{}".repeat(2000)),
            422,
        ),
        ("many equal labels", format!("{{\"labels\":{many}}}"), 413),
    ] {
        let request = Request::put(format!("{SET}?wait=true")).header("content-type", JSON);
        let outcome = service.ask(request.body(body.into()).unwrap());
        let said = String::from_utf8_lossy(&outcome.body[..outcome.body.len().min(300)]);
        assert_eq!(outcome.status, status, "{what}: {said}");
        // A quarter of what all the texts would take.
        assert!(outcome.peak <= 24 * MIB, "{what}: {} MiB", outcome.peak / MIB);
    }
    let none = |labels: &str| {
        format!("{{\"input\":{PICTURE},\"labels\":{labels},\"none\":{{\"against\":\"set\"}}}}")
    };
    service.ask(Request::delete(SET).body(Body::empty()).unwrap());
    for (what, value) in values() {
        for path in ["examples", "calibrate"] {
            let field = if path == "examples" { "examples" } else { "pictures" };
            let path = format!("{SET}/{path}");
            service.hostile(
                &format!("{path}: {what}"),
                &path,
                JSON,
                format!("{{\"{field}\":{value}}}").into_bytes(),
            );
        }
        service.hostile(&format!("none against, {what}"), "/v1/classify", JSON, none(&value).into_bytes());
    }
}

#[test]
fn no_request_takes_more_than_the_budget() {
    let service = Service::new(256 * MIB, 16 * MIB);
    requests_that_took_the_process_down(&service);
    large_honest_requests_stay_within_the_budget(&service);
    drop(service);
    let service = Service::new(64 * MIB, 2 * LONG);
    every_route_with_another_content_type(&service);
    every_field_of_every_form(&service);
    every_field_of_every_route_as_json(&service);
    inputs_of_every_dialect(&service);
    label_sets(&service);
}
