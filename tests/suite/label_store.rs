//! Label sets on disk, of a process that is killed.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::Rng;
use siglip::testing::labels::store::Store;
use siglip::testing::labels::{Content, Definition};

/// The folder of the process that is killed, and the number that it begins with.
const FOLDER: &str = "SIGLIP_TEST_KILL_FOLDER";
const FIRST: &str = "SIGLIP_TEST_KILL_FIRST";
/// How often it is killed; ten times where nothing is said.
const ROUNDS: &str = "SIGLIP_TEST_KILL_ROUNDS";

/// The set that is stored as number `i`: about 100 kB, in many writes of the disk.
fn content(i: usize) -> Content {
    Content::of(Definition::of((0..2000).map(|label| format!("{i} label {label} {}", "x".repeat(30)))))
}

/// Opens a store once its lock is free: a process that another test starts holds it from its fork to its exec.
fn open(data: &Path) -> Store {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(data) {
            Ok(store) => return store,
            Err(error) if Instant::now() > until => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[test]
#[ignore = "the process that the other test kills"]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let first = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = open(Path::new(&folder));
    let mut output = std::io::stdout();
    for i in first.. {
        store.put("a", &content(i).encode().unwrap().0, None).unwrap();
        writeln!(output, "stored {i}").unwrap();
        output.flush().unwrap();
    }
}

#[test]
fn whenever_the_process_is_killed_there_is_the_old_set_or_the_new_one() {
    let data = tempfile::tempdir().unwrap();
    let rounds: usize = std::env::var(ROUNDS).map_or(10, |rounds| rounds.parse().unwrap());
    let mut next = 0;
    let mut between = 0;
    for round in 0..rounds {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "label_store::writer", "--ignored", "--nocapture"])
            .env(FOLDER, data.path())
            .env(FIRST, next.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The name of the test may stand before what it prints first.
        let number = |line: String| line.split("stored ").nth(1).map(|i| i.parse::<usize>().unwrap());
        let mut last = lines.by_ref().find_map(number).expect("it stored a set");
        std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..20_000)));
        process.kill().unwrap();
        process.wait().unwrap();
        // What it said is stored.
        last = lines.filter_map(number).last().unwrap_or(last);
        let store = open(data.path());
        let mut found = store.load().unwrap();
        assert_eq!(found.len(), 1, "round {round}");
        let (found, _) = found.remove(0).content.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let is_next = found == content(last + 1);
        assert!(is_next || found == content(last), "round {round}: neither {last} nor the one after");
        between += usize::from(is_next);
        next = last + 1 + usize::from(is_next);
        let files = std::fs::read_dir(data.path().join("label-sets")).unwrap().count();
        assert_eq!(files, 2, "the set and the lock");
    }
    println!(
        "{next} sets in {rounds} rounds; {between} times the set was there and its writer had not said so"
    );
}
