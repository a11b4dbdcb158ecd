//! Schemas of queries and forms, derived from that of the JSON request: an option is described once.

use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::{ClassifyRequest, EmbeddingsRequest, HeatmapsRequest, ScoreRequest, TokenizeRequest, literal};
use crate::api::read::Options;

/// A form with pictures: files under any name, or `image`, `file`, `input` and the like as base64, data: URLs or URLs; the
/// options as fields.
pub struct ImagesForm;

/// A form with pictures and labels.
pub struct ClassifyForm;

/// The query of `/v1/embeddings` and `/v1/embeddings/images`.
pub struct EmbeddingsQuery;

/// The query of `/v1/classify`.
pub struct ClassifyQuery;

/// The query of `/v1/score`.
pub struct ScoreQuery;

/// The query of `/v1/heatmaps`.
pub struct HeatmapsQuery;

/// The query of `/v1/tokenize`.
pub struct TokenizeQuery;

/// The options of a request by their names, with their schemas.
fn options<T: Options + PartialSchema>() -> Map<String, Value> {
    let schema = serde_json::to_value(T::schema()).unwrap_or_default();
    let Some(Value::Object(properties)) = schema.get("properties").cloned() else { return Map::new() };
    properties.into_iter().filter(|(name, _)| !T::INPUTS.contains(&name.as_str())).collect()
}

fn form<T: Options + PartialSchema>(description: &str, required: &[&str]) -> RefOr<Schema> {
    let mut properties = Map::new();
    properties.insert(
        "image".to_owned(),
        json!({
            "type": "array", "items": {"type": "string", "format": "binary"},
            "description": "One or many files, under this or any other name.",
        }),
    );
    for (name, schema) in options::<T>() {
        let schema = match T::LISTS.contains(&name.as_str()) {
            false => schema,
            true => json!({
                "type": "string",
                "description": match name == "labels" {
                    true => "`cat,dog`, or `[\"cat\", \"dog\"]`, or the field repeated.",
                    false => "One of them, or a JSON list, or the field repeated.",
                },
            }),
        };
        properties.insert(name, schema);
    }
    literal(json!({
        "type": "object", "description": description, "properties": properties, "required": required,
    }))
}

fn query<T: Options + PartialSchema>() -> Vec<Parameter> {
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = Parameter::new(name);
        parameter.parameter_in = ParameterIn::Query;
        parameter.required = utoipa::openapi::Required::False;
        parameter.description = description.and_then(|text| text.as_str().map(str::to_owned));
        parameter.schema = Some(literal(schema));
        parameter
    };
    options::<T>().into_iter().map(parameter).collect()
}

impl PartialSchema for ImagesForm {
    fn schema() -> RefOr<Schema> {
        form::<EmbeddingsRequest>(
            "A form with pictures: files under any name, and the options as fields.",
            &["image"],
        )
    }
}

impl ToSchema for ImagesForm {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        EmbeddingsRequest::schemas(schemas);
    }
}

impl PartialSchema for ClassifyForm {
    fn schema() -> RefOr<Schema> {
        form::<ClassifyRequest>(
            "A form with pictures and labels: files under any name, and the options as fields.",
            &["image"],
        )
    }
}

impl ToSchema for ClassifyForm {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ClassifyRequest::schemas(schemas);
    }
}

impl IntoParams for EmbeddingsQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        query::<EmbeddingsRequest>()
    }
}

impl IntoParams for ClassifyQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        query::<ClassifyRequest>()
    }
}

impl IntoParams for HeatmapsQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        query::<HeatmapsRequest>()
    }
}

impl IntoParams for TokenizeQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        query::<TokenizeRequest>()
    }
}

impl IntoParams for ScoreQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        query::<ScoreRequest>()
    }
}
