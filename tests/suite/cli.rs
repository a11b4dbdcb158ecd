//! The program as it is run: files written, tables printed, exit codes.
#![cfg(feature = "demo")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use siglip::testing::image::{ImageLimits, decode};

use crate::support::tiny::{Array, Family, Tiny, WIDTH};

fn siglip(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_siglip"))
        .args(arguments)
        .current_dir(folder)
        // What the surroundings set must not change the answer.
        .env_clear()
        .env("HF_HUB_OFFLINE", "1")
        .env("SIGLIP_MODEL", "demo")
        .output()
        .unwrap()
}

fn example(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "models/demo/examples", name].iter().collect();
    path.to_str().unwrap().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn embeddings_are_rows_of_a_numpy_file_with_their_names_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    let (cat, car) = (example("cat-face.png"), example("red-car.png"));
    let arguments = [
        "embed",
        "--text",
        "a cat",
        &cat,
        "broken.png",
        &car,
        "--output",
        "x.npy",
        "--max-batch-tokens",
        "1",
    ];
    let output = siglip(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("skipped broken.png"));
    let bytes = std::fs::read(folder.path().join("x.npy")).unwrap();
    let header = text(&bytes[10..128]);
    assert!(header.contains("'descr': '<f4'") && header.contains("'shape': (3, 192)"), "{header}");
    assert_eq!(bytes.len(), 128 + 3 * 192 * 4);
    let values: Vec<f32> =
        bytes[128..].chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    for row in values.chunks(192) {
        assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
    }
    let names = std::fs::read_to_string(folder.path().join("x.names.txt")).unwrap();
    assert_eq!(names.lines().collect::<Vec<_>>(), ["a cat", &cat, &car]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_what_is_done_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let run = |count: usize, arguments: &[&str]| {
        let list = folder.path().join("list.txt");
        std::fs::write(&list, format!("{}\n", example("cat-face.png")).repeat(count)).unwrap();
        Command::new(env!("CARGO_BIN_EXE_siglip"))
            .args([&["embed", "-"], arguments].concat())
            .current_dir(folder.path())
            .env_clear()
            .env("SIGLIP_MODEL", "demo")
            .stdin(std::fs::File::open(&list).unwrap())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let rows = |name: &str| {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        let rows = (bytes.len() - 128) / (192 * 4);
        assert!(text(&bytes[10..128]).contains(&format!("'shape': ({rows}, 192)")));
        rows
    };
    let mut child = run(50_000, &["--output", "x.npy"]);
    let part = folder.path().join("x.npy.part");
    while std::fs::metadata(&part).map_or(0, |file| file.len()) <= 128 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    let done = rows("x.npy");
    assert!((1..50_000).contains(&done));
    assert!(told.contains(&format!("{done} of 50000 inputs are done")), "{told}");
    assert!(told.contains(&format!("--skip {done} ")), "{told}");
    let names = std::fs::read_to_string(folder.path().join("x.names.txt")).unwrap();
    assert_eq!(names.lines().count(), done);
    // As it was told.
    let skip = done.to_string();
    let output = run(done + 2, &["--output", "y.npy", "--skip", &skip]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(rows("y.npy"), 2);
    let output = run(2, &["--output", "z.npy", "--skip", "2"]).wait_with_output().unwrap();
    assert!(text(&output.stderr).contains("there are only 2 inputs"));
}

#[test]
fn nothing_is_left_behind_when_nothing_could_be_embedded() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.png"), b"no picture").unwrap();
    for name in ["x.npy", "x.jsonl", "x.parquet"] {
        let output = siglip(folder.path(), &["embed", "broken.png", "--output", name]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["broken.png"], "{name}");
    }
    let output = siglip(folder.path(), &["embed", "broken.png", "--output", "x.csv"]);
    assert!(text(&output.stderr).contains(".npy, .jsonl or .parquet"));
}

#[test]
fn token_ids_give_what_their_text_gives() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["embed", "--text", "a cat", "--token-ids", "3021,3782,1", "--output", "x.jsonl"];
    assert!(siglip(folder.path(), &arguments).status.success());
    let rows = std::fs::read_to_string(folder.path().join("x.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["embedding"], rows[1]["embedding"]);
    assert_eq!(rows[0]["kind"], "text");
    let output = siglip(folder.path(), &["embed", "--token-ids", "1,x", "--output", "y.jsonl"]);
    assert!(text(&output.stderr).contains("\"x\" is no token id"));
}

#[test]
fn classify_ranks_labels() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["classify", &example("cat-face.png"), "--labels", "car, cat,guitar", "--json"];
    let output = siglip(folder.path(), &arguments);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let predictions = answer["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 3);
    assert_eq!(predictions[0]["label"], "cat");
    let (score, logit) = (&predictions[0]["score"], &predictions[0]["logit"]);
    let expected = 1.0 / (1.0 + (-logit.as_f64().unwrap()).exp());
    assert!((score.as_f64().unwrap() - expected).abs() < 1e-5);
    std::fs::write(folder.path().join("broken.png"), b"no picture").unwrap();
    let arguments =
        ["classify", &example("cat-face.png"), "broken.png", &example("red-car.png"), "--labels", "car,cat"];
    let several = siglip(folder.path(), &arguments);
    assert_eq!(several.status.code(), Some(3));
    let (out, told) = (text(&several.stdout), text(&several.stderr));
    assert!(out.find("cat-face.png").unwrap() < out.find("red-car.png").unwrap(), "{out}");
    assert!(told.contains("skipped broken.png"), "{told}");
    let table =
        siglip(folder.path(), &["classify", &example("red-car.png"), "--labels", "car,cat", "--top-k", "1"]);
    assert!(text(&table.stdout).contains("car") && !text(&table.stdout).contains("  cat"));
}

#[test]
fn classify_draws_where_the_best_label_is() {
    let folder = tempfile::tempdir().unwrap();
    let cat = example("cat-face.png");
    let arguments = ["classify", &cat, "--labels", "car,cat", "--heatmap", "map.png"];
    let output = siglip(folder.path(), &arguments);
    assert!(text(&output.stderr).contains("map.png: where \"cat\" is"), "{}", text(&output.stderr));
    let open = |path: &Path| decode(&std::fs::read(path).unwrap(), &ImageLimits::default()).unwrap();
    let (drawn, original) = (open(&folder.path().join("map.png")), open(Path::new(&cat)));
    assert_eq!((drawn.width(), drawn.height()), (original.width(), original.height()));
    assert!(drawn.pixels() != original.pixels());
    let two = ["classify", &cat, &cat, "--labels", "cat", "--heatmap", "map.png"];
    let refused = siglip(folder.path(), &two);
    assert!(text(&refused.stderr).contains("draws one image, not 2"), "{}", text(&refused.stderr));
}

#[test]
fn classify_reads_a_label_set_says_when_none_fits_and_learns_from_examples() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("instruments.csv", "name,synonyms\nguitar,\ntrumpet,horn\n");
    write("nouns.txt", "red apple\nTrumpet\ncar\ncat\n");
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let output = siglip(folder.path(), &[&["classify", "--json"], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (apple, guitar) = (example("red-apple.png"), example("guitar.png"));
    let set = [&apple, &guitar, "--label-set", "instruments.csv", "--template", "siglip"];
    let against = lines(&[&set[..], &["--none=nouns.txt"]].concat());
    assert_eq!(
        (&against[0]["none"]["none_fits"], &against[1]["none"]["none_fits"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(against[1]["predictions"][0]["label"], "guitar");
    let flat = lines(&[&set[..], &["--none"]].concat());
    assert_eq!((&flat[0]["none"]["none_fits"], &flat[1]["none"]["none_fits"]), (&json!(true), &json!(false)));

    // Words that nobody knows, and pictures that say what they mean.
    let (red, sun) = (format!("blorp={apple}"), format!("zarp={}", example("sunflower.png")));
    let made_up = ["--labels", "zarp,blorp", "--examples", &red, "--examples", &sun];
    let taught = lines(&[&[apple.as_str(), &example("sunflower.png")][..], &made_up].concat());
    let best = |at: usize| taught[at]["predictions"][0]["label"].as_str().unwrap();
    assert_eq!((best(0), best(1)), ("blorp", "zarp"));
    for (arguments, part) in [
        (&["--label-set", "none.txt"][..], "none.txt"),
        (&["--labels", "a", "--none=2"], "2 is not between 0 and 1"),
        (&["--labels", "a", "--examples", "b=x"], "there is no such label"),
        (&["--none"], "--none need --labels"),
    ] {
        let output = siglip(folder.path(), &[&["classify", apple.as_str()], arguments].concat());
        assert!(!output.status.success() && text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

/// A checkpoint with a classifier knows its labels; one without says so.
#[test]
fn classify_without_labels_takes_those_of_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(Family::SigLip1);
    tiny.arrays.retain(|name, _| name.starts_with("vision_model.") && !name.contains(".head."));
    let row = |shape: &[usize], value: f32| Array {
        shape: shape.to_vec(),
        values: vec![value; shape.iter().product()],
    };
    tiny.arrays.insert("classifier.weight".into(), row(&[3, WIDTH], 0.0));
    tiny.arrays.insert("classifier.bias".into(), Array { shape: vec![3], values: vec![0.0, 2.0, 1.0] });
    tiny.config["id2label"] = json!({ "0": "cat", "1": "dog", "2": "owl" });
    tiny.write(folder.path());
    let model = folder.path().to_str().unwrap();
    let output = siglip(folder.path(), &["classify", &example("cat-face.png"), "--model", model, "--json"]);
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let labels: Vec<&str> =
        answer["predictions"].as_array().unwrap().iter().map(|p| p["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["dog", "owl", "cat"]);
    let shares: Vec<f64> =
        answer["predictions"].as_array().unwrap().iter().map(|p| p["score"].as_f64().unwrap()).collect();
    let sum = 2f64.exp() + 1f64.exp() + 1.0;
    assert!(
        (shares[0] - 2f64.exp() / sum).abs() < 1e-4 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-5,
        "{shares:?}"
    );
    let inspected = text(&siglip(folder.path(), &["inspect", "--model", model]).stdout);
    for line in ["classifier     3 labels by softmax: cat, dog, owl", "alignment      none", "mean pooling"] {
        assert!(inspected.contains(line), "{line:?} is not in\n{inspected}");
    }
    let without = siglip(folder.path(), &["classify", &example("cat-face.png")]);
    assert!(text(&without.stderr).contains("no classifier of its own"), "{}", text(&without.stderr));
}

#[test]
fn inspect_verify_and_bench_answer() {
    let folder = tempfile::tempdir().unwrap();
    let inspected: Value =
        serde_json::from_slice(&siglip(folder.path(), &["inspect", "--json"]).stdout).unwrap();
    assert_eq!(inspected["embedding_dim"], 192);
    assert_eq!(inspected["fingerprint"].as_str().unwrap().len(), 64);
    // What changes the space that embeddings lie in changes the fingerprint; the arithmetic does not.
    let with = |options: &[&str]| -> Value {
        let found = siglip(folder.path(), &[&["inspect", "--json"], options].concat());
        serde_json::from_slice(&found.stdout).unwrap()
    };
    assert_eq!(with(&["--dtype", "bf16"])["fingerprint"], inspected["fingerprint"]);
    let fast = with(&["--image-decode", "fast"]);
    assert_eq!((&inspected["image_decode"], &fast["image_decode"]), (&json!("exact"), &json!("fast")));
    assert_ne!(fast["fingerprint"], inspected["fingerprint"]);
    let verified = siglip(folder.path(), &["verify"]);
    assert!(verified.status.success() && text(&verified.stdout).ends_with("passed\n"));
    for (tower, operation) in [("text", "linear 192 to 192"), ("image", "pooling by the probe")] {
        let arguments =
            ["bench", "--tower", tower, "--batch", "2", "--seconds", "0.1", "--json", "--profile"];
        let lines = text(&siglip(folder.path(), &arguments).stdout);
        let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert!(last["items_per_second"].as_f64().unwrap() > 0.0);
        let (speed, peak) = ("multiplications_per_second", "peak_multiplications_per_second");
        assert!(last[speed].as_f64().unwrap() > 0.0 && last[peak].as_f64().unwrap() > 0.0, "{last}");
        for name in [operation, "attention", "layer norm", "everything else"] {
            assert!(lines.lines().any(|line| line.starts_with(name)), "{name}: {lines}");
        }
    }
    for decode in ["exact", "fast"] {
        let picture = format!("{}/tests/fixtures/images/420.jpg", env!("CARGO_MANIFEST_DIR"));
        let arguments =
            ["bench", "--prepare", &picture, "--image-decode", decode, "--seconds", "0.1", "--json"];
        let lines = text(&siglip(folder.path(), &arguments).stdout);
        let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!(last["tower"], "preparation");
        assert!(last["items_per_second"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, message) in [
        (&["inspect", "--model", "./nowhere"][..], "no such file or folder"),
        (&["inspect", "--model", "owner/name"], "HF_HUB_OFFLINE"),
        (&["inspect", "--model", "neither"], "owner/name[@revision]"),
        (&["bench", "--device", "cpu", "--dtype", "f16"], "int8"),
        (&["classify", "x.png", "--labels", "a", "--template", "no slot"], "no slot"),
    ] {
        let output = siglip(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains(message), "{arguments:?}: {}", text(&output.stderr));
    }
}
