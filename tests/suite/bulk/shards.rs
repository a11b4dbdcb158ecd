//! `siglip embed` into a folder: what is there after a run, after another one, and after something went wrong.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::{command, examples, npy, run, text};

/// A folder `photos` of so many pictures, beside which the index goes.
pub fn photos(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = examples();
    fs::create_dir_all(folder.path().join("photos/sub")).unwrap();
    for i in 0..count {
        let sub = if i % 3 == 0 { "sub/" } else { "" };
        fs::copy(&files[i % files.len()], folder.path().join(format!("photos/{sub}{i:04}.png"))).unwrap();
    }
    folder
}

fn embed(folder: &Path, arguments: &[&str]) -> Output {
    run(
        folder,
        &[&["embed", "photos", "--model", "demo", "--output", "index", "--shard-rows", "10"], arguments]
            .concat(),
    )
}

/// What a run says that ends with this code.
fn told(output: &Output, code: i32) -> String {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

fn shards(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("index")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn batches(file: &Path) -> (BTreeMap<String, String>, Vec<RecordBatch>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let facts = builder.metadata().file_metadata().key_value_metadata().unwrap().iter();
    let facts = facts.map(|fact| (fact.key.clone(), fact.value.clone().unwrap())).collect();
    (facts, builder.build().unwrap().map(Result::unwrap).collect())
}

/// Every row of the index: its vector or its error. Fails where a name is there twice.
pub fn rows(folder: &Path) -> BTreeMap<String, Result<Vec<f32>, String>> {
    let mut rows = BTreeMap::new();
    for file in shards(folder) {
        for batch in batches(&file).1 {
            let names = batch.column_by_name("name").unwrap().as_string::<i32>();
            let errors = batch.column_by_name("error").unwrap().as_string::<i32>();
            let vectors = batch.column_by_name("embedding").unwrap().as_list::<i32>();
            for row in 0..batch.num_rows() {
                let result = match vectors.is_valid(row) {
                    true => Ok(vectors.value(row).as_primitive::<Float32Type>().values().to_vec()),
                    false => Err(errors.value(row).to_owned()),
                };
                let before = rows.insert(names.value(row).to_owned(), result);
                assert!(before.is_none(), "{} is there twice", names.value(row));
            }
        }
    }
    rows
}

fn manifest(folder: &Path, part: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(format!("index/_manifest/{part}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_folder_has_every_file_once_and_costs_only_what_is_new() {
    let folder = photos(25);
    let path = folder.path();
    let first = told(&embed(path, &[]), 0);
    assert!(
        first.contains("25 rows in 3 new shards") && first.contains("25 rows in all, 0 of them bad"),
        "{first}"
    );
    let done = rows(path);
    assert_eq!(done.len(), 25);
    // Names are relative to the folder, vectors those of a single file.
    let single = run(path, &["embed", "photos", "--model", "demo", "-o", "all.npy"]);
    assert!(single.status.success());
    let names = fs::read_to_string(path.join("all.names.txt")).unwrap();
    for (name, vector) in names.lines().zip(npy(&path.join("all.npy"), 192)) {
        assert_eq!(done[name.strip_prefix("photos/").unwrap()], Ok(vector), "{name}");
    }
    let (facts, batches) = batches(&shards(path)[0]);
    assert_eq!((facts["siglip.model"].as_str(), facts["siglip.fingerprint"].len()), ("demo", 64));
    let columns: Vec<String> =
        batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(columns.join(" "), "name kind time size mtime sha256 embedding error");
    for record in manifest(path, "0-of-1") {
        assert_eq!(record["fingerprint"], facts["siglip.fingerprint"].as_str());
        let file = &record["files"][0];
        let bytes = fs::read(path.join("index").join(file["name"].as_str().unwrap())).unwrap();
        assert_eq!(file["bytes"], bytes.len());
    }
    // Nothing is new.
    let before = shards(path);
    let again = told(&embed(path, &["--verify"]), 0);
    assert!(
        again.contains("25 rows in 3 shards are done already") && again.contains("0 rows in 0 new"),
        "{again}"
    );
    assert_eq!(shards(path), before);
    // Two more files, at the beginning and in the middle of the names.
    for name in ["photos/0000a.png", "photos/0012a.png"] {
        fs::copy(&examples()[0], path.join(name)).unwrap();
    }
    let more = told(&embed(path, &[]), 0);
    assert!(more.contains("2 rows in 1 new shards") && more.contains("27 rows in all"), "{more}");
    // One that changed costs its shard.
    fs::copy(&examples()[3], path.join("photos/0001.png")).unwrap();
    let changed = told(&embed(path, &[]), 0);
    assert!(changed.contains("10 rows in 1 new shards") && changed.contains("27 rows in all"), "{changed}");
    let now = rows(path);
    assert!(now.len() == 27 && now["0001.png"] != done["0001.png"] && now["0002.png"] == done["0002.png"]);
    // One that is gone stays, until it is asked for.
    fs::remove_file(path.join("photos/0002.png")).unwrap();
    assert!(told(&embed(path, &[]), 0).contains("1 rows are of files that are no longer there"));
    assert_eq!(rows(path).len(), 27);
    told(&embed(path, &["--prune"]), 0);
    assert_eq!(rows(path).len(), 26);
}

#[test]
fn several_machines_do_each_their_part() {
    let folder = photos(30);
    let path = folder.path();
    let parts = ["0/3", "1/3", "2/3"].map(|part| {
        let arguments =
            ["embed", "photos", "--model", "demo", "-o", "index", "--shard-rows", "4", "--shard", part];
        command(path, &arguments).stderr(Stdio::piped()).spawn().unwrap()
    });
    for part in parts {
        told(&part.wait_with_output().unwrap(), 0);
    }
    let done = rows(path);
    assert_eq!(done.len(), 30);
    let counts = ["0-of-3", "1-of-3", "2-of-3"]
        .map(|part| manifest(path, part).iter().map(|record| record["rows"].as_u64().unwrap()).sum::<u64>());
    assert!(counts.iter().sum::<u64>() == 30 && counts.iter().all(|&count| count > 0), "{counts:?}");
    // Another division of the same work has nothing left to do, but what is new.
    fs::copy(&examples()[0], path.join("photos/new.png")).unwrap();
    let whole = told(&embed(path, &[]), 0);
    assert!(whole.contains("1 rows in 1 new shards"), "{whole}");
    assert_eq!(rows(path).len(), 31);
    // A change is found in the shards of the other division.
    fs::copy(&examples()[1], path.join("photos/0001.png")).unwrap();
    fs::write(path.join("photos/0001.png"), fs::read(&examples()[4]).unwrap()).unwrap();
    told(&embed(path, &[]), 0);
    let now = rows(path);
    assert!(now.len() == 31 && now["0001.png"] != done["0001.png"]);
}

#[test]
fn bad_rows_are_rows_and_can_be_tried_again() {
    let folder = photos(5);
    let path = folder.path();
    fs::write(path.join("photos/bad.png"), "no picture").unwrap();
    fs::write(path.join("photos/empty.jpg"), "").unwrap();
    let output = told(&embed(path, &[]), 3);
    assert!(output.contains("bad: bad.png: ") && output.contains("7 rows in all, 2 of them bad"), "{output}");
    assert!(rows(path)["bad.png"].as_ref().unwrap_err().contains("format is not known"));
    assert!(told(&embed(path, &[]), 3).contains("0 rows in 0 new shards"));
    // The file is as before, by all that the system says.
    let retried = told(&embed(path, &["--retry-bad"]), 3);
    assert!(retried.contains("7 rows in 1 new shards"), "{retried}");
    fs::remove_file(path.join("photos/empty.jpg")).unwrap();
    fs::copy(&examples()[0], path.join("photos/bad.png")).unwrap();
    assert!(told(&embed(path, &["--prune"]), 0).contains("6 rows in all, 0 of them bad"));
}

#[test]
fn what_is_of_another_model_or_damaged_is_seen() {
    let folder = photos(12);
    let path = folder.path();
    told(&embed(path, &[]), 0);
    for other in [&["--no-normalize"][..], &["--image-decode", "fast"]] {
        let refused = told(&embed(path, other), 4);
        assert!(
            refused.contains("error: index is of demo (") && refused.contains("this run is of"),
            "{refused}"
        );
    }
    assert!(told(&embed(path, &["--format", "npy"]), 1).contains("has shards in parquet, not npy"));
    let done = rows(path);
    let file = &shards(path)[0];
    let whole = fs::read(file).unwrap();
    // Cut off, gone, and changed within its size.
    fs::write(file, &whole[..whole.len() / 2]).unwrap();
    assert!(told(&embed(path, &[]), 0).contains("not as the manifest says"));
    fs::remove_file(file).unwrap();
    assert!(told(&embed(path, &[]), 0).contains("not as the manifest says"));
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    assert!(told(&embed(path, &[]), 0).contains("0 rows in 0 new"));
    assert!(told(&embed(path, &["--verify"]), 0).contains("not as the manifest says"));
    assert_eq!(rows(path), done);
    // What a run that was killed left behind is no part of it.
    fs::write(path.join("index/part-0-of-1-feed.parquet"), "left behind").unwrap();
    fs::write(path.join("index/.part-0-of-1-feed.parquet"), "left behind").unwrap();
    fs::write(path.join("index/other.txt"), "somebody's").unwrap();
    told(&embed(path, &[]), 0);
    let left: Vec<PathBuf> =
        shards(path).into_iter().filter(|file| !file.to_string_lossy().ends_with(".parquet")).collect();
    assert_eq!(left, [path.join("index/other.txt")]);
    fs::remove_file(&left[0]).unwrap();
    assert_eq!(rows(path), done);
}

#[test]
fn two_runs_on_one_part_or_one_file_are_told_apart() {
    let folder = photos(120);
    let path = folder.path();
    let arguments =
        |output: &'static str| ["embed", "photos", "--model", "demo", "--threads", "1", "-o", output];
    for (output, lock, code, words) in [
        ("index", "index/_manifest/0-of-1.lock", 75, "another run works on this part of it (0-of-1)"),
        ("x.npy", "x.npy.part", 75, "another run is writing it"),
    ] {
        let mut first = command(path, &arguments(output)).stderr(Stdio::null()).spawn().unwrap();
        while !path.join(lock).exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert!(first.try_wait().unwrap().is_none(), "it ended before there was another");
        }
        // The first may take the lock a moment after it has made the file.
        std::thread::sleep(std::time::Duration::from_millis(20));
        // Stopped, so that it does not end before the other has waited.
        let signal = |name: &str| {
            let id = first.id().to_string();
            assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
        };
        signal("-STOP");
        let second = told(&run(path, &arguments(output)), code);
        signal("-CONT");
        assert!(second.contains(words), "{second}");
        assert!(first.wait().unwrap().success());
    }
    assert_eq!(rows(path).len(), 120);
    assert_eq!(fs::read_to_string(path.join("x.names.txt")).unwrap().lines().count(), 120);
}

#[test]
fn npy_and_jsonl_have_the_same_rows() {
    let folder = photos(7);
    let path = folder.path();
    fs::write(path.join("photos/bad.png"), "no picture").unwrap();
    told(&embed(path, &[]), 3);
    let table = rows(path);
    for format in ["npy", "jsonl"] {
        let output = format!("as-{format}/");
        let arguments =
            ["embed", "photos", "--model", "demo", "--format", format, "-o", &output, "--shard-rows", "5"];
        told(&run(path, &arguments), 3);
        assert!(told(&run(path, &arguments), 3).contains("0 rows in 0 new shards"));
        let mut seen = BTreeMap::new();
        for entry in fs::read_dir(path.join(&output)).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_none_or(|extension| extension != "jsonl") {
                continue;
            }
            let stem =
                file.to_str().unwrap().trim_end_matches(".jsonl").trim_end_matches(".names").to_owned();
            let values = if format == "npy" { npy(Path::new(&(stem + ".npy")), 192) } else { Vec::new() };
            for line in fs::read_to_string(&file).unwrap().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let result = match (line.get("error"), line.get("row"), line.get("embedding")) {
                    (Some(error), ..) => Err(error.as_str().unwrap().to_owned()),
                    (_, Some(row), _) => Ok(values[row.as_u64().unwrap() as usize].clone()),
                    (.., Some(vector)) => Ok(serde_json::from_value(vector.clone()).unwrap()),
                    _ => panic!("{line}"),
                };
                seen.insert(line["name"].as_str().unwrap().to_owned(), result);
            }
        }
        assert_eq!(seen, table, "{format}");
    }
}
