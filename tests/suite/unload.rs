//! The program gives the memory of a model back when nobody uses it.
#![cfg(all(feature = "demo", target_os = "linux"))]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A service, until it is dropped.
struct Service {
    child: Child,
    url: String,
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_siglip"))
            .args(["serve", "--port", "0", "--model", "demo", "--dtype", "f32", "--device", "cpu"])
            .args(arguments)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let from = line.find("http://")?;
            Some(line[from..].split([';', ' ', ',']).next()?.trim_end_matches("/docs").to_owned())
        });
        // Whoever logs must not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: url.expect("it says where it listens") }
    }

    fn get(&self, path: &str) -> String {
        let mut answer = ureq::get(format!("{}{path}", self.url)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    fn embed(&self, text: &str) -> Value {
        let body = json!({ "input": text }).to_string();
        let request = ureq::post(format!("{}/v1/embeddings", self.url)).content_type("application/json");
        let mut answer = request.send(body).unwrap();
        let document: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        document["data"][0]["embedding"].clone()
    }

    fn state(&self) -> String {
        let models: Value = serde_json::from_str(&self.get("/v1/models")).unwrap();
        models["data"][0]["state"].as_str().unwrap_or("not there").to_owned()
    }

    fn until(&self, what: &str, happened: impl Fn() -> bool) {
        let start = Instant::now();
        while !happened() {
            assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A number of `/metrics`.
    fn metric(&self, line: &str) -> f64 {
        let metrics = self.get("/metrics");
        let found = metrics.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {line} in\n{metrics}"))
    }

    /// Resident memory that is no file's, in bytes.
    fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        kib.unwrap().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_idle_model_leaves_the_memory_and_comes_back() {
    let service = Service::start(&["--idle-unload", "4s", "--text-cache-bytes", "0"]);
    service.until("the model", || service.state() == "ready");
    let (vector, loaded) = (service.embed("a cat"), service.resident());
    let weights = service.metric("siglip_model_memory_bytes{model=\"demo\"}");
    assert!(weights > 1e6, "{weights}");
    service.until("the unload", || service.state() == "unloaded");
    let unloaded = service.resident();
    println!("weights {weights}, resident {loaded}, without them {unloaded}");
    assert!(loaded - unloaded > 0.7 * weights, "{loaded} to {unloaded}, weights of {weights}");
    assert_eq!(service.metric("siglip_model_memory_bytes{model=\"demo\"}"), 0.0);
    assert!(service.get("/health/ready").contains("\"unloaded\""), "ready, and it says how the model is");
    assert_eq!(service.embed("a cat"), vector);
    assert_eq!(service.metric("siglip_model_loads_total{model=\"demo\"}"), 2.0);
    assert!(service.metric("siglip_model_unloads_total{model=\"demo\",reason=\"idle\"}") >= 1.0);
}
