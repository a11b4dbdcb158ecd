//! Token ids of texts, one JSON value a line: the other end of `tests/parity/text.py`.
//!
//! ```text
//! tokenize FOLDER FAMILY MODE CONTEXT VOCAB < texts.jsonl > ids.jsonl
//! ```
//!
//! `FOLDER` holds the tokenizer's files, `FAMILY` is `siglip1` or `siglip2`. A line is a JSON
//! string; the answer is `{"ids": […], "used": n, "truncated": bool, "text": canonicalised}` or
//! `{"error": …}`.

use std::borrow::Cow;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;

use siglip::testing::text::{TextFamily, TextProcessor, TextSpec, TokenizerFiles, canonicalize};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, family, mode, context, vocab] = &arguments[..] else {
        return Err("usage: tokenize FOLDER siglip1|siglip2 MODE CONTEXT VOCAB".into());
    };
    let family = match family.as_str() {
        "siglip1" => TextFamily::SigLip1,
        "siglip2" => TextFamily::SigLip2,
        other => return Err(format!("unknown family {other:?}").into()),
    };
    let read = |name: &str| std::fs::read(Path::new(folder).join(name)).ok().map(Cow::Owned);
    let files = TokenizerFiles {
        json: read("tokenizer.json"),
        sentencepiece: read("spiece.model").or_else(|| read("tokenizer.model")),
        config: read("tokenizer_config.json"),
        special_tokens: read("special_tokens_map.json"),
    };
    let canonicalization = mode.parse()?;
    let spec = TextSpec { family, canonicalization, context: context.parse()?, vocab: vocab.parse()? };
    let processor = TextProcessor::new(&files, spec)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let answer = match processor.encode(&text, None) {
            Ok(tokens) => serde_json::json!({
                "ids": tokens.ids,
                "used": tokens.used,
                "truncated": tokens.truncated,
                "text": canonicalize(&text, canonicalization, family),
            }),
            Err(error) => serde_json::json!({ "error": error.to_string() }),
        };
        writeln!(out, "{answer}")?;
    }
    out.flush()?;
    Ok(())
}
