//! JSON bodies.

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::api::edge::error::{ApiError, ApiResult};

/// Parses a JSON object; an error says where in the document it is.
///
/// # Errors
/// 400 `malformed_json` where it is no JSON, 400 `invalid_request` where it is not what the route wants.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let wrong = |message: String| ApiError::bad_request("invalid_request", message);
    match bytes.trim_ascii_start().first() {
        None => {
            let message = "the body is empty; it should be a JSON object";
            return Err(ApiError::bad_request("malformed_json", message));
        }
        Some(b'{') => {}
        Some(_) => {
            let what = match serde_json::from_slice::<IgnoredAny>(bytes) {
                Ok(_) => return Err(wrong("the body is JSON, but not an object".to_owned())),
                Err(error) => error,
            };
            return Err(malformed(&what));
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        // serde_json reports a list in the place of a name as a fault of the syntax.
        let error = match error.is_data() {
            true => wrong(error.to_string()),
            false if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() => {
                wrong("a value of another type is expected here".to_owned())
            }
            false => return malformed(&error),
        };
        if path == "." { error } else { error.at(path) }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request("malformed_json", format!("the body is not valid JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn errors_say_where_and_stay_short() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Kind {
            Float,
        }
        type Lists = BTreeMap<String, Vec<u32>>;
        let error = parse_json::<Lists>(br#"{"a": [1], "b": [2, "x"]}"#).unwrap_err();
        assert!(error.detail.message.starts_with("b[1]: invalid type: string"), "{}", error.detail.message);
        assert_eq!(error.detail.param.as_deref(), Some("b[1]"));
        let long = format!("{{\"a\": \"{}\"}}", "ä".repeat(100_000));
        assert!(parse_json::<Lists>(long.as_bytes()).unwrap_err().detail.message.len() < 800);
        for body in ["", "  ", "[1", "{\"a\": [1]} x", "\u{feff}{}", "nul"] {
            let error = parse_json::<Lists>(body.as_bytes()).unwrap_err();
            assert_eq!(error.detail.code, "malformed_json", "{body}");
        }
        for body in ["[1]", "\"a\"", " 5 "] {
            let error = parse_json::<Lists>(body.as_bytes()).unwrap_err();
            assert_eq!(error.detail.code, "invalid_request", "{body}");
        }
        let kind = |body: &str| parse_json::<BTreeMap<String, Kind>>(body.as_bytes());
        assert!(matches!(kind(r#"{"a": "float"}"#).unwrap()["a"], Kind::Float));
        let error = kind(r#"{"encoding_format": ["float"]}"#).unwrap_err();
        assert_eq!(error.detail.code, "invalid_request");
        assert!(error.detail.message.starts_with("encoding_format: a value of another type"));
    }
}
