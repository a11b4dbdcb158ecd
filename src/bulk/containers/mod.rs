//! Files that hold many inputs, read one after the other: tars, tables, texts. Each gives its rows to a function, which says
//! whether it wants more.

mod tables;
mod tar;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::fault::Fault;
use super::inputs::{Content, FileEntry, read_texts};
use super::worker::{MAX_TEXT_BYTES, Wanted};
use crate::engine::Input;

/// An input out of a file.
#[derive(Debug)]
pub struct Contained {
    /// What it is called.
    pub name: String,
    /// The input, or why there is none.
    pub input: Result<Input, String>,
}

/// What is taken out of tables.
#[derive(Debug, Clone, Default)]
pub struct ContainerOptions {
    /// The column that is embedded.
    pub wanted: Wanted,
    /// The column that says what a row is called; `file#row` without it.
    pub names: Option<String>,
    /// Bytes of a picture at most.
    pub max_bytes: usize,
}

/// Gives every input of a file to `each`, until it breaks.
///
/// # Errors
/// If the file cannot be read; what came before was given.
pub fn read(
    file: &FileEntry,
    options: &ContainerOptions,
    each: &mut dyn FnMut(Contained) -> ControlFlow<()>,
) -> Result<(), Fault> {
    // Files are not trusted, and libraries that read them have bugs.
    let read = AssertUnwindSafe(|| match file.content {
        Content::Tar => tar::read(file, options, each),
        Content::Parquet => tables::read_parquet(file, options, each),
        Content::Arrow => tables::read_arrow(file, options, each),
        Content::Texts => texts(file, each),
        Content::Picture => picture(file, options, each),
    });
    catch_unwind(read).unwrap_or_else(|_| Err(wrong(file, "reading it panicked")))
}

fn wrong(file: &FileEntry, what: impl std::fmt::Display) -> Fault {
    Fault::input(format!("{}: {what}", file.path.display()))
}

fn texts(file: &FileEntry, each: &mut dyn FnMut(Contained) -> ControlFlow<()>) -> Result<(), Fault> {
    let mut ended = false;
    read_texts(&file.path, |text| {
        if ended {
            return;
        }
        let input = match text.len() > MAX_TEXT_BYTES {
            true => Err(format!("the text has {} bytes; the limit is {MAX_TEXT_BYTES}", text.len())),
            false => Ok(Input::Text(text.to_owned())),
        };
        // A text is its own name.
        ended = each(Contained { name: text.to_owned(), input }).is_break();
    })
}

fn picture(
    file: &FileEntry,
    options: &ContainerOptions,
    each: &mut dyn FnMut(Contained) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let input =
        super::files::read(&file.path, options.max_bytes).map(|(bytes, _)| Input::Image(Bytes::from(bytes)));
    let input = input.map_err(|error| error.to_string());
    let _ = each(Contained { name: file.name.clone(), input });
    Ok(())
}
