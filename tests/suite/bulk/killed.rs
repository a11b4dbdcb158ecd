//! `kill -9` at any moment: the run after it ends with every file exactly once.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::shards::{photos, rows};
use super::{command, run, text};

const ROUNDS: usize = 30;
const FILES: usize = 300;
const SHARD: usize = 8;

/// Rows in shards that are not in their place, as far as they were written.
fn unfinished(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder.join("index")) else { return 0 };
    let hidden = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".part-")));
    hidden.map(|path| fs::read(path).unwrap().iter().filter(|&&byte| byte == b'\n').count()).sum()
}

fn done(folder: &Path) -> usize {
    let text = fs::read_to_string(folder.join("index/_manifest/0-of-1.jsonl")).unwrap_or_default();
    let rows = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["rows"].as_u64();
    text.lines().filter_map(rows).sum::<u64>() as usize
}

#[test]
fn a_run_that_is_killed_is_gone_on_with() {
    let folder = photos(FILES);
    let path = folder.path();
    let shard = SHARD.to_string();
    let arguments = [
        "embed",
        "photos",
        "--model",
        "demo",
        "--threads",
        "1",
        "-o",
        "index",
        "--shard-rows",
        &shard,
        "--format",
        "jsonl",
    ];
    let mut chance = StdRng::seed_from_u64(7);
    let (mut kills, mut twice) = (0, 0);
    for round in 0..ROUNDS {
        let mut child = command(path, &arguments).stderr(Stdio::piped()).spawn().unwrap();
        // From before the model is loaded to after everything is done.
        let most = if round % 3 == 0 { 200 } else { 1500 };
        let deadline = std::time::Instant::now() + Duration::from_millis(chance.random_range(1..most));
        while std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        if status.code().is_none() {
            kills += 1;
            twice += unfinished(path);
        } else {
            assert!(status.success(), "{said}");
        }
        if done(path) == FILES {
            // Once more from the beginning.
            let finished = run(path, &arguments);
            assert!(finished.status.success(), "{}", text(&finished.stderr));
            check(path);
            fs::remove_dir_all(path.join("index")).unwrap();
        }
    }
    let last = run(path, &arguments);
    assert!(last.status.success(), "{}", text(&last.stderr));
    check(path);
    println!(
        "{kills} of {ROUNDS} runs were killed; {twice} rows of shards in the making were computed twice"
    );
    assert!(kills > ROUNDS / 3, "{kills} runs were killed");
    // At most what was in flight: a shard for each kill.
    assert!(twice <= kills * SHARD, "{twice}");
}

/// Every file is there once, and nothing else.
fn check(folder: &Path) {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("index")).unwrap() {
        let file = entry.unwrap().path();
        if file.is_file() {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with("part-0-of-1-"), "{name}");
            for line in fs::read_to_string(&file).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["embedding"].as_array().unwrap().len(), 192);
                names.push(line["name"].as_str().unwrap().to_owned());
            }
        }
    }
    let rows = names.len();
    names.sort();
    names.dedup();
    assert_eq!((rows, names.len()), (FILES, FILES));
}

/// Parquet as well, killed once in the middle.
#[test]
fn tables_are_whole_or_not_there() {
    let folder = photos(60);
    let path = folder.path();
    let arguments =
        ["embed", "photos", "--model", "demo", "--threads", "1", "-o", "index", "--shard-rows", "5"];
    let mut child = command(path, &arguments).stderr(Stdio::null()).spawn().unwrap();
    while done(path) < 10 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = done(path);
    let output = run(path, &arguments);
    assert!(output.status.success());
    let told = text(&output.stderr);
    assert!(told.contains(&format!("{} rows in ", 60 - before)), "{before} were done: {told}");
    assert_eq!(rows(path).len(), 60);
}
