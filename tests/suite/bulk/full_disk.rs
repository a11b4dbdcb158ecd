//! A disk that is full: a clear error, nothing half-written that counts, and a run that goes on when there is room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::shards::{photos, rows};
use super::{command, npy, text};

const FILES: usize = 60;

/// A small file system in memory, at `index` in a folder. Unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// None where the system does not let this process mount one.
    fn mount(folder: &Path, kilobytes: usize) -> Option<Self> {
        let place = folder.join("index");
        fs::create_dir_all(&place).unwrap();
        let size = format!("size={kilobytes}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(place)),
            Ok(output) => {
                println!("SKIPPED: no small file system can be mounted: {}", text(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("SKIPPED: there is no mount: {error}");
                None
            }
        }
    }

    fn resize(&self, kilobytes: usize) {
        let size = format!("remount,size={kilobytes}k");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Runs the program; no file that it writes may become larger than so many blocks of 512 bytes.
fn limited(folder: &Path, blocks: usize, arguments: &[&str]) -> Output {
    // Without the signal that comes first, what is written beyond the limit is an error.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_siglip")]).args(arguments);
    shell.current_dir(folder).env_clear().env("HF_HUB_OFFLINE", "1").output().unwrap()
}

/// What a run says that ended since its output cannot be written.
fn refused(output: &Output) -> String {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    let clear = ["No space left on device", "File too large"].iter().any(|words| told.contains(words));
    assert!(errors.len() == 1 && clear, "{told}");
    told
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

const SHARDS: [&str; 7] = ["embed", "photos", "--model", "demo", "--output", "index/", "--shard-rows"];

#[test]
fn a_folder_goes_on_when_the_disk_has_room_again() {
    let folder = photos(FILES);
    let path = folder.path();
    let Some(disk) = Disk::mount(path, 4) else { return };
    let arguments = [&SHARDS[..], &["10"]].concat();
    let (mut refusals, mut before) = (0, 0);
    // A little more room each time: it is full while the lock, a shard, a line of the manifest is written.
    for kilobytes in (4..=200).step_by(4) {
        disk.resize(kilobytes);
        let output = command(path, &arguments).output().unwrap();
        if output.status.success() {
            break;
        }
        refused(&output);
        refusals += 1;
        // Whatever counts is whole: the rows of every line of the manifest are there, and lines are never lost.
        let manifest = fs::read_to_string(path.join("index/_manifest/0-of-1.jsonl")).unwrap_or_default();
        let whole = &manifest[..manifest.rfind('\n').map_or(0, |end| end + 1)];
        let mut done = 0;
        for line in whole.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            for file in line["files"].as_array().unwrap() {
                let found = fs::metadata(path.join("index").join(file["name"].as_str().unwrap())).unwrap();
                assert_eq!(file["bytes"], found.len());
            }
            done += line["rows"].as_u64().unwrap();
        }
        assert!(done >= before, "{done} rows are done, {before} were");
        before = done;
    }
    assert!(refusals > 3 && before > 0, "{refusals} runs found no room, after {before} rows");
    let last = command(path, &arguments).output().unwrap();
    assert!(
        last.status.success() && text(&last.stderr).contains("0 rows in 0 new"),
        "{}",
        text(&last.stderr)
    );
    let verified = command(path, &[&arguments[..], &["--verify"]].concat()).output().unwrap();
    assert!(text(&verified.stderr).contains("0 rows in 0 new"), "{}", text(&verified.stderr));
    assert_eq!(rows(path).len(), FILES);
    println!("{refusals} runs found no room");
}

#[test]
fn a_shard_that_does_not_fit_is_not_there() {
    let folder = photos(FILES);
    let path = folder.path();
    let whole = [&SHARDS[..], &["30"]].concat();
    for format in ["parquet", "npy", "jsonl"] {
        let arguments = [&whole[..], &["--format", format]].concat();
        // The header, the middle, the last bytes.
        for blocks in [2, 20, 45] {
            refused(&limited(path, blocks, &arguments));
            assert_eq!(files(&path.join("index")), ["_manifest"], "{format}, {blocks} blocks");
        }
        let done = command(path, &arguments).output().unwrap();
        let told = text(&done.stderr);
        assert!(done.status.success() && told.contains("60 rows in 2 new shards"), "{told}");
        fs::remove_dir_all(path.join("index")).unwrap();
    }
}

#[test]
fn one_file_is_whole_or_not_there() {
    let folder = photos(FILES);
    let path = folder.path();
    for name in ["x.npy", "x.parquet", "x.jsonl"] {
        let arguments = ["embed", "photos", "--model", "demo", "--output", name];
        for blocks in [0, 2, 8] {
            refused(&limited(path, blocks, &arguments));
            assert_eq!(files(path), ["photos"], "{name}, {blocks} blocks");
        }
        // What is there stays as it is when a later run finds no room.
        fs::write(path.join(name), "from before").unwrap();
        refused(&limited(path, 8, &arguments));
        assert_eq!(fs::read(path.join(name)).unwrap(), b"from before");
        let done = command(path, &arguments).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        if name == "x.npy" {
            assert_eq!(npy(&path.join(name), 192).len(), FILES);
            fs::remove_file(path.join("x.names.txt")).unwrap();
        }
        fs::remove_file(path.join(name)).unwrap();
    }
}
