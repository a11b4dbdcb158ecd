//! Files that hold many inputs, read one after the other: tars, tables, texts. Each gives its rows to a function, which says
//! whether it wants more.

mod pages;
mod tables;
mod tar;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fault::{Fault, Kind};
use super::frames::Frames;
use super::inputs::{Content, FileEntry, read_texts};
use super::objects::Object;
use super::worker::{MAX_TEXT_BYTES, Wanted};
use crate::engine::Input;

/// An input out of a file.
#[derive(Debug)]
pub struct Contained {
    /// What it is called.
    pub name: String,
    /// When a frame of an animation is shown, in seconds.
    pub time: Option<f64>,
    /// The file that it is a part of, where it is not all of one.
    pub origin: Option<Origin>,
    /// The input, or why there is none.
    pub input: Result<Input, String>,
}

/// A file that several inputs are made of.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: Option<String>,
}

impl Contained {
    /// An input that is not made of another.
    pub fn new(name: String, input: Result<Input, String>) -> Self {
        Self { name, time: None, origin: None, input }
    }
}

/// What is taken out of files.
#[derive(Debug, Clone, Default)]
pub struct ContainerOptions {
    /// The column that is embedded.
    pub wanted: Wanted,
    /// The column that says what a row is called; `file#row` without it.
    pub names: Option<String>,
    /// Bytes of a picture at most.
    pub max_bytes: usize,
    /// Frames of animations, where more than the first is wanted.
    pub frames: Option<Frames>,
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
    let read = AssertUnwindSafe(|| match &options.frames {
        None => inputs(file, options, each),
        Some(frames) => inputs(file, options, &mut |contained| frames.split(contained, each)),
    });
    let read = catch_unwind(read).unwrap_or_else(|_| Err(wrong(file, "reading it panicked")));
    // Not the file is at fault where its store cannot be reached.
    let lost = || file.object.as_ref().and_then(Object::lost);
    read.map_err(|fault| lost().map_or(fault, |text| Fault::new(Kind::Temporary, text)))
}

fn inputs(
    file: &FileEntry,
    options: &ContainerOptions,
    each: &mut dyn FnMut(Contained) -> ControlFlow<()>,
) -> Result<(), Fault> {
    match file.content {
        Content::Tar => tar::read(file, options, each),
        Content::Parquet => tables::read_parquet(file, options, each),
        Content::Arrow => tables::read_arrow(file, options, each),
        Content::Texts => texts(file, each),
        Content::Picture | Content::Video => Err(wrong(file, "it holds one input")),
    }
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
        ended = each(Contained::new(text.to_owned(), input)).is_break();
    })
}
