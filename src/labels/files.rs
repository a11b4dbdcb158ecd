//! Label sets out of files: JSON as the service takes it, CSV, a label a line, or a head.

use std::io::Read;
use std::path::Path;

use super::content::Content;
use super::definition::{Definition, LabelSpec};
use super::head::read_head;
use super::read::LabelList;

/// Bytes of a file at most.
const LARGEST: u64 = 1 << 30;

/// Reads a label set: `.json` (an object, or a list of labels), `.csv`, `.txt`, or a head ([`read_head`]) in `.safetensors`.
///
/// In a CSV file the first row may name the columns: `name` (or `label`), `threshold`, `synonyms` and `prompts`, these two
/// separated by `|`; without such a row the first column has the names and the second, if there is one, the thresholds.
///
/// # Errors
/// What is wrong with the file or the set, in words.
pub fn read_file(path: &Path) -> Result<Content, String> {
    let about = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = read_bytes(path)?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let extension = extension.to_ascii_lowercase();
    if extension == "safetensors" {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("yes");
        return read_head(&bytes, stem).map_err(|error| about(&error));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| about(&error))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let definition = match extension.as_str() {
        "json" => of_json(text),
        "csv" => of_csv(text),
        "txt" => Ok(of_lines(text)),
        _ => Err("not a .json, .csv, .txt or .safetensors file".to_owned()),
    };
    let definition = definition.map_err(|error| about(&error))?;
    definition.check().map_err(|error| about(&error))?;
    Ok(Content::of(definition))
}

/// The bytes of a file, within bounds.
///
/// # Errors
/// If it cannot be read or is too large, in words that name it.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    let about = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| about(&error))?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| about(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(about(&format!("more than {LARGEST} bytes")));
    }
    Ok(bytes)
}

fn of_json(text: &str) -> Result<Definition, String> {
    if text.trim_start().starts_with('[') {
        let labels: LabelList = serde_json::from_str(text).map_err(|error| error.to_string())?;
        return Ok(Definition { labels, ..Definition::of([]) });
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn of_lines(text: &str) -> Definition {
    Definition::of(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned))
}

fn of_csv(text: &str) -> Result<Definition, String> {
    let rows = rows(text)?;
    let mut rows = rows.iter().enumerate().peekable();
    let known = |cell: &str| match cell.trim().to_ascii_lowercase().as_str() {
        "name" | "label" => Some(Column::Name),
        "threshold" => Some(Column::Threshold),
        "synonyms" => Some(Column::Synonyms),
        "prompts" => Some(Column::Prompts),
        _ => None,
    };
    let head = rows.peek().map(|(_, row)| row.iter().map(|cell| known(cell)).collect::<Vec<_>>());
    let columns = match head {
        Some(head) if head.contains(&Some(Column::Name)) => {
            let unknown = head.iter().position(Option::is_none);
            if let (Some((_, row)), Some(at)) = (rows.next(), unknown) {
                return Err(format!(
                    "a column {:?}: there are name, threshold, synonyms and prompts",
                    row[at]
                ));
            }
            head.into_iter().flatten().collect()
        }
        _ => vec![Column::Name, Column::Threshold],
    };
    let mut labels = Vec::new();
    for (index, row) in rows {
        if row.len() > columns.len() {
            return Err(format!("row {}: {} columns, {} expected", index + 1, row.len(), columns.len()));
        }
        let mut label =
            LabelSpec { name: String::new(), synonyms: Vec::new(), prompts: Vec::new(), threshold: None };
        for (column, cell) in columns.iter().zip(row) {
            let cell = cell.trim();
            let list = || cell.split('|').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned);
            match column {
                Column::Name => label.name = cell.to_owned(),
                Column::Threshold if cell.is_empty() => {}
                Column::Threshold => {
                    let wrong = || format!("row {}: the threshold {cell:?} is no number", index + 1);
                    label.threshold = Some(cell.parse().map_err(|_| wrong())?);
                }
                Column::Synonyms => label.synonyms = list().collect(),
                Column::Prompts => label.prompts = list().collect(),
            }
        }
        labels.push(label);
    }
    Ok(Definition { labels: LabelList(labels), ..Definition::of([]) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Threshold,
    Synonyms,
    Prompts,
}

/// The cells of a CSV file (RFC 4180): quoted cells may hold commas, line ends and doubled quotes. Empty lines are no rows.
fn rows(text: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    let (mut quoted, mut was_quoted) = (false, false);
    loop {
        match characters.next() {
            Some('"') if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            Some('"') if quoted => quoted = false,
            None if quoted => return Err(format!("row {}: a quotation mark is not closed", rows.len() + 1)),
            Some(c) if quoted => cell.push(c),
            Some('"') if cell.trim().is_empty() => {
                cell.clear();
                (quoted, was_quoted) = (true, true);
            }
            Some(',') => row.push(std::mem::take(&mut cell)),
            Some('\r') if characters.peek() == Some(&'\n') => {}
            end @ (Some('\n') | None) => {
                if !(row.is_empty() && cell.is_empty() && !was_quoted) {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                was_quoted = false;
                if end.is_none() {
                    return Ok(rows);
                }
            }
            Some(c) => cell.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Definition, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_file(&path).map(|content| content.definition)
    }

    fn names(definition: &Definition) -> Vec<&str> {
        definition.labels.0.iter().map(|label| label.name.as_str()).collect()
    }

    #[test]
    fn every_kind_of_file() {
        let set = read("a.txt", "\u{feff}cat\n\n dog \r\nhot dog, with mustard\n").unwrap();
        assert_eq!(names(&set), ["cat", "dog", "hot dog, with mustard"]);
        let set = read("a.json", r#"["cat", {"name": "dog", "threshold": 0.5}]"#).unwrap();
        assert_eq!((names(&set), set.labels.0[1].threshold), (vec!["cat", "dog"], Some(0.5)));
        let set = read("a.JSON", r#"{"labels": ["cat"], "templates": "imagenet-7"}"#).unwrap();
        assert!(set.templates.is_some());
        let set = read("a.csv", "cat\r\n\"dog, hot\",0.25\n\n\"the \"\"best\"\"\",\n").unwrap();
        assert_eq!(names(&set), ["cat", "dog, hot", "the \"best\""]);
        assert_eq!(set.labels.0[1].threshold, Some(0.25));
        let set = read(
            "a.csv",
            "threshold,Label,synonyms,prompts\n0.5,cat,kitten| kitty ,\n,dog,,a photo of my dog\n",
        );
        let labels = set.unwrap().labels.0;
        assert_eq!((labels[0].threshold, labels[0].synonyms.len()), (Some(0.5), 2));
        assert_eq!(
            (labels[1].threshold, labels[1].prompts.as_slice()),
            (None, &["a photo of my dog".to_owned()][..])
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, text, part) in [
            ("a.txt", "", "labels: at least one"),
            ("a.txt", "cat\ncat", "\"cat\" is a label already"),
            ("a.yaml", "cat", "not a .json, .csv, .txt or .safetensors file"),
            ("a.json", "[1]", "a label"),
            ("a.csv", "name,colour\ncat,red\n", "a column \"colour\""),
            ("a.csv", "cat,high\n", "row 1: the threshold \"high\" is no number"),
            ("a.csv", "cat,0.5,x\n", "row 1: 3 columns, 2 expected"),
            ("a.csv", "cat\n\"dog\n", "row 2: a quotation mark is not closed"),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(error.contains(part) && error.contains(name), "{error}");
        }
        assert!(read_file(Path::new("/nowhere/a.txt")).unwrap_err().contains("/nowhere/a.txt"));
    }
}
