//! HEIC and AVIF as the program reads them: in a process for each picture.
#![cfg(all(feature = "demo", feature = "heif", target_os = "linux"))]

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use siglip::testing::image::{ImageLimits, decode, probe};

use crate::serve::{Server, post};

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/heif", name].iter().collect()
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

/// What the process that decodes answers, and whether it ended by itself.
fn child(name: &str, memory: u64) -> (Vec<u8>, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_siglip"))
        .args(["decode-heif", "--seconds", "30", "--memory", &memory.to_string()])
        .env_clear()
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(File::open(path(name)).unwrap())
        .output()
        .unwrap();
    (output.stdout, output.status.success())
}

#[test]
fn a_process_of_its_own_gives_the_same_pixels() {
    let limits = ImageLimits::default();
    for (name, size) in [("turned.heic", (40, 61)), ("alpha.heic", (61, 40)), ("alpha.avif", (61, 40))] {
        let info = probe(&bytes(name), &limits).unwrap();
        assert_eq!((info.width, info.height), size, "{name}");
        let picture = decode(&bytes(name), &limits).unwrap();
        assert_eq!((picture.width(), picture.height()), size, "{name}");
        let (answer, ended) = child(name, info.decoded_bytes);
        assert!(ended, "{name}");
        assert_eq!((&answer[..1], &answer[9..]), (&[0][..], picture.pixels()), "{name}");
    }
    // libheif makes colours of HEVC's; red is red and yellow is yellow wherever the picture was turned to.
    let picture = decode(&bytes("turned.heic"), &limits).unwrap();
    let pixel = |x: usize, y: usize| &picture.pixels()[(y * 40 + x) * 3..][..3];
    assert!(pixel(38, 2)[0] > 150 && pixel(38, 2)[1] < 90, "{:?}", pixel(38, 2));
    assert!(pixel(15, 45)[0] > 200 && pixel(15, 45)[1] > 180, "{:?}", pixel(15, 45));
}

#[test]
fn a_picture_that_is_larger_than_it_says_gets_no_more_memory() {
    for name in ["lies.heic", "lies.avif"] {
        let info = probe(&bytes(name), &ImageLimits::default()).unwrap();
        assert_eq!((info.width, info.height), (64, 64), "{name}");
        assert!(info.decoded_bytes < 64 << 20, "{name}: {}", info.decoded_bytes);
        // With enough memory it is decoded, whose size is then wrong; with what its size asks for it does not come so far.
        let (answer, ended) = child(name, 4 << 30);
        assert!(
            ended && answer[0] == 1 && answer[1..].starts_with(b"it has another size"),
            "{name}: {answer:?}"
        );
        let (answer, _) = child(name, info.decoded_bytes);
        assert!(
            answer.first() != Some(&0) && !answer.ends_with(b"another size than it says"),
            "{name}: {answer:?}"
        );
    }
}

#[test]
fn a_file_that_lies_costs_the_service_nothing_and_the_others_are_answered() {
    let mut server = Server::start(&["--model", "demo"], &[]);
    let address = server.address();
    server.line("ready");
    let before = embedding(&address, "turned.heic");
    for _ in 0..3 {
        for name in ["lies.heic", "lies.avif"] {
            let (status, body) = post(&address, "/v1/embeddings/images", "image/heic", &bytes(name));
            assert!(status == 422 && body.contains("damaged"), "{name}: {status} {body}");
        }
    }
    assert_eq!(embedding(&address, "turned.heic"), before);
    assert_ne!(embedding(&address, "alpha.avif"), before);
    let peak = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().to_owned();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 400 << 10, "{peak}");
}

fn embedding(address: &str, name: &str) -> String {
    let (status, body) = post(address, "/v1/embeddings/images", "image/heic", &bytes(name));
    assert_eq!(status, 200, "{name}: {body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["data"][0]["embedding"].to_string()
}

#[test]
fn commands_go_on_after_a_file_that_lies() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["turned.heic", "lies.heic", "alpha.avif", "lies.avif"];
    let output = Command::new(env!("CARGO_BIN_EXE_siglip"))
        .args(["embed", "--model", "demo", "--output", "x.jsonl"])
        .args(files.map(path))
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("lies.heic") && errors.contains("lies.avif"), "{errors}");
    let written = std::fs::read_to_string(folder.path().join("x.jsonl")).unwrap();
    assert!(written.contains("turned.heic") && written.contains("alpha.avif"), "{written}");
}
