//! What is done to a string before it is tokenised.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::{Canonicalization, TextError, TextFamily, open_clip};

impl Canonicalization {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Hf, Self::BigVision, Self::OpenClip, Self::None];

    /// The name in requests and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hf => "hf",
            Self::BigVision => "big_vision",
            Self::OpenClip => "open_clip",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Canonicalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Canonicalization {
    type Err = TextError;

    fn from_str(name: &str) -> Result<Self, TextError> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| TextError::UnknownCanonicalization(name.to_owned()))
    }
}

/// `text` canonicalised as a whole; never fails and never touches what needs no change.
///
/// - `hf`, SigLIP 1: `canonicalize_text` of transformers' `SiglipTokenizer`.
/// - `hf`, SigLIP 2: the `Lowercase` normaliser of transformers 5's `Siglip2Tokenizer`.
/// - `big_vision`: `tf.strings.lower`, which knows ASCII only.
/// - `open_clip`: `_clean_canonicalize` of open_clip's `tokenizer.py`.
/// - `none`: nothing.
pub fn canonicalize(text: &str, mode: Canonicalization, family: TextFamily) -> Cow<'_, str> {
    match (mode, family) {
        (Canonicalization::None, _) => Cow::Borrowed(text),
        (Canonicalization::BigVision, _) => {
            if text.bytes().any(|b| b.is_ascii_uppercase()) {
                Cow::Owned(text.to_ascii_lowercase())
            } else {
                Cow::Borrowed(text)
            }
        }
        (Canonicalization::Hf, TextFamily::SigLip2) => {
            // Character by character: unlike `str::to_lowercase`, no final sigma.
            Cow::Owned(text.chars().flat_map(char::to_lowercase).collect())
        }
        (Canonicalization::Hf, TextFamily::SigLip1) => {
            let lower = text.to_lowercase();
            let stripped: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
            Cow::Owned(collapse_whitespace(&stripped))
        }
        (Canonicalization::OpenClip, _) => {
            let clean = open_clip::basic_clean(text);
            let stripped: String = clean
                .chars()
                .map(|c| if c == '_' { ' ' } else { c })
                .filter(|c| !c.is_ascii_punctuation())
                .collect();
            Cow::Owned(collapse_whitespace(&stripped.to_lowercase()))
        }
    }
}

/// Whether Python's `str.isspace` (and `\s` of its `re`) says so: Unicode's white space, and the
/// four ASCII separators.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Runs of white space become one space; none is left at the ends.
fn collapse_whitespace(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(is_python_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use Canonicalization::*;
    use TextFamily::*;

    #[test]
    fn siglip_1_as_transformers() {
        let hf = |text| canonicalize(text, Hf, SigLip1).into_owned();
        assert_eq!(hf("  A golden_retriever,\tON\u{a0}the  grass!\n"), "a goldenretriever on the grass");
        assert_eq!(hf("ÉTÉ ΟΔΟΣ İ \u{1c}x"), "été οδος i\u{307} x");
        assert_eq!(hf("!?.,"), "");
        assert_eq!(hf("“quoted” ¿qué?"), "“quoted” ¿qué");
    }

    #[test]
    fn siglip_2_only_lower_cases() {
        assert_eq!(canonicalize(" A_b,  ΟΔΟΣ!", Hf, SigLip2), " a_b,  οδοσ!");
    }

    #[test]
    fn big_vision_knows_ascii_only() {
        assert_eq!(canonicalize("AÉ, Я", BigVision, SigLip1), "aÉ, Я");
    }

    #[test]
    fn open_clip_cleans() {
        let clean = |text| canonicalize(text, OpenClip, SigLip2).into_owned();
        assert_eq!(clean("Golden_Retriever &amp;amp; CAT &lt;3"), "golden retriever cat 3");
        assert_eq!(clean("voilÃ\u{a0} le CafÃ©"), "voilà le café");
    }

    #[test]
    fn names_round_trip() {
        for mode in Canonicalization::ALL {
            assert_eq!(mode.to_string().parse::<Canonicalization>(), Ok(mode));
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("\"{mode}\""));
            assert_eq!(clap::ValueEnum::to_possible_value(&mode).unwrap().get_name(), mode.name());
        }
        let error = "HF".parse::<Canonicalization>().unwrap_err().to_string();
        assert!(error.contains("\"HF\"") && error.contains("hf, big_vision, open_clip, none"), "{error}");
    }
}
