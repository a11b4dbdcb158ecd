//! What `siglip embed` takes: folders with what is in them, lists, tars, tables, texts.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::shards::rows;
use super::streams::{batch, stream};
use super::{command, examples, run, text};

fn picture(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(&examples()[0], path).unwrap();
}

fn names(folder: &Path) -> String {
    rows(folder).into_keys().collect::<Vec<_>>().join(" ")
}

#[cfg(unix)]
#[test]
fn folders_are_searched_and_what_is_left_out_is_told() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in [
        "p/a.png",
        "p/b/c.PNG",
        "p/@eaDir/a.png",
        "p/._a.png",
        "p/.hidden/x.png",
        "p/phone.heic",
        "p/bare",
        "p/notes.txt",
        "p/raw/x.png",
        "p/data.parquet",
        "p/Thumbs.db",
        "elsewhere/far.png",
    ] {
        picture(&path.join(name));
    }
    symlink("../elsewhere", path.join("p/link")).unwrap();
    symlink("nowhere", path.join("p/broken.png")).unwrap();
    symlink("..", path.join("p/b/back")).unwrap();
    let arguments = ["embed", "p", "--model", "demo", "-o", "index", "--exclude", "raw"];
    let output = run(path, &arguments);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    // By its name: what is in it is a PNG.
    let phone = if cfg!(feature = "heif") { " phone.heic" } else { "" };
    assert_eq!(names(path), format!("a.png b/c.PNG{phone}"));
    for line in [
        "2 files of the system (._a.png, Thumbs.db)",
        "2 folders of the system, or hidden (.hidden, @eaDir)",
        "2 links to folders (--follow) (b/back, link)",
        "1 links that lead nowhere (broken.png)",
        #[cfg(not(feature = "heif"))]
        "1 .heic, for which this program was not built (the feature heif) (phone.heic)",
        "1 without an extension (name them, or give a list) (bare)",
        "1 .txt, no picture by its name (notes.txt)",
        "1 files of many inputs (name them, or give a list) (data.parquet)",
        "1 excluded (--exclude) (raw)",
    ] {
        assert!(told.contains(&format!("not indexed: {line}\n")), "{line:?} is not in {told}");
    }
    let output = run(path, &[&arguments[..], &["--follow"]].concat());
    let told = text(&output.stderr);
    assert!(told.contains("1 links that lead back (b/back)"), "{told}");
    assert_eq!(names(path), format!("a.png b/c.PNG link/far.png{phone}"));
}

#[test]
fn lists_name_files_that_need_not_have_an_extension() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["a.png", "with\nbreak.png", "bare"] {
        picture(&path.join(name));
    }
    let mut child = command(path, &["embed", "-", "--null", "--model", "demo", "-o", "index"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"./a.png\0with\nbreak.png\0bare\0missing.png\0").unwrap();
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    // One of them is not there.
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("not indexed: 1 cannot be read") && told.contains("(missing.png)"), "{told}");
    assert_eq!(rows(path).into_keys().collect::<Vec<_>>(), ["a.png", "bare", "with\nbreak.png"]);
    fs::write(path.join("list.txt"), "a.png\r\nbare\n\n").unwrap();
    let output = run(path, &["embed", "@list.txt", "--model", "demo", "-o", "x.jsonl"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(path.join("x.jsonl")).unwrap().lines().count(), 2);
    for (arguments, words) in [
        (&["embed", "nowhere", "-o", "i"][..], "nowhere: there is no such file or folder"),
        (&["embed", "@nowhere", "-o", "i"], "nowhere: No such file"),
        (&["embed", "-o", "i"], "nothing to embed"),
        (&["embed", "a.png", "--text", "x", "-o", "i"], "for a folder give --texts FILE"),
    ] {
        let output = run(path, &[arguments, &["--model", "demo"]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
    // There is no model by default.
    let output = run(path, &["embed", "a.png", "-o", "i"]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("which model?"));
    let output = run(path, &["classify", "a.png", "--labels", "cat"]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("which model?"));
}

#[test]
fn tars_tables_and_texts_are_shards_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["set/0001.png", "set/0002.png", "set/0001.txt", "set/bad.jpg"] {
        picture(&path.join(name));
    }
    fs::write(path.join("set/bad.jpg"), "no picture").unwrap();
    assert!(Command::new("tar").args(["cf", "set.tar", "set"]).current_dir(path).status().unwrap().success());
    let bytes = fs::read(&examples()[0]).unwrap();
    let pictures: ArrayRef =
        Arc::new(BinaryArray::from(vec![Some(bytes.as_slice()), None, Some(bytes.as_slice())]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 9]));
    let table = batch(vec![("id", ids.clone()), ("more", ids), ("image", pictures)]);
    let mut writer =
        ArrowWriter::try_new(File::create(path.join("t.parquet")).unwrap(), table.schema(), None).unwrap();
    writer.write(&table).unwrap();
    writer.close().unwrap();
    let captions = batch(vec![("text", Arc::new(StringArray::from(vec!["a cat", "a dog"])) as ArrayRef)]);
    fs::write(path.join("c.arrows"), stream(std::slice::from_ref(&captions))).unwrap();
    let mut writer =
        FileWriter::try_new(File::create(path.join("c.arrow")).unwrap(), &captions.schema()).unwrap();
    writer.write(&captions).unwrap();
    writer.finish().unwrap();
    fs::write(path.join("words.txt"), "a cat\n\na red car\n").unwrap();
    fs::write(path.join("cut.tar"), &fs::read(path.join("set.tar")).unwrap()[..1500]).unwrap();

    let inputs = ["set.tar", "c.arrows", "c.arrow", "cut.tar"];
    let arguments = [&["embed", "--model", "demo", "-o", "index"][..], &inputs].concat();
    let output = run(path, &arguments);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.contains("skipped cut.tar: ") && told.contains("1 files could not be read to their end"),
        "{told}"
    );
    assert_eq!(
        names(path),
        "c.arrow#0 c.arrow#1 c.arrows#0 c.arrows#1 set.tar/set/0001.png set.tar/set/0002.png set.tar/set/bad.jpg"
    );
    let done = rows(path);
    assert!(done["set.tar/set/bad.jpg"].is_err() && done["c.arrow#0"] == done["c.arrows#0"]);
    fs::remove_file(path.join("cut.tar")).unwrap();
    let output = run(path, &[&["embed", "--model", "demo", "-o", "index"][..], &inputs[..3]].concat());
    assert!(text(&output.stderr).contains("0 rows in 0 new shards"), "{}", text(&output.stderr));

    let arguments = [
        "embed",
        "t.parquet",
        "--model",
        "demo",
        "-o",
        "index",
        "--name-column",
        "id",
        "--texts",
        "words.txt",
    ];
    let output = run(path, &arguments);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let now = rows(path);
    assert_eq!(now["7"], done["set.tar/set/0001.png"]);
    assert_eq!(now["8"], Err("null".to_owned()));
    assert_eq!(now["a cat"], done["c.arrow#0"]);
    assert!(now.contains_key("a red car"));
    // Into a file go only files of one picture.
    let output = run(path, &["embed", "set.tar", "--model", "demo", "-o", "x.npy"]);
    assert!(text(&output.stderr).contains("it holds many inputs"), "{}", text(&output.stderr));
    // A table that has changed is done again, and once.
    let mut writer =
        ArrowWriter::try_new(File::create(path.join("t.parquet")).unwrap(), table.schema(), None).unwrap();
    writer.write(&table.slice(0, 1)).unwrap();
    writer.close().unwrap();
    let output = run(path, &arguments);
    assert!(text(&output.stderr).contains("1 rows in 1 new shards"), "{}", text(&output.stderr));
    assert!(!rows(path).contains_key("9"));
}

/// Every compression that is read, and none that would take more memory than it says.
#[test]
fn compressed_tables_are_read_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let bytes = fs::read(&examples()[0]).unwrap();
    let pictures: ArrayRef = Arc::new(BinaryArray::from(vec![bytes.as_slice(); 40]));
    let table = batch(vec![("image", pictures)]);
    let write = |name: &str, compression: Compression, version: WriterVersion, table: &RecordBatch| {
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_writer_version(version)
            .set_dictionary_enabled(false)
            .build();
        let file = File::create(path.join(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, table.schema(), Some(properties)).unwrap();
        writer.write(table).unwrap();
        writer.close().unwrap();
    };
    let compressions = [
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
        ("lz4_raw", Compression::LZ4_RAW),
        ("gzip", Compression::GZIP(GzipLevel::default())),
        ("snappy", Compression::SNAPPY),
        ("plain", Compression::UNCOMPRESSED),
    ];
    let mut inputs = Vec::new();
    for (name, compression) in compressions {
        for (end, version) in [("1", WriterVersion::PARQUET_1_0), ("2", WriterVersion::PARQUET_2_0)] {
            inputs.push(format!("{name}{end}.parquet"));
            write(&inputs[inputs.len() - 1], compression, version, &table);
        }
    }
    for (name, compression) in [("lz4", CompressionType::LZ4_FRAME), ("zstd", CompressionType::ZSTD)] {
        let options = || IpcWriteOptions::default().try_with_compression(Some(compression)).unwrap();
        let file = File::create(path.join(format!("{name}.arrow"))).unwrap();
        let mut writer = FileWriter::try_new_with_options(file, &table.schema(), options()).unwrap();
        writer.write(&table).unwrap();
        writer.finish().unwrap();
        let file = File::create(path.join(format!("{name}.arrows"))).unwrap();
        let mut writer = StreamWriter::try_new_with_options(file, &table.schema(), options()).unwrap();
        writer.write(&table).unwrap();
        writer.finish().unwrap();
        inputs.extend([format!("{name}.arrow"), format!("{name}.arrows")]);
    }
    let arguments = |inputs: &[String]| {
        let mut all: Vec<String> = ["embed", "--model", "demo", "-o", "index"].map(str::to_owned).to_vec();
        all.extend_from_slice(inputs);
        all
    };
    let run_on = |inputs: &[String]| {
        let all = arguments(inputs);
        run(path, &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let output = run_on(&inputs);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let done = rows(path);
    assert_eq!(done.len(), 40 * inputs.len());
    assert!(done.values().all(|row| *row == done["plain1.parquet#0"]));

    // A gzip page that goes on behind what its header says, which nothing else would notice before all of it was there.
    let zeros: ArrayRef = Arc::new(BinaryArray::from(vec![vec![0u8; 100_000].as_slice(); 3]));
    write("bomb.parquet", compressions[2].1, WriterVersion::PARQUET_1_0, &batch(vec![("image", zeros)]));
    let mut bomb = fs::read(path.join("bomb.parquet")).unwrap();
    // The second field of the first page's header: three values of 100,000 bytes, each behind its length, and the levels.
    let size = |bytes: i64| {
        let mut zigzag = (bytes << 1) as u64;
        let mut field = vec![0x15];
        while zigzag > 0x7f {
            field.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        field.push(zigzag as u8);
        field
    };
    let (at, whole) = (300_012..300_040)
        .find_map(|bytes| {
            let field = size(bytes);
            bomb.windows(field.len()).take(40).position(|window| window == field).map(|at| (at, field))
        })
        .expect("the size in the header");
    bomb[at..at + whole.len()].copy_from_slice(&size(200_000));
    fs::write(path.join("bomb.parquet"), &bomb).unwrap();
    let output = run_on(&["bomb.parquet".to_owned()]);
    let told = text(&output.stderr);
    assert!(told.contains("a page with more in it than its header says"), "{told}");
    // One that says that it is of almost 2 GiB.
    let mut huge = fs::read(path.join("zstd1.parquet")).unwrap();
    let at = huge.windows(2).position(|window| window == [0x15, 0x00]).unwrap() + 2;
    let end = at + 1 + huge[at + 1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    huge.splice(at..end, size(2_000_000_000));
    fs::write(path.join("huge.parquet"), &huge).unwrap();
    let output = run_on(&["huge.parquet".to_owned()]);
    let told = text(&output.stderr);
    assert!(told.contains("2000000000 bytes; a page may have 1073741824"), "{told}");
    assert_eq!(output.status.code(), Some(3));
}
