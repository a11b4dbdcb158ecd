//! The service as a process: how it starts, what signals do, how it ends.
#![cfg(feature = "demo")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running service, and what it logs.
pub struct Server {
    process: Child,
    lines: Receiver<String>,
    log: Vec<String>,
    started: Instant,
}

impl Server {
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_siglip"))
            .args(["serve", "--port", "0"])
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let (send, lines) = channel();
        let errors = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { process, lines, log: Vec::new(), started }
    }

    /// Waits for a log line with `part` in it.
    #[track_caller]
    pub fn line(&mut self, part: &str) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.log.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
        panic!("no line with {part:?} in:\n{}", self.log.join("\n"));
    }

    #[track_caller]
    pub fn address(&mut self) -> String {
        let line = self.line("listening on http://");
        line.split("http://").nth(1).unwrap().split(';').next().unwrap().to_owned()
    }

    #[cfg(all(feature = "heif", target_os = "linux"))]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn signal(&self, name: &str) {
        assert!(
            Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap().success()
        );
    }

    /// The exit code, and how long it took from now.
    #[track_caller]
    fn ended(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                self.log.extend(self.lines.iter());
                return (status.code(), began.elapsed());
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it does not end:\n{}", self.log.join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The status and the body of an answer.
fn ask(address: &str, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn get(address: &str, path: &str) -> (u16, String) {
    ask(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
}

pub fn post(address: &str, path: &str, media_type: &str, body: &[u8]) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media_type}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    ask(address, &[head.as_bytes(), body].concat())
}

fn embed(address: &str, model: &str) -> (u16, String) {
    let body = format!("{{\"model\": \"{model}\", \"input\": \"a cat\"}}");
    post(address, "/v1/embeddings", "application/json", body.as_bytes())
}

/// A hub that takes connections and never answers.
fn silent_hub() -> (TcpListener, String) {
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", hub.local_addr().unwrap());
    (hub, endpoint)
}

fn ready(address: &str) -> (u16, Value) {
    let (status, body) = get(address, "/health/ready");
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[test]
fn while_a_model_loads_the_service_answers_and_a_signal_ends_it() {
    let (_hub, endpoint) = silent_hub();
    let home = tempfile::tempdir().unwrap();
    let variables = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HOME", home.path().to_str().unwrap())];
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(&["--model", "google/big", "--drain-timeout", "20s"], &variables);
        let address = server.address();
        let listening = server.started.elapsed();
        assert_eq!(get(&address, "/health/live").0, 200);
        let (status, state) = ready(&address);
        assert_eq!((status, &state["status"]), (503, &"starting".into()), "{state}");
        assert_eq!(state["models"][0]["name"], "big");
        assert!(
            ["downloading", "loading"].contains(&state["models"][0]["state"].as_str().unwrap()),
            "{state}"
        );
        for name in ["big", "google/big"] {
            let (status, body) = embed(&address, name);
            assert!(status == 503 && body.contains("loading"), "{status} {body}");
        }
        // 100 ms are promised; a busy machine gets more.
        assert!(listening < Duration::from_secs(2), "{listening:?}");
        server.signal(signal);
        let (code, took) = server.ended();
        assert_eq!(code, Some(0), "{:?}", server.log);
        assert!(took < Duration::from_secs(2), "{signal}: {took:?}");
    }
}

#[test]
fn one_model_serves_while_another_loads() {
    let (_hub, endpoint) = silent_hub();
    let home = tempfile::tempdir().unwrap();
    let variables = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HOME", home.path().to_str().unwrap())];
    let mut server = Server::start(&["--model", "demo", "--model", "google/big"], &variables);
    let address = server.address();
    let began = Instant::now();
    while embed(&address, "demo").0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    let (status, state) = ready(&address);
    assert_eq!(status, 503, "{state}");
    server.signal("-TERM");
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_service_without_a_model_ends_and_says_why() {
    let mut server = Server::start(&["--model", "./nowhere"], &[]);
    assert_eq!(server.ended().0, Some(1));
    let log = server.log.join("\n");
    assert!(log.contains("no model could be loaded: nowhere") && log.contains("no such file"), "{log}");
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut server = Server::start(&["--drain-delay", "30s"], &[]);
    let address = server.address();
    server.line("ready");
    server.signal("-TERM");
    server.line("not ready any more");
    assert_eq!(ready(&address).0, 503);
    assert_eq!(embed(&address, "demo").0, 200, "work is still taken");
    server.signal("-INT");
    let (code, took) = server.ended();
    assert_eq!(code, Some(130));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn the_log_has_no_colours_and_names_variables_that_mean_nothing() {
    let variables = [("SIGLIP_PORT", "tcp://10.96.12.7:8080"), ("SIGLIP_MODLE", "x")];
    let mut server = Server::start(&["--admin-port", "0"], &variables);
    let address = server.address();
    let operators = server.line("operators: http://");
    let operators = operators.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    server.line("ready");
    let (status, metrics) = get(&operators, "/metrics");
    assert!(status == 200 && metrics.contains("siglip_connections"), "{metrics}");
    assert_eq!(get(&address, "/metrics").0, 404);
    server.signal("-TERM");
    assert_eq!(server.ended().0, Some(0));
    let log = server.log.join("\n");
    assert!(log.contains("mean nothing here: SIGLIP_MODLE") && log.contains("Kubernetes"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}
