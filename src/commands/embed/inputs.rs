//! What to embed: texts, token ids and files, in this order.

use std::path::{Path, PathBuf};

use crate::bulk;
use crate::bulk::inputs::{Content, LeftOut, read_texts};
use crate::commands::error::{Result, failed};
use crate::commands::session::Source;
use crate::config::{EmbedArgs, FindArgs};
use crate::pipeline::ModelInfo;

/// What a row of the output is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Text,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }
}

/// One input and what it is called in the output.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) source: Source,
}

/// Every input that the arguments name, and what was left out.
///
/// # Errors
/// If there is none, token ids cannot be read, or a file or folder does not exist.
pub(super) fn list(args: &EmbedArgs) -> Result<(Vec<Row>, LeftOut)> {
    if args.texts.is_empty()
        && args.text_files.is_empty()
        && args.token_ids.is_empty()
        && args.inputs.is_empty()
    {
        return Err(failed("nothing to embed: give --text, --texts, files, folders, or - for a list"));
    }
    let mut rows = Vec::new();
    let text =
        |text: &str| Row { kind: Kind::Text, name: text.to_owned(), source: Source::Text(text.to_owned()) };
    rows.extend(args.texts.iter().map(|words| text(words)));
    for file in &args.text_files {
        read_texts(file, |words| rows.push(text(words)))?;
    }
    for list in &args.token_ids {
        rows.push(Row { kind: Kind::Text, name: list.clone(), source: Source::TokenIds(parse_ids(list)?) });
    }
    let (files, left_out) = find(&args.inputs, &args.find)?;
    for file in files {
        let name = file.display().to_string();
        rows.push(Row { kind: Kind::Image, name, source: Source::File(file) });
    }
    if rows.is_empty() {
        left_out.lines().iter().for_each(|line| eprintln!("{line}"));
        return Err(failed("no images were found in the folders given"));
    }
    Ok((rows, left_out))
}

/// Checks that the model has the towers that the inputs need.
///
/// # Errors
/// If it has not.
pub(super) fn check(rows: &[Row], info: &ModelInfo) -> Result<()> {
    for (kind, has_tower) in [(Kind::Image, info.image.is_some()), (Kind::Text, info.text.is_some())] {
        if !has_tower && rows.iter().any(|row| row.kind == kind) {
            return Err(failed(format!("this model has no {} tower", kind.name())));
        }
    }
    Ok(())
}

/// Ids separated by commas.
fn parse_ids(list: &str) -> Result<Vec<u32>> {
    let id = |part: &str| {
        let part = part.trim();
        part.parse().map_err(|_| failed(format!("--token-ids {list:?}: {part:?} is no token id")))
    };
    list.split(',').map(id).collect()
}

/// Files in the order given, folders searched to any depth in the order of names, `-` and `@file` lists; and what was left out.
///
/// # Errors
/// If a list cannot be read, the only thing named is not there, or a file is of many inputs.
pub(in crate::commands) fn find(inputs: &[PathBuf], options: &FindArgs) -> Result<(Vec<PathBuf>, LeftOut)> {
    let found = bulk::inputs::find(inputs, &options.options())?;
    if let Some(file) = found.files.iter().find(|file| file.content != Content::Picture) {
        return Err(failed(format!(
            "{}: it holds many inputs, which go into a folder: --output DIR/",
            file.path.display()
        )));
    }
    if let Some(file) = found.files.iter().find(|file| file.object.is_some()) {
        return Err(failed(format!(
            "{}: objects of a store go into a folder: siglip embed --output DIR/",
            file.path.display()
        )));
    }
    Ok((found.files.into_iter().map(|file| file.path).collect(), found.left_out))
}

/// The bytes of a file, if it has no more than `limit`.
///
/// # Errors
/// If it cannot be read, or is larger.
pub(in crate::commands) fn read(path: &Path, limit: usize) -> Result<Vec<u8>> {
    Ok(bulk::read_file(path, limit)?.0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Error;
    use crate::commands::error::CommandError;

    #[test]
    fn folders_are_searched_in_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["c.JPG", "a.png", "b/x.webp", "notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let (found, left_out) = find(&[folder.path().to_path_buf()], &FindArgs::default()).unwrap();
        assert_eq!(left_out.lines(), ["not indexed: 1 .txt, no picture by its name (notes.txt)"]);
        let names: Vec<_> =
            found.iter().map(|p| p.strip_prefix(folder.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.png", "b/x.webp", "c.JPG"]);
    }

    #[test]
    fn a_file_above_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, [0; 10]).unwrap();
        assert_eq!(read(&path, 10).unwrap().len(), 10);
        assert!(matches!(read(&path, 9), Err(CommandError::Crate(Error::Image(_)))));
    }
}
