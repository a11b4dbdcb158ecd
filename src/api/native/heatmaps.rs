//! `POST /v1/heatmaps`: where in pictures texts are.

mod sought;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::answer;
use crate::api::call::Call;
use crate::api::edge::error::{ApiError, ApiResult};
use crate::api::edge::negotiate::Format;
use crate::api::inputs::Batch;
use crate::api::native::resolve::{resolve_images, resolve_pairs};
use crate::api::native::schema::{
    Heatmap, HeatmapBox, HeatmapPeak, HeatmapTag, HeatmapsQuery, HeatmapsRequest, HeatmapsResponse, ListTag,
    Usage,
};
use crate::api::openapi::WorkErrors;
use crate::api::read::Options;
use crate::api::run::{EmbeddedViews, RunOptions, embed_views};
use crate::budget::MemoryKind;
use crate::engine::{Embedding, Scored, Viewed};
use crate::image::{Area, Cover, MAX_VIEWS, Overlay, PixelBox, ViewMethod, ViewOptions, largest_region};
use crate::model::Scores;
use crate::model::scores::sigmoid;
use sought::Sought;

/// Longer side of an overlay in pixels.
const OVERLAY_SIDE: u32 = 512;
/// Overlays of one request at most: each takes some milliseconds to draw.
const MAX_OVERLAYS: usize = 64;
/// The largest `budget` of windows.
const MAX_BUDGET: usize = 64;
/// The same of crops, each of which is cut out and resized in full resolution.
const MAX_CROPS_BUDGET: usize = 16;

/// Says where in pictures your texts are.
///
/// Overlapping views of a picture are embedded as pictures of their own and compared with each text, or each label of a stored
/// set (`label_set`); a patch gets the mean of the
/// views that it is in. The answer has a map for each picture and text: a grid with a cosine, a logit and a probability for
/// each patch; on request a box around what reaches a threshold, and the map drawn over the picture.
#[utoipa::path(
    post, path = "/v1/heatmaps", tag = "classification", operation_id = "create_heatmaps",
    params(HeatmapsQuery),
    request_body(content = HeatmapsRequest),
    responses(
        (status = 200, description = "The maps",
            content((HeatmapsResponse = "application/json",
                     example = json!({
                        "object": "list",
                        "data": [{"object": "heatmap", "image": 0, "text": 0, "rows": 2, "columns": 2, "width": 640, "height": 480,
                                  "cosine": [[-0.02, 0.01], [0.02, 0.12]], "logit": [[-14.4, -11.3], [-10.1, 1.3]],
                                  "probability": [[0.0000005, 0.00001], [0.00004, 0.786]],
                                  "peak": {"row": 1, "column": 1, "x": 480, "y": 360},
                                  "box": {"x": 320, "y": 240, "width": 320, "height": 240, "probability": 0.786, "patches": 1}}],
                        "model": "siglip2-base-patch16-224",
                        "usage": {"prompt_tokens": 1208, "total_tokens": 1208},
                     })),
                    (HeatmapsResponse = "application/msgpack"))),
        WorkErrors,
    )
)]
pub async fn create(call: Call, body: Body) -> ApiResult<Response> {
    let format = call.format(&Format::DOCUMENTS)?;
    if !call.media.is_json() {
        return Err(call.media.unsupported("application/json", "add -H 'Content-Type: application/json'"));
    }
    let query: HeatmapsRequest = call.query()?;
    call.model(query.model.as_deref())?;
    let body = call.read(body).await?;
    let most = (call.state.config().max_items, call.state.config().max_labels);
    let task = call
        .json(body, move |request: HeatmapsRequest, memory| {
            let mut options = request.and(query)?;
            let (images, texts) = (options.images.take(), options.texts.take());
            sought::check(&options, texts.is_some())?;
            if options.label_set.is_some() {
                let batch = resolve_images(images, most.0, memory)?;
                return Ok(Task { pictures: batch.len(), batch, options });
            }
            let (batch, pictures) =
                resolve_pairs(images, texts, most, options.token_ids == Some(true), memory)?;
            Ok(Task { batch, pictures, options })
        })
        .await?;
    answer(&call, task, format).await
}

/// Maps as they were asked for: the pictures, then the texts.
struct Task {
    batch: Batch,
    pictures: usize,
    options: HeatmapsRequest,
}

async fn answer(call: &Call, task: Task, format: Format) -> ApiResult<Response> {
    let Task { batch, pictures, mut options } = task;
    let model = call.model(options.model.as_deref())?;
    let info = model.info();
    let scores = info.logit_scale.zip(info.logit_bias).map(|(scale, bias)| Scores { scale, bias });
    let sought = Sought::of(call, &model, &mut options, batch.len() - pictures).await?;
    let wanted = wanted(&options, pictures.saturating_mul(sought.len()), scores.is_some())?;
    let views = ViewOptions {
        method: options.method.map_or(ViewMethod::Windows, ViewMethod::from),
        side: options.window,
        budget: options.budget,
        preview: wanted.overlay.then_some(OVERLAY_SIDE),
    };
    // What the answer takes is known now; nothing is computed for one that is too large.
    let cells = info.image.as_ref().map_or(0, |spec| spec.most_patches(options.max_num_patches));
    let room = Room::new(pictures, &sought, cells, info.embedding_dim, wanted.overlay);
    let memory = call.charge(MemoryKind::Answer, room.all())?;
    let run = RunOptions {
        canonicalization: options.canonicalization,
        max_num_patches: options.max_num_patches,
        partial: false,
        if_match_is_taken: false,
    };
    let EmbeddedViews { pictures, texts, fingerprint, timings } =
        embed_views(call, &model, batch, pictures, views, run).await?;
    let of_views = pictures.iter().flat_map(|picture| &picture.embeddings);
    let tokens = of_views.clone().chain(&texts).map(|embedding| embedding.tokens).sum();
    let vectors = match views.method {
        ViewMethod::Values => {
            let of_patches = of_views.flat_map(|view| view.vector.chunks(info.embedding_dim.max(1)));
            of_patches.map(Arc::from).collect()
        }
        ViewMethod::Windows | ViewMethod::Crops => of_views.map(|view| Arc::clone(&view.vector)).collect(),
    };
    let labels = sought.labels(texts.into_iter().map(|text: Embedding| text.vector).collect());
    let scored = model.cosines(vectors, labels, call.score_options()).await;
    let Scored { value: cosines, timings: scoring } = scored.map_err(|error| call.engine_error(error))?;

    let name = model.name().to_owned();
    let context = call.context.clone();
    let bytes = answer::build(memory, move || {
        let mut data = Vec::with_capacity(pictures.len() * sought.len());
        let mut first = 0;
        let compared = sought.compared();
        for (image, Viewed { cover, preview, .. }) in pictures.into_iter().enumerate() {
            let of_picture = cosines.get(first * compared..(first + cover.len()) * compared);
            let of_picture = of_picture.ok_or_else(|| ApiError::internal("a view without a cosine"))?;
            first += cover.len();
            let overlay = preview.map(|preview| Overlay::new(preview, cover.clone()));
            for text in 0..sought.len() {
                // Maps and overlays of many pairs take a while.
                if context.deadline <= Instant::now() {
                    return Err(context.late());
                }
                let column = of_picture.iter().skip(sought.column(text)).step_by(compared);
                let map = cover.spread(column.map(|&cosine| sought.level(text, cosine, scores)));
                let mut map = heatmap((image, text), &cover, &map, scores, wanted, overlay.as_ref())?;
                map.label = sought.label(text);
                data.push(map);
            }
        }
        let (usage, label_set) = (Usage::of(tokens), sought.used());
        let response = HeatmapsResponse { object: ListTag::List, data, model: name, usage, label_set };
        answer::document(&response, format, room.text)
    })
    .await?;
    Ok(answer::respond(bytes, format, &model, &fingerprint, timings.and(scoring)))
}

/// What is wanted beside the numbers.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    boxes: bool,
    threshold: Option<f32>,
    overlay: bool,
}

fn wanted(options: &HeatmapsRequest, pairs: usize, has_scores: bool) -> ApiResult<Wanted> {
    if options.window == Some(0) {
        return Err(ApiError::field("window", "must be at least 1"));
    }
    let most = match options.method.map(ViewMethod::from) {
        Some(ViewMethod::Crops) => MAX_CROPS_BUDGET,
        _ => MAX_BUDGET,
    };
    if options.budget.is_some_and(|budget| !(1..=most).contains(&budget)) {
        return Err(ApiError::field("budget", format!("must be between 1 and {most}")));
    }
    if options.threshold.is_some_and(|threshold| !threshold.is_finite()) {
        return Err(ApiError::field("threshold", "must be a finite number"));
    }
    let boxes = options.boxes.unwrap_or(options.threshold.is_some());
    if options.threshold.is_some() && !has_scores {
        let message = "the model has no logit scale and bias: there are no probabilities to compare";
        return Err(ApiError::unprocessable("unsupported_by_model", message).at("threshold"));
    }
    let overlay = options.overlay.unwrap_or(false);
    if overlay && pairs > MAX_OVERLAYS {
        let message = format!("{pairs} pairs of a picture and a text; at most {MAX_OVERLAYS} are drawn");
        return Err(ApiError::too_large(message).at("overlay"));
    }
    Ok(Wanted { boxes, threshold: options.threshold, overlay })
}

fn heatmap(
    (image, text): (usize, usize),
    cover: &Cover,
    map: &[f32],
    scores: Option<Scores>,
    wanted: Wanted,
    overlay: Option<&Overlay>,
) -> ApiResult<Heatmap> {
    let grid = cover.grid();
    let (height, width) = cover.source();
    let rows = |values: &[f32]| values.chunks(grid.cols).map(<[f32]>::to_vec).collect();
    let logits: Option<Vec<f32>> = scores.map(|scores| map.iter().map(|&x| scores.logit(x)).collect());
    let probabilities: Option<Vec<f32>> = logits.as_ref().map(|l| l.iter().copied().map(sigmoid).collect());
    let found = wanted.boxes.then(|| find(cover, map, probabilities.as_deref(), wanted.threshold));
    let overlay = overlay.map(|overlay| {
        let outline = found.as_ref().and_then(|found| found.as_ref().map(|(pixels, ..)| *pixels));
        let png = overlay.png(map, outline).map_err(|error| ApiError::internal(error.to_string()))?;
        Ok::<_, ApiError>(STANDARD.encode(png))
    });
    Ok(Heatmap {
        object: HeatmapTag::Heatmap,
        image,
        text,
        label: None,
        rows: grid.rows,
        columns: grid.cols,
        width,
        height,
        cosine: rows(map),
        logit: logits.as_deref().map(rows),
        probability: probabilities.as_deref().map(rows),
        peak: peak(cover, map),
        area: found.map(|found| {
            found.map(|(PixelBox { x, y, width, height }, probability, patches)| HeatmapBox {
                x,
                y,
                width,
                height,
                probability,
                patches,
            })
        }),
        overlay: overlay.transpose()?,
    })
}

fn peak(cover: &Cover, map: &[f32]) -> HeatmapPeak {
    let best = (0..map.len()).max_by(|&a, &b| map[a].total_cmp(&map[b]).then(b.cmp(&a))).unwrap_or(0);
    let (row, column) = (best / cover.grid().cols, best % cover.grid().cols);
    let PixelBox { x, y, width, height } = cover.pixels(Area { top: row, left: column, rows: 1, cols: 1 });
    HeatmapPeak { row, column, x: x + width / 2, y: y + height / 2 }
}

/// The box of a map: its pixels, the highest probability inside, and the patches of its region.
fn find(
    cover: &Cover,
    map: &[f32],
    probabilities: Option<&[f32]>,
    threshold: Option<f32>,
) -> Option<(PixelBox, Option<f32>, usize)> {
    let inside: Vec<bool> = match (threshold, probabilities) {
        (Some(threshold), Some(probabilities)) => probabilities.iter().map(|&p| p >= threshold).collect(),
        _ => {
            let low = map.iter().copied().fold(f32::INFINITY, f32::min);
            let high = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let middle = low + (high - low) / 2.0;
            map.iter().map(|&x| x >= middle).collect()
        }
    };
    let (area, patches) = largest_region(cover.grid(), &inside)?;
    let columns = area.left..area.left + area.cols;
    let within = (area.top..area.top + area.rows)
        .flat_map(|row| columns.clone().map(move |column| row * cover.grid().cols + column));
    let highest = probabilities.map(|probabilities| within.map(|at| probabilities[at]).fold(0.0, f32::max));
    Some((cover.pixels(area), highest, patches))
}

/// Bytes that an answer takes at most.
struct Room {
    /// The document.
    text: usize,
    /// What it is made of: vectors of views, cosines, maps, and pictures.
    parts: usize,
}

impl Room {
    fn new(pictures: usize, sought: &Sought, cells: usize, width: usize, overlay: bool) -> Self {
        /// The names of the fields and the numbers that are not in a map.
        const ENTRY: usize = 600;
        /// Three numbers of at most 16 characters, each perhaps a row of its own.
        const TEXT: usize = 3 * (16 + 3);
        /// The same as numbers, and what a map is computed from.
        const NUMBERS: usize = 3 * (2 * size_of::<f32>() + size_of::<Vec<f32>>()) + 32;
        // Of every patch there may be a vector, twice.
        let views =
            pictures.saturating_mul(MAX_VIEWS.max(cells.saturating_mul(2))).saturating_mul(size_of::<f32>());
        let png = if overlay { Overlay::most_bytes(OVERLAY_SIDE) } else { 0 };
        let encoded = png.div_ceil(3) * 4;
        let pairs = pictures.saturating_mul(sought.len());
        let of_pairs = |each: usize| pairs.saturating_mul(each);
        let names = pictures.saturating_mul(sought.escaped());
        let text = of_pairs(cells.saturating_mul(TEXT).saturating_add(ENTRY + encoded));
        let text = text.saturating_add(names).saturating_add(1000);
        let parts = of_pairs(cells.saturating_mul(NUMBERS).saturating_add(size_of::<Heatmap>() + encoded))
            .saturating_add(views.saturating_mul(width.saturating_add(sought.compared())))
            // The copies of the pictures, and one that is drawn.
            .saturating_add(png.saturating_mul(pictures.saturating_add(4)));
        Self { text, parts }
    }

    fn all(&self) -> usize {
        self.text.saturating_add(self.parts)
    }
}
