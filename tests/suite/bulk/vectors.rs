//! `siglip search` and `siglip dedup` over what `siglip embed` wrote.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::shards::photos;
use super::{examples, run, text};

/// Lines of a table, split at tabs.
fn table(folder: &Path, arguments: &[&str]) -> Vec<Vec<String>> {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
fn texts_and_pictures_find_what_is_nearest_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("p")).unwrap();
    for file in examples() {
        fs::copy(&file, path.join("p").join(file.file_name().unwrap())).unwrap();
    }
    fs::write(path.join("p/bad.png"), "no picture").unwrap();
    for output in ["index", "one.npy", "one.parquet", "one.jsonl"] {
        run(path, &["embed", "p", "--model", "demo", "-o", output]);
    }
    run(path, &["embed", "p", "--model", "demo", "-o", "asnpy/", "--format", "npy"]);
    let mut answers = Vec::new();
    for index in ["index", "asnpy", "one.npy", "one.parquet", "one.jsonl"] {
        let cat = example("cat-face.png");
        let arguments =
            ["search", index, "--model", "demo", "--text", "a guitar", "--image", &cat, "--top-k", "3"];
        let found = table(path, &arguments);
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found[0][0] == "a guitar" && found[0][2].ends_with("guitar.png"), "{found:?}");
        assert!(found[3][2].ends_with("cat-face.png"), "{found:?}");
        assert!(found[3][1].parse::<f32>().unwrap() > 0.999);
        assert!(found[0][1].parse::<f32>().unwrap() > found[1][1].parse::<f32>().unwrap());
        let names = |rows: &[Vec<String>]| -> Vec<String> {
            rows.iter().map(|row| format!("{} {}", row[1], row[2].rsplit('/').next().unwrap())).collect()
        };
        answers.push(names(&found));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    // What is there already needs no model.
    let like = table(path, &["search", "index", "--like", "guitar.png", "--top-k", "1"]);
    assert_eq!((like[0][1].as_str(), like[0][2].as_str()), ("1.000000", "guitar.png"));
    let output = run(path, &["search", "index", "--like", "guitar.png", "--threshold", "0.9999", "--json"]);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["name"], "guitar.png");
    for (arguments, code, words) in [
        (&["search", "index", "--like", "nobody.png"][..], 1, "there is no row \"nobody.png\""),
        (&["search", "index", "--text", "x"], 1, "which model?"),
        (&["search", "index", "--model", "demo"], 1, "nothing to look for"),
        (
            &["search", "index", "--model", "demo", "--text", "x", "--image-decode", "fast"],
            4,
            "cannot be compared",
        ),
        (&["search", "p", "--like", "x"], 65, "no folder that siglip embed wrote"),
        (&["search", "p/bad.png", "--like", "x"], 65, "neither a folder"),
    ] {
        let output = run(path, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
    // Files that lie about their size are not believed.
    let mut bytes = fs::read(path.join("one.npy")).unwrap();
    bytes.truncate(bytes.len() - 4);
    fs::write(path.join("one.npy"), bytes).unwrap();
    let output = run(path, &["search", "one.npy", "--like", "x"]);
    assert!(text(&output.stderr).contains("has not the size"), "{}", text(&output.stderr));
}

fn example(name: &str) -> String {
    examples().into_iter().find(|file| file.ends_with(name)).unwrap().display().to_string()
}

#[test]
fn pictures_that_are_the_same_are_groups() {
    let kinds = examples().len();
    let folder = photos(2 * kinds + 1);
    let path = folder.path();
    run(path, &["embed", "photos", "--model", "demo", "-o", "index"]);
    let found = table(path, &["dedup", "index", "--threshold", "0.9999"]);
    assert_eq!(found.len(), 2 * kinds + 1, "every picture is there twice, one three times: {found:?}");
    let groups: std::collections::BTreeSet<&str> = found.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(groups.len(), kinds);
    let output = run(path, &["dedup", "index", "--threshold", "0.9999", "--json"]);
    let three = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|group| group["rows"].as_array().unwrap().len() == 3)
        .unwrap();
    let names: Vec<&str> =
        three["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    let expected =
        [0, kinds, 2 * kinds].map(|i| format!("{}{i:04}.png", if i % 3 == 0 { "sub/" } else { "" }));
    assert!(expected.iter().all(|name| names.contains(&name.as_str())), "{names:?} {expected:?}");
    assert!(text(&output.stderr).contains(&format!("in {kinds} groups")));
}

#[test]
fn classify_takes_folders_labels_out_of_files_and_a_threshold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("p")).unwrap();
    for name in ["cat-face.png", "guitar.png"] {
        fs::copy(example(name), path.join("p").join(name)).unwrap();
    }
    fs::write(path.join("labels.txt"), "cat\n\ncar\n").unwrap();
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let output = run(path, &[&["classify", "p", "--model", "demo", "--json"], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let labels = |line: &Value| line["predictions"].as_array().unwrap().len();
    let all = lines(&["--labels", "@labels.txt,guitar"]);
    assert_eq!((all.len(), labels(&all[0]), labels(&all[1])), (2, 3, 3));
    assert!(all[0]["image"] == "p/cat-face.png" && all[1]["predictions"][0]["label"] == "guitar");
    let least = all[0]["predictions"][0]["score"]
        .as_f64()
        .unwrap()
        .min(all[1]["predictions"][0]["score"].as_f64().unwrap());
    let some = lines(&["--labels", "@labels.txt,guitar", "--threshold", &format!("{:.7}", least * 0.99)]);
    assert!(labels(&some[0]) < 3 && labels(&some[0]) > 0 && labels(&some[1]) > 0, "{some:?}");
    assert!(lines(&["--labels", "cat", "--threshold", "1"]).iter().all(|line| labels(line) == 0));
    let wrong = run(path, &["classify", "p", "--model", "demo", "--labels", "cat", "--threshold", "2"]);
    assert!(text(&wrong.stderr).contains("2 is not between 0 and 1"), "{}", text(&wrong.stderr));
}
