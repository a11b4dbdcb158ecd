//! What requests and answers look like on the wire; no behaviour.

mod classify;
mod derived;
mod embeddings;
mod examples;
mod heatmaps;
mod input;
mod label_sets;
mod models;
mod options;
mod score;
mod tokenize;
mod vectors;

pub use classify::{
    Classification, ClassificationEntry, ClassificationTag, ClassifyRequest, ClassifyResponse, Label,
    LabelPrediction,
};
pub use derived::{
    ClassifyForm, ClassifyQuery, EmbeddingsQuery, HeatmapsQuery, ImagesForm, ScoreQuery, TokenizeQuery,
};
pub use embeddings::{
    EmbeddingEntry, EmbeddingItem, EmbeddingTag, EmbeddingValue, EmbeddingsRequest, EmbeddingsResponse,
    ErrorEntry, ErrorTag, ListTag, Usage,
};
pub use examples::{
    CalibrateRequest, CalibrateResponse, CalibrationTag, CurvePoint, ExamplesRequest, ExamplesResponse,
    ExamplesTag, LabelExamples, LabelThreshold, LabelledPicture, LabelledPictures, PictureOrVector,
    RemoveExamplesRequest,
};
pub use heatmaps::{Heatmap, HeatmapBox, HeatmapPeak, HeatmapTag, HeatmapsRequest, HeatmapsResponse};
pub use input::{Input, Inputs};
pub use label_sets::{LabelSetAnswer, LabelSetList, LabelSetUsed, PutLabelSetRequest};
pub use models::{Health, HealthStatus, Model, ModelHealth, ModelList, Readiness};
pub use options::{EmbeddingOutput, EncodingFormat, Modality};
pub use score::{ScoreRequest, ScoreResponse, ScoresTag};
pub use tokenize::{ReadToken, ReadTokens, TokenizeRequest, TokenizeResponse, TokensTag};
pub use vectors::Vectors;

/// Bytes as they are.
pub struct Binary;

impl utoipa::PartialSchema for Binary {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        literal(
            serde_json::json!({"type": "string", "format": "binary", "description": "Bytes as they are."}),
        )
    }
}

impl utoipa::ToSchema for Binary {}

/// A schema written as JSON, where the derive cannot say it.
fn literal(schema: serde_json::Value) -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    match serde_json::from_value(schema) {
        Ok(schema) => schema,
        // The schemas are literals of this crate; the test that compares openapi.yaml would show it.
        Err(error) => unreachable!("a literal schema: {error}"),
    }
}
