//! `siglip worker`: the same rows in the same order, each with its vector or its error.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, StringDictionaryBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Int64Array, LargeBinaryArray,
    LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field};

use super::streams::{answer, batch, stream, strings, vectors};
use super::{examples, npy, run, text};

const WIDTH: usize = 192;

fn pictures(count: usize) -> Vec<Vec<u8>> {
    let files = examples();
    (0..count).map(|i| std::fs::read(&files[i % files.len()]).unwrap()).collect()
}

/// Columns of every common kind, with nulls.
fn passengers(rows: usize, from: i64) -> Vec<(&'static str, ArrayRef)> {
    let ids: Int64Array = (from..from + rows as i64).map(Some).collect();
    let mut tags = ListBuilder::new(StringBuilder::new());
    let mut words = StringDictionaryBuilder::<Int32Type>::new();
    for row in 0..rows {
        if row % 3 == 1 {
            tags.append_null();
            words.append_null();
        } else {
            tags.append_value((0..row).map(|i| Some(format!("tag {i}"))));
            words.append_value(format!("word {}", (from as usize + row) % 2));
        }
    }
    let flags: BooleanArray = (0..rows).map(|row| (row % 2 == 0).then_some(row % 4 == 0)).collect();
    let inner: ArrayRef = Arc::new(ids.clone());
    let pair = StructArray::from(vec![
        (Arc::new(Field::new("n", DataType::Int64, true)), inner),
        (Arc::new(Field::new("flag", DataType::Boolean, true)), Arc::new(flags) as ArrayRef),
    ]);
    let times: TimestampMicrosecondArray = (0..rows).map(|row| Some(row as i64 * 1_000_003)).collect();
    let names: StringViewArray = (0..rows).map(|row| Some(format!("a name that is long: {row}"))).collect();
    vec![
        ("id", Arc::new(ids)),
        ("tags", Arc::new(tags.finish())),
        ("word", Arc::new(words.finish())),
        ("pair", Arc::new(pair)),
        ("time", Arc::new(times.with_timezone("UTC"))),
        ("name", Arc::new(names)),
        ("nothing", Arc::new(NullArray::new(rows))),
    ]
}

fn with_pictures(pictures: &[Option<&[u8]>], from: i64) -> RecordBatch {
    let mut columns = passengers(pictures.len(), from);
    // In the middle, so that its place is seen to be closed.
    columns.insert(2, ("image", Arc::new(BinaryArray::from(pictures.to_vec()))));
    batch(columns)
}

/// The vectors that `siglip embed` gives for files.
fn embedded(arguments: &[&str]) -> Vec<Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &[&["embed", "--model", "demo", "-o", "x.npy"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    npy(&folder.path().join("x.npy"), WIDTH)
}

#[test]
fn rows_keep_their_order_their_columns_and_their_batches() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = pictures(7);
    let some =
        |range: std::ops::Range<usize>| bytes[range].iter().map(|b| Some(b.as_slice())).collect::<Vec<_>>();
    let batches = [
        with_pictures(&some(0..4), 0),
        with_pictures(&[], 4),
        with_pictures(&some(4..5), 4),
        // Another dictionary than before, and a slice of a larger batch.
        with_pictures(&some(0..7), 100).slice(5, 2),
    ];
    let told = answer(folder.path(), &[], stream(&batches));
    assert_eq!(told.code, Some(0), "{}", told.told);
    assert!(told.told.starts_with("siglip worker: ready fingerprint="), "{}", told.told);
    assert!(told.told.contains("done rows=7 bad=0 batches=4"), "{}", told.told);
    let names: Vec<String> =
        told.schema.as_ref().unwrap().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names.join(" "), "id tags word pair time name nothing embedding error");
    assert_eq!(told.batches.len(), batches.len());
    for (before, after) in batches.iter().zip(&told.batches) {
        let kept: Vec<usize> = (0..before.num_columns()).filter(|&i| i != 2).collect();
        let before = before.project(&kept).unwrap();
        for (i, column) in before.columns().iter().enumerate() {
            assert_eq!(after.schema().field(i), before.schema().field(i));
            assert_eq!(after.column(i).to_data(), column.to_data(), "{}", names[i]);
        }
    }
    // Bit by bit what the command gives.
    let files: Vec<String> = examples().iter().map(|file| file.display().to_string()).collect();
    let files: Vec<&str> = (0..7).map(|i| files[i % files.len()].as_str()).collect();
    let expected: Vec<Option<Vec<f32>>> = embedded(&files).into_iter().map(Some).collect();
    assert_eq!(told.vectors(), expected);
    assert!(told.errors().iter().all(Option::is_none));
    let metadata = told.schema.as_ref().unwrap().metadata().clone();
    let inspected = run(folder.path(), &["inspect", "--model", "demo", "--json"]);
    let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(metadata["siglip.fingerprint"], inspected["fingerprint"].as_str().unwrap());
    assert_eq!(metadata["siglip.model"], "demo");
    // What `auto` is depends on the processor.
    assert!(["f32", "bf16"].contains(&metadata["siglip.dtype"].as_str()), "{metadata:?}");
    assert!(metadata.contains_key("siglip.version"));
    let preprocessing: serde_json::Value = serde_json::from_str(&metadata["siglip.preprocessing"]).unwrap();
    assert!(preprocessing["image"].is_object() && preprocessing["text"].is_object(), "{preprocessing}");
}

#[test]
fn every_type_of_column_gives_the_same_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = pictures(3);
    let rows: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    // Short values lie in the views themselves.
    let texts = ["a cat", "a text that is longer than twelve bytes", "dog"];
    let expected = embedded(&["--text", texts[0], "--text", texts[1], "--text", texts[2]]);
    let columns: [(&str, ArrayRef); 6] = [
        ("image", Arc::new(BinaryArray::from(rows.clone()))),
        ("image", Arc::new(LargeBinaryArray::from(rows.clone()))),
        ("image", Arc::new(BinaryViewArray::from(rows))),
        ("text", Arc::new(StringArray::from(texts.to_vec()))),
        ("text", Arc::new(LargeStringArray::from(texts.to_vec()))),
        ("text", Arc::new(StringViewArray::from(texts.to_vec()))),
    ];
    let answers: Vec<_> = columns
        .into_iter()
        .map(|column| answer(folder.path(), &[], stream(&[batch(vec![column])])).vectors())
        .collect();
    let good = |vectors: &[Vec<f32>]| vectors.iter().cloned().map(Some).collect::<Vec<_>>();
    assert!(answers[0].len() == 3 && answers[0].iter().all(Option::is_some));
    assert!(answers[..3].iter().all(|answer| *answer == answers[0]));
    assert!(answers[3..].iter().all(|answer| *answer == good(&expected)));
}

#[test]
fn a_bad_row_is_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let good = &pictures(1)[0];
    let long = "x".repeat((1 << 20) + 1);
    let half = &good[..good.len() / 2];
    let rows = [
        None,
        Some(good.as_slice()),
        Some(b"".as_slice()),
        Some(b"no picture"),
        Some(half),
        Some(good.as_slice()),
    ];
    let told = answer(folder.path(), &[], stream(&[with_pictures(&rows, 0)]));
    assert_eq!(told.code, Some(0), "{}", told.told);
    let vectors = told.vectors();
    assert_eq!(
        vectors.iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, true, false, false, false, true]
    );
    assert_eq!(vectors[1], vectors[5]);
    let errors = told.errors();
    assert_eq!(errors[0].as_deref(), Some("null"));
    assert!(errors[3].as_ref().unwrap().contains("format is not known"), "{errors:?}");
    assert!((2..5).all(|row| errors[row].is_some()) && errors[1].is_none() && errors[5].is_none());
    let texts = StringArray::from(vec![Some("a cat"), None, Some(""), Some(long.as_str())]);
    let told = answer(folder.path(), &[], stream(&[batch(vec![("text", Arc::new(texts))])]));
    let errors = told.errors();
    assert_eq!(
        (errors[0].as_deref(), errors[1].as_deref(), errors[2].as_deref()),
        (None, Some("null"), None)
    );
    assert_eq!(errors[3].as_deref(), Some("the text has 1048577 bytes; the limit is 1048576"));
    assert!(told.told.contains("rows=4 bad=2"), "{}", told.told);
}

#[test]
fn half_precision_the_input_and_the_labels_are_there_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("set.txt"), "cat\ncar\nguitar\n").unwrap();
    let picture = |name: &str| {
        let file = examples().into_iter().find(|file| file.ends_with(name)).unwrap();
        std::fs::read(file).unwrap()
    };
    let (cat, guitar) = (picture("cat-face.png"), picture("guitar.png"));
    // More rows than are asked about at once.
    let mut rows = vec![Some(cat.as_slice()); 260];
    rows[1] = None;
    rows[259] = Some(guitar.as_slice());
    let input = batch(vec![("picture", Arc::new(BinaryArray::from(rows)))]);
    let arguments = [
        "--column",
        "image",
        "picture",
        "--keep-input",
        "--embedding-dtype",
        "f16",
        "--label-set",
        "set.txt",
        "--top-k",
        "2",
    ];
    let told = answer(folder.path(), &arguments, stream(std::slice::from_ref(&input)));
    assert_eq!(told.code, Some(0), "{}", told.told);
    let output = &told.batches[0];
    assert_eq!(output.column(0).to_data(), input.column(0).to_data());
    let labels = strings(output, "label");
    assert_eq!((labels[0].as_deref(), labels[1].as_deref()), (Some("cat"), None));
    assert_eq!((labels[258].as_deref(), labels[259].as_deref()), (Some("cat"), Some("guitar")));
    let scores = output.column_by_name("score").unwrap().as_primitive::<Float32Type>();
    assert!(scores.value(0) > 0.0 && scores.is_null(1));
    let lists = output.column_by_name("scores").unwrap().as_list::<i32>();
    assert_eq!((lists.value_length(0), lists.is_null(1)), (2, true));
    assert_eq!(lists.value(0).as_primitive::<Float32Type>().value(0), scores.value(0));
    let halves = output.column_by_name("embedding").unwrap().as_fixed_size_list().value(0);
    let halves: Vec<f32> = halves.as_primitive::<Float16Type>().values().iter().map(|x| x.to_f32()).collect();
    let full = answer(folder.path(), &["--column", "picture"], stream(&[input]));
    let full = vectors(&full.batches[0])[0].clone().unwrap();
    assert!(full.iter().zip(&halves).all(|(a, b)| (a - b).abs() < 1e-3) && full != halves);
}
