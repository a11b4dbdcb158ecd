//! open_clip's `basic_clean`: `ftfy.fix_text`, then HTML unescaped twice, then stripped.
//!
//! A port of ftfy 6.3.1 (Apache-2.0, Robyn Speer) with its defaults; `tables.rs` is generated from
//! its tables by `make_tables.py`. Left out: lone surrogates, which no Rust string has.

mod encoding;
mod html;
mod tables;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::canonicalize::is_python_space;

/// ftfy repeats its fixes until nothing changes. Every round but the last undoes a layer of
/// damage; this bounds what a hostile text can ask for.
const MAX_ROUNDS: usize = 64;

/// `basic_clean` of open_clip's `tokenizer.py`.
pub(super) fn basic_clean(text: &str) -> String {
    let fixed = fix_text(text);
    html::unescape(&html::unescape(&fixed)).trim_matches(is_python_space).to_owned()
}

/// `ftfy.fix_text`: line by line.
fn fix_text(text: &str) -> String {
    let mut unescape_html = true;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        // A literal `<` says that it is HTML indeed: from there on entities are kept.
        unescape_html &= !line.contains('<');
        out.push_str(&fix_line(line, unescape_html));
    }
    out
}

fn fix_line(line: &str, unescape_html: bool) -> String {
    let mut text = line.to_owned();
    for _ in 0..MAX_ROUNDS {
        let mut fixed = if unescape_html { html::unescape_strict(&text) } else { text.clone() };
        fixed = encoding::fix(&fixed);
        fixed = encoding::fix_c1_controls(&fixed).into_owned();
        fixed = fixed.chars().fold(String::with_capacity(fixed.len()), |mut out, c| {
            match REPLACEMENTS.get(&c) {
                Some(text) => out.push_str(text),
                None => out.push(c),
            }
            out
        });
        fixed = fixed.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        fixed = TERMINAL_ESCAPE.replace_all(&fixed, "").into_owned();
        fixed.retain(|c| !is_unwanted_control(c));
        fixed = fixed.nfc().collect();
        if fixed == text {
            break;
        }
        text = fixed;
    }
    text
}

/// Ligatures, width forms and curly quotes. ftfy replaces them in this order, one pass each; no
/// pass writes what an earlier one reads, so that one map does.
static REPLACEMENTS: LazyLock<HashMap<char, &str>> = LazyLock::new(|| {
    let mut map: HashMap<_, _> = tables::LIGATURES.into_iter().chain(tables::WIDTHS).collect();
    map.extend(('\u{2018}'..='\u{201b}').chain(['\u{2bc}']).map(|c| (c, "'")));
    map.extend(('\u{201c}'..='\u{201f}').map(|c| (c, "\"")));
    // Its ligature map writes U+02BC, which the quotes' pass then straightens.
    map.insert('\u{149}', "'n");
    map
});

static TERMINAL_ESCAPE: LazyLock<Regex> = LazyLock::new(|| expression(r"\x1b\[(?:\p{Nd}|;)*[a-zA-Z]"));

fn is_unwanted_control(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f' | '\u{206a}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffc}')
}

/// Compiles one of our own expressions.
fn expression(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant expression, compiled by a test")
}

/// `str.replace_all` with a function on the match, borrowing what has none.
fn replace<'t>(regex: &Regex, text: &'t str, by: impl Fn(&str) -> String) -> Cow<'t, str> {
    regex.replace_all(text, |captures: &regex::Captures<'_>| by(&captures[0]))
}
