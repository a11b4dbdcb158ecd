//! `siglip embed --frames`: rows of animations and videos, with their times.

use std::fs;
use std::path::Path;
use std::process::Output;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::shards::rows;
use super::{command, examples, text};

/// An animation of plain colours, each shown for so many hundredths of a second.
fn gif(path: &Path, frames: &[(u8, u16)]) {
    let palette: Vec<u8> = (0..8u8).flat_map(|i| [i * 36, 255 - i * 36, i * 17]).collect();
    let mut encoder = gif::Encoder::new(fs::File::create(path).unwrap(), 32, 24, &palette).unwrap();
    for &(colour, delay) in frames {
        let buffer = vec![colour; 32 * 24].into();
        encoder
            .write_frame(&gif::Frame { width: 32, height: 24, delay, buffer, ..gif::Frame::default() })
            .unwrap();
    }
}

fn times(folder: &Path) -> Vec<(String, Option<f64>)> {
    let mut times = Vec::new();
    for entry in fs::read_dir(folder.join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap()).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let names = batch.column_by_name("name").unwrap().as_string::<i32>();
            let moments = batch.column_by_name("time").unwrap().as_primitive::<Float64Type>();
            times.extend(
                (0..batch.num_rows()).map(|row| {
                    (names.value(row).to_owned(), moments.is_valid(row).then(|| moments.value(row)))
                }),
            );
        }
    }
    times.sort_by(|a, b| a.0.cmp(&b.0));
    times
}

/// The program where there is no `ffmpeg`.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).env("PATH", "/nowhere").output().unwrap()
}

const ARGUMENTS: [&str; 8] = ["embed", "photos", "--model", "demo", "--output", "index", "--frames", "2"];

#[test]
fn animations_are_rows_with_times_and_everything_else_is_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("photos")).unwrap();
    fs::copy(&examples()[0], path.join("photos/still.png")).unwrap();
    gif(&path.join("photos/moving.gif"), &[(1, 10), (2, 10), (3, 10), (4, 10)]);
    gif(&path.join("photos/one.gif"), &[(5, 10)]);
    fs::write(path.join("photos/bad.gif"), b"GIF89a").unwrap();
    fs::write(path.join("photos/film.mp4"), "a film").unwrap();
    let output = run(path, &ARGUMENTS);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    let film = "not indexed: 1 videos, for which ffmpeg must be on PATH (film.mp4)";
    assert!(told.contains(film) && told.contains("5 rows in 1 new shards"), "{told}");
    let some = |name: &str, time| (name.to_owned(), time);
    let expected = [
        some("bad.gif", None),
        some("moving.gif#t=0.100", Some(0.1)),
        some("moving.gif#t=0.300", Some(0.3)),
        some("one.gif", None),
        some("still.png", None),
    ];
    assert_eq!(times(path), expected);
    let frames = rows(path);
    assert!(frames["bad.gif"].is_err());
    // The vector of a frame is that of the picture that it shows.
    gif(&path.join("second.gif"), &[(2, 10)]);
    let single = run(path, &["embed", "second.gif", "--model", "demo", "--output", "x.npy"]);
    assert!(single.status.success(), "{}", text(&single.stderr));
    assert_eq!(frames["moving.gif#t=0.100"], Ok(super::npy(&path.join("x.npy"), 192).remove(0)));
    // Nothing is new; a change costs its shard; another number of frames is another index.
    assert!(text(&run(path, &ARGUMENTS).stderr).contains("0 rows in 0 new shards"));
    gif(&path.join("photos/moving.gif"), &[(1, 50), (2, 10)]);
    let changed = text(&run(path, &ARGUMENTS).stderr);
    assert!(changed.contains("4 rows in 1 new shards"), "{changed}");
    assert!(times(path).contains(&some("moving.gif#t=0.150", Some(0.15))), "{:?}", times(path));
    for (arguments, words) in [
        (&ARGUMENTS[..6], "index has 2 frames of each animation, not the first frame (--frames)"),
        (&["embed", "photos", "--model", "demo", "-o", "x.npy", "--frames", "2"], "go into a folder"),
    ] {
        let refused = run(path, arguments);
        assert!(text(&refused.stderr).contains(words), "{}", text(&refused.stderr));
        assert_eq!(refused.status.code(), Some(1));
    }
    // In lines of JSON, too, and out of a tar.
    let tar = std::process::Command::new("tar").args(["cf", "set.tar", "photos"]).current_dir(path).status();
    assert!(tar.unwrap().success());
    let arguments =
        ["embed", "set.tar", "--model", "demo", "-o", "lines", "--format", "jsonl", "--frames", "9"];
    let output = run(path, &arguments);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let mut files = fs::read_dir(path.join("lines")).unwrap().map(|entry| entry.unwrap().path());
    let lines = fs::read_to_string(files.find(|path| path.is_file()).unwrap()).unwrap();
    let moving: Vec<serde_json::Value> = lines
        .lines()
        .filter(|line| line.contains("#t="))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(moving.len(), 2, "two frames are shown, however many are asked for: {lines}");
    assert_eq!((&moving[0]["time"], &moving[0]["sha256"]), (&0.033.into(), &moving[1]["sha256"]));
}

/// What `ffmpeg` is asked for, and what becomes of its answers: a script in its place.
#[cfg(unix)]
#[test]
fn videos_go_through_ffmpeg() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join("photos")).unwrap();
    fs::create_dir(path.join("bin")).unwrap();
    // A bitmap of one red pixel, and one of a blue one.
    let bitmap = |colour: [u8; 3]| {
        let mut file = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0".to_vec();
        file.extend([0; 24]);
        file.extend(colour);
        file.push(0);
        file
    };
    fs::write(path.join("red.bmp"), bitmap([0, 0, 255])).unwrap();
    fs::write(path.join("blue.bmp"), bitmap([255, 0, 0])).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {0}/asked\ncase \"$*\" in\n\
         *-version*) exit 0;;\n\
         *broken*) echo 'broken.mov: Invalid data found when processing input' >&2; exit 1;;\n\
         *'-ss 1.000'*) cat {0}/red.bmp;;\n*'-ss 3.000'*) cat {0}/blue.bmp;;\n*'-ss 5.000'*) cat {0}/blue.bmp;;\n\
         *) echo '  Duration: 00:00:06.00, start: 0.000000, bitrate: 9 kb/s' >&2\n\
         echo 'At least one output file must be specified' >&2; exit 1;;\nesac\n",
        path.display()
    );
    fs::write(path.join("bin/ffmpeg"), script).unwrap();
    fs::set_permissions(path.join("bin/ffmpeg"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path.join("photos/film.mp4"), "a film").unwrap();
    fs::write(path.join("photos/broken.mov"), "no film").unwrap();
    let search = format!("{}:/usr/bin:/bin", path.join("bin").display());
    let arguments = [&ARGUMENTS[..7], &["3"]].concat();
    let output = command(path, &arguments).env("PATH", &search).output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("bad: broken.mov: ffmpeg: broken.mov: Invalid data found"), "{told}");
    // The third frame is the second once more.
    let names: Vec<(String, Option<f64>)> = times(path);
    let expected = [("broken.mov", None), ("film.mp4#t=1.000", Some(1.0)), ("film.mp4#t=3.000", Some(3.0))];
    assert_eq!(names, expected.map(|(name, time)| (name.to_owned(), time)));
    let asked = fs::read_to_string(path.join("asked")).unwrap();
    assert!(
        asked.contains("-protocol_whitelist file -v error -ss 1.000 -i file:photos/film.mp4 -map 0:v:0"),
        "{asked}"
    );
    let again = command(path, &arguments).env("PATH", &search).output().unwrap();
    assert!(text(&again.stderr).contains("0 rows in 0 new shards"), "{}", text(&again.stderr));
}
