//! The rules of ARCHITECTURE.md that the compiler does not keep: which room may import which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top to the bottom, as ARCHITECTURE.md has them. Rooms in braces know nothing of each other.
fn order() -> Vec<BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let line = text.lines().find(|line| line.starts_with("`commands →")).expect("the line of the rooms");
    let chain = line.split('`').nth(1).unwrap();
    chain
        .split('→')
        .map(|level| {
            level.trim().trim_matches(['{', '}']).split(',').map(|room| room.trim().to_owned()).collect()
        })
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file without its comments. Strings stay: none of ours holds a path of the crate.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The names that follow `prefix`, in braces too: `crate::{image::Grid, model}` gives image and model.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.insert(name(rest));
            continue;
        };
        let (mut depth, mut first) = (0, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.insert(name(list[first..i].trim_start()));
                    first = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The room of a file of `src/`; none for `main.rs`, `lib.rs` and `testing.rs`, which see all of them.
fn room(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.iter().next().unwrap().to_str().unwrap();
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!["main", "lib", "testing"].contains(&room)).then(|| room.to_owned())
}

/// What every file imports of the other rooms.
fn imports() -> Vec<(PathBuf, String, String)> {
    let mut found = Vec::new();
    for file in files(&root().join("src")) {
        let Some(own) = room(&file) else { continue };
        let code = code(&fs::read_to_string(&file).unwrap());
        let mut names = names_after(&code, "crate::");
        // In the file of a room itself `super` is the crate.
        let inside = file.strip_prefix(root().join("src")).unwrap();
        if inside.ends_with(format!("{own}/mod.rs")) || inside.ends_with(format!("{own}.rs")) {
            names.extend(names_after(&code, "super::").into_iter().filter(|name| name != &own));
        }
        for name in names {
            // The crate's own error lives in `error`; its macros and other re-exports are no rooms.
            let name = if name == "Error" || name == "Result" { "error".to_owned() } else { name };
            if name != own {
                found.push((inside.to_owned(), own.clone(), name));
            }
        }
    }
    found
}

#[test]
fn a_lower_room_never_imports_a_higher_one() {
    let order = order();
    let level = |room: &str| order.iter().position(|level| level.contains(room));
    let rooms: BTreeSet<String> = files(&root().join("src")).iter().filter_map(|file| room(file)).collect();
    for room in &rooms {
        assert!(level(room).is_some(), "src/{room} has no place in the order of rooms in ARCHITECTURE.md");
    }
    let wrong: Vec<String> = imports()
        .into_iter()
        .filter(|(_, own, other)| rooms.contains(other) && level(other) <= level(own))
        .map(|(file, own, other)| format!("{}: {own} imports {other}", file.display()))
        .collect();
    assert!(wrong.is_empty(), "against the order in ARCHITECTURE.md:\n{}", wrong.join("\n"));
    assert!(
        imports().iter().all(|(.., other)| other != "testing"),
        "what is for tests is not for the program"
    );
}

/// Libraries that belong to one part of the program, with the rooms that may use them.
#[test]
fn libraries_stay_in_their_rooms() {
    let allowed: BTreeMap<&str, &[&str]> = [
        ("arrow_array", &["bulk"][..]),
        ("arrow_ipc", &["bulk"]),
        ("parquet", &["bulk", "commands"]),
        ("axum", &["api", "commands", "config"]),
        ("utoipa", &["api", "pipeline", "text", "model"]),
        ("candle_core", &["ops", "model", "pipeline", "checkpoint", "error", "engine"]),
        ("indicatif", &["commands", "checkpoint"]),
        ("tokenizers", &["text"]),
    ]
    .into();
    for file in files(&root().join("src")) {
        let Some(own) = room(&file) else { continue };
        let code = code(&fs::read_to_string(&file).unwrap());
        for (library, rooms) in &allowed {
            let used = !names_after(&code, &format!("{library}::")).is_empty();
            assert!(!used || rooms.contains(&own.as_str()), "{} uses {library}", file.display());
        }
    }
}

#[test]
fn imports_are_read_as_they_are_written() {
    let names = |code: &str| names_after(code, "crate::").into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(names("use crate::image::{Grid, Patches};"), "image");
    assert_eq!(names("use crate::{Error, image::{Grid, self}, telemetry};"), "Error image telemetry");
    assert_eq!(names("use crate::{\n    api,\n    engine::{self, Engine},\n};"), "api engine");
    assert_eq!(names("fn f(x: &crate::model::Siglip) -> crate::Result<()>"), "Result model");
    assert_eq!(names(&code("x // crate::api\n/// [`crate::engine`]\n")), "");
    assert_eq!(names("pub(crate) fn f()"), "");
    assert_eq!(names("$crate::commands::f()"), "commands");
}
