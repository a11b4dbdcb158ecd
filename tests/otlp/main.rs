//! Traces as a collector gets them from the running program.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector that takes one export and answers it; its body.
fn collect(listener: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = listener.accept().expect("an exporter");
    let (head, body) = read_http(&mut stream);
    assert!(head.starts_with("POST /v1/traces "), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/x-protobuf"), "{head}");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .expect("an answer");
    body
}

/// The head and the body of one message with a content-length.
fn read_http(stream: &mut TcpStream) -> (String, Vec<u8>) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("a line"), 0, "{head}");
    }
    let length =
        head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body).expect("a body");
    (head, body)
}

fn holds(message: &[u8], part: &[u8]) -> bool {
    message.windows(part.len()).any(|window| window == part)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

/// Waits for the model, which is loaded while the service listens already.
fn until_ready(address: &str) {
    for _ in 0..600 {
        let mut stream = TcpStream::connect(address).expect("a connection");
        write!(stream, "GET /health/ready HTTP/1.1\r\nhost: siglip\r\nconnection: close\r\n\r\n")
            .expect("sent");
        if read_http(&mut stream).0.starts_with("HTTP/1.1 200 ") {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the service did not become ready");
}

#[test]
fn a_request_and_its_batch_are_traced_and_continue_the_clients_trace() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", collector.local_addr().expect("an address"));
    let mut service = Command::new(env!("CARGO_BIN_EXE_siglip"))
        .args(["serve", "--port", "0"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("SIGLIP_LOG", "info")
        .env("OTEL_BSP_SCHEDULE_DELAY", "60000") // both spans in one export, at the end
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut log = BufReader::new(service.stderr.take().expect("piped")).lines();
    let address = log
        .find_map(|line| {
            let line = line.expect("a line");
            let (_, rest) = line.split_once("listening on http://")?;
            rest.split([';', ' ']).next().map(str::to_owned)
        })
        .expect("it listens");
    std::thread::spawn(move || log.for_each(drop));

    until_ready(&address);
    let mut stream = TcpStream::connect(&address).expect("a connection");
    let body = r#"{"input": "a cat"}"#;
    write!(
        stream,
        "POST /v1/embeddings HTTP/1.1\r\nhost: siglip\r\ncontent-type: application/json\r\nconnection: close\r\n\
         traceparent: 00-{TRACE}-{PARENT}-01\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let (head, _) = read_http(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");

    // What is left is sent when the service stops.
    let stopped = Command::new("kill").args(["-TERM", &service.id().to_string()]).status().expect("kill");
    assert!(stopped.success());
    let spans = collect(&collector);
    assert!(service.wait().expect("it ends").success());
    assert!(holds(&spans, b"POST /v1/embeddings"), "the request's span");
    assert!(holds(&spans, &bytes(TRACE)) && holds(&spans, &bytes(PARENT)), "in the client's trace");
    assert!(holds(&spans, b"inference_ms") && holds(&spans, b"http.response.status_code"));
    assert!(holds(&spans, b"batch"), "the batch's span");
    assert!(holds(&spans, b"service.name") && holds(&spans, b"siglip"));
}
