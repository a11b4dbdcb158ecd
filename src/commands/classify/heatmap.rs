//! `--heatmap`: where in an image a label is.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::Work;
use crate::Error;
use crate::bulk::Session;
use crate::commands::embed::read_file;
use crate::commands::error::{Result, failed};
use crate::engine::{Class, EmbedOptions, Labels, ScoreOptions, Viewed, WhenFull};
use crate::image::{Overlay, ViewOptions};
use crate::model::LabelSet;

/// Longer side of the drawing in pixels.
const SIDE: u32 = 1024;

/// Draws the map of a label over the first image, into `output`.
pub(super) async fn draw(
    bulk: &Session,
    work: &Work<'_>,
    labels: &Arc<LabelSet>,
    label: usize,
    output: &Path,
) -> Result<()> {
    let image = work.images.first().ok_or_else(|| failed("--heatmap: no image"))?;
    let bytes = read_file(image, bulk.max_bytes())?;
    let views = ViewOptions { preview: Some(SIDE), ..ViewOptions::default() };
    let options = EmbedOptions {
        class: Class::Background,
        when_full: WhenFull::Wait,
        max_num_patches: work.args.max_num_patches,
        ..EmbedOptions::default()
    };
    let mut found = bulk.model().embed_views(vec![bytes.into()], views, options).await?.results;
    let Viewed { embeddings, cover, preview } =
        found.pop().ok_or_else(|| failed("--heatmap: the image was lost"))??;
    let preview = preview.ok_or_else(|| failed("--heatmap: the image was lost"))?;
    let vectors = embeddings.into_iter().map(|view| view.vector).collect();
    let set = Labels::Set(Arc::clone(labels));
    let cosines = bulk.model().cosines(vectors, set, ScoreOptions::default()).await?.value;
    let map = cover.spread(cosines.into_iter().skip(label).step_by(labels.len()));
    let io_error = |source| Error::Io { path: output.to_path_buf(), source };
    let png = Overlay::new(preview, cover).png(&map, None).map_err(io_error)?;
    Ok(fs::write(output, png).map_err(io_error)?)
}
