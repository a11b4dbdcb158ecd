//! Token ids against `tests/fixtures/tokenizers/golden.json`, which transformers, tokenizers and
//! sentencepiece wrote (`tests/fixtures/make_tokenizers.py`), and what must hold for any input.

use std::borrow::Cow;
use std::path::PathBuf;

use proptest::prelude::*;
use siglip::testing::text::{
    Canonicalization, DEFAULT_MAX_TEXT_BYTES, TextError, TextFamily, TextProcessor, TextSpec, TokenizerFiles,
};

use crate::support::tiny;

const CONTEXT: usize = 16;
const VOCAB: usize = 4096;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

fn files(name: &str) -> TokenizerFiles {
    let read = |file: &str| std::fs::read(folder().join(name).join(file)).ok().map(Cow::Owned);
    TokenizerFiles {
        json: read("tokenizer.json"),
        sentencepiece: read("spiece.model"),
        config: read("tokenizer_config.json"),
        special_tokens: None,
    }
}

fn spec(family: TextFamily, canonicalization: Canonicalization) -> TextSpec {
    TextSpec { family, canonicalization, context: CONTEXT, vocab: VOCAB }
}

fn family_of(name: &str) -> TextFamily {
    if name.contains("gemma") { TextFamily::SigLip2 } else { TextFamily::SigLip1 }
}

fn processor(name: &str) -> TextProcessor {
    TextProcessor::new(&files(name), spec(family_of(name), Canonicalization::Hf)).unwrap()
}

const ALL: [&str; 5] = ["unigram", "unigram_bytes", "bpe", "bpe_gemma", "gemma_json"];

#[test]
fn ids_are_those_of_the_reference_tokenizers() {
    let golden = std::fs::read(folder().join("golden.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&golden).unwrap();
    assert!(cases.len() >= 11);
    for case in cases {
        let name = case["tokenizer"].as_str().unwrap();
        let mode: Canonicalization = case["mode"].as_str().unwrap().parse().unwrap();
        let processor = processor(name);
        let texts = case["texts"].as_array().unwrap();
        assert!(texts.len() > 100);
        for pair in texts {
            let (text, ids) = (pair[0].as_str().unwrap(), pair[1].as_array().unwrap());
            let expected: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let got = processor.encode(text, Some(mode)).unwrap();
            assert_eq!(got.ids, expected, "{name}, {mode}: {text:?}");
        }
    }
}

#[test]
fn padding_comes_from_the_tokenizer() {
    for (name, pad) in ALL.into_iter().zip([1, 1, 1, 0, 0]) {
        let processor = processor(name);
        assert_eq!((processor.pad_id(), processor.eos_id()), (pad, 1), "{name}");
        let text = processor.encode("a cat", None).unwrap();
        assert!(text.used < CONTEXT && !text.truncated);
        assert_eq!(text.ids[text.used - 1], 1);
        assert!(text.ids[text.used..].iter().all(|id| *id == pad));
    }
}

#[test]
fn padding_named_by_the_configuration_wins_over_the_family() {
    let mut files = files("unigram");
    files.config = Some(Cow::Borrowed(br#"{"pad_token": {"content": "<pad>"}}"#));
    let made = TextProcessor::new(&files, spec(TextFamily::SigLip1, Canonicalization::Hf)).unwrap();
    assert_eq!((made.pad_id(), made.eos_id()), (0, 1));
    files.config = None;
    files.special_tokens = Some(Cow::Borrowed(br#"{"pad_token": "<pad>"}"#));
    let made = TextProcessor::new(&files, spec(TextFamily::SigLip1, Canonicalization::Hf)).unwrap();
    assert_eq!(made.pad_id(), 0);
    files.special_tokens = Some(Cow::Borrowed(br#"{"pad_token": "<nothing>"}"#));
    let error = TextProcessor::new(&files, spec(TextFamily::SigLip1, Canonicalization::Hf)).err().unwrap();
    assert!(error.to_string().contains("special_tokens_map.json"), "{error}");
    assert!(error.to_string().contains("<nothing>"), "{error}");
}

#[test]
fn a_cut_text_keeps_its_end_token() {
    for name in ALL {
        let processor = processor(name);
        let text = processor.encode(&"cats and dogs ".repeat(50), None).unwrap();
        assert!(text.truncated);
        assert_eq!((text.used, text.ids.len()), (CONTEXT, CONTEXT));
        assert_eq!(text.ids[CONTEXT - 1], processor.eos_id());
    }
}

#[test]
fn ids_work_without_a_tokenizer() {
    for (family, pad) in [(TextFamily::SigLip1, 1), (TextFamily::SigLip2, 0)] {
        let made =
            TextProcessor::new(&TokenizerFiles::default(), spec(family, Canonicalization::Hf)).unwrap();
        assert_eq!(made.encode("a cat", None), Err(TextError::NoTokenizer));
        let text = made.from_ids(&[5, 6, 1]).unwrap();
        assert_eq!(text.used, 3);
        assert_eq!(text.ids[..4], [5, 6, 1, pad]);
        assert_eq!(text.ids.len(), CONTEXT);
        assert_eq!(
            made.from_ids(&[7; CONTEXT + 1]),
            Err(TextError::TooManyIds { count: CONTEXT + 1, context: CONTEXT })
        );
        assert_eq!(
            made.from_ids(&[7, VOCAB as u32]),
            Err(TextError::IdOutOfVocabulary { id: VOCAB as u32, position: 1, vocab: VOCAB })
        );
    }
}

#[test]
fn an_overlong_text_is_refused_before_any_work() {
    let text = "x".repeat(DEFAULT_MAX_TEXT_BYTES + 1);
    let error = processor("unigram").encode(&text, None).unwrap_err();
    assert_eq!(error, TextError::TextTooLong { bytes: text.len(), limit: DEFAULT_MAX_TEXT_BYTES });
    assert!(processor("unigram").encode(&text[1..], None).unwrap().truncated);
}

#[test]
fn the_fingerprint_changes_with_everything_that_changes_ids() {
    let of = |files: &TokenizerFiles, spec| TextProcessor::new(files, spec).unwrap().fingerprint();
    let base = spec(TextFamily::SigLip1, Canonicalization::Hf);
    let original = of(&files("unigram"), base.clone());
    assert_eq!(original, of(&files("unigram"), base.clone()));
    let mut others = vec![of(&files("bpe"), base.clone())];
    others.push(of(&files("unigram"), TextSpec { canonicalization: Canonicalization::None, ..base.clone() }));
    others.push(of(&files("unigram"), TextSpec { context: 17, ..base.clone() }));
    others.push(of(&files("unigram"), TextSpec { family: TextFamily::SigLip2, ..base.clone() }));
    let mut changed = files("unigram");
    changed.config = Some(Cow::Borrowed(br#"{"pad_token": "<pad>"}"#));
    others.push(of(&changed, base));
    assert!(others.iter().all(|other| *other != original));
}

#[test]
fn of_two_files_the_exact_one_runs_and_only_that_one_counts() {
    let load = |json: Option<&[&str]>, model: Option<&[&str]>| {
        let files = TokenizerFiles {
            json: json.map(|pieces| Cow::Owned(tiny::unigram_json(pieces))),
            sentencepiece: model.map(|pieces| Cow::Owned(tiny::sentencepiece(pieces))),
            ..TokenizerFiles::default()
        };
        TextProcessor::new(&files, spec(TextFamily::SigLip1, Canonicalization::Hf)).unwrap()
    };
    let pieces = tiny::PIECES;
    let (both, alone) = (load(Some(pieces), Some(pieces)), load(None, Some(pieces)));
    assert_eq!(both.describe().tokenizer, "SentencePiece (unigram)");
    assert_eq!(both.fingerprint(), alone.fingerprint());

    // One piece is another: the model beside `tokenizer.json` is not this checkpoint's.
    let mut other = pieces.to_vec();
    let last = other.len() - 1;
    other[last] = "elsewhere";
    let (both, alone) = (load(Some(pieces), Some(&other)), load(Some(pieces), None));
    assert_eq!(both.describe().tokenizer, "tokenizer.json (unigram)");
    assert_eq!(both.fingerprint(), alone.fingerprint());
    assert_eq!(both.encode("a cat", None), alone.encode("a cat", None));
    assert_eq!(load(Some(&pieces[..last]), Some(pieces)).describe().tokenizer, "tokenizer.json (unigram)");

    // SigLIP 2 runs `tokenizer.json`, whatever lies beside it.
    let alone = processor("gemma_json").fingerprint();
    let mut both = files("gemma_json");
    both.sentencepiece = files("bpe_gemma").sentencepiece;
    let made = TextProcessor::new(&both, spec(TextFamily::SigLip2, Canonicalization::Hf)).unwrap();
    assert_eq!((made.describe().tokenizer, made.fingerprint()), ("tokenizer.json (BPE)", alone));
}

#[test]
fn describes_itself() {
    let kinds = ALL.map(|name| processor(name).describe().tokenizer);
    assert_eq!(
        kinds,
        [
            "SentencePiece (unigram)",
            "SentencePiece (unigram)",
            "SentencePiece (BPE)",
            "SentencePiece (BPE)",
            "tokenizer.json (BPE)"
        ]
    );
    let told = serde_json::to_value(processor("gemma_json").describe()).unwrap();
    assert_eq!((told["pad_id"].as_u64(), told["eos_id"].as_u64()), (Some(0), Some(1)));
}

#[test]
fn a_bad_file_is_named() {
    let load = |files: TokenizerFiles, family| {
        TextProcessor::new(&files, spec(family, Canonicalization::Hf)).err().unwrap().to_string()
    };
    let bytes = files("unigram").sentencepiece.unwrap();
    let cut = TokenizerFiles {
        sentencepiece: Some(Cow::Owned(bytes[..bytes.len() / 2].to_vec())),
        ..Default::default()
    };
    let error = load(cut, TextFamily::SigLip1);
    assert!(error.contains("SentencePiece") && error.contains("truncated"), "{error}");
    let wrong =
        TokenizerFiles { sentencepiece: Some(Cow::Borrowed(b"{\"version\": 1}")), ..Default::default() };
    assert!(load(wrong, TextFamily::SigLip1).contains("SentencePiece model is not usable"));
    let wrong = TokenizerFiles { json: Some(Cow::Borrowed(b"{\"version\": 1}")), ..Default::default() };
    assert!(load(wrong, TextFamily::SigLip2).starts_with("tokenizer.json is not usable"));
    let wrong = TokenizerFiles { config: Some(Cow::Borrowed(b"[]")), ..Default::default() };
    assert!(load(wrong, TextFamily::SigLip2).starts_with("tokenizer_config.json is not usable"));
}

/// Loads mutated bytes and, where they load, encodes: an error or ids, never a panic.
fn survives(files: &TokenizerFiles, family: TextFamily) {
    if let Ok(processor) = TextProcessor::new(files, spec(family, Canonicalization::Hf)) {
        for text in ["", "A photo of two cats, café 😀 ½ﬁ", "</s><eos> x ▁"] {
            for mode in Canonicalization::ALL {
                if let Ok(text) = processor.encode(text, Some(mode)) {
                    assert_eq!(text.ids.len(), CONTEXT);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, u8),
    Repeat(prop::sample::Index, u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use prop::sample::Index;
    prop_oneof![
        6 => (any::<Index>(), any::<u8>()).prop_map(|(at, to)| Mutation::Set(at, to)),
        1 => any::<Index>().prop_map(Mutation::Cut),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, n)| Mutation::Remove(at, n)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, n)| Mutation::Repeat(at, n)),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        let span = |at: usize, n: u8| at..(at + usize::from(n)).min(length);
        match mutation.clone() {
            Mutation::Set(at, to) => bytes[at.index(length)] = to,
            Mutation::Cut(at) => bytes.truncate(at.index(length)),
            Mutation::Remove(at, n) => drop(bytes.drain(span(at.index(length), n))),
            Mutation::Repeat(at, n) => bytes.extend_from_within(span(at.index(length), n)),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_becomes_one_context_of_ids(text in r"(\PC|\s|[<>/sepadounk_&#;]|\p{Mn}){0,80}", at in 0..ALL.len()) {
        thread_local! {
            static PROCESSORS: Vec<TextProcessor> = ALL.map(processor).into();
        }
        PROCESSORS.with(|processors| {
            let processor = &processors[at];
            for mode in Canonicalization::ALL {
                let ids = processor.encode(&text, Some(mode)).unwrap();
                assert_eq!(ids.ids.len(), CONTEXT);
                assert!(ids.used >= 1 && ids.used <= CONTEXT);
                assert_eq!(ids.ids[ids.used - 1], processor.eos_id());
                assert!(ids.ids.iter().all(|id| (*id as usize) < processor.describe().vocab_size));
                assert!(ids.ids[ids.used..].iter().all(|id| *id == processor.pad_id()));
            }
        });
    }

    #[test]
    fn no_malformed_sentencepiece_model_panics(
        mutations in prop::collection::vec(mutation(), 1..6), at in 0..4usize,
    ) {
        let name = ALL[at];
        let mut files = files(name);
        files.sentencepiece = files.sentencepiece.map(|bytes| Cow::Owned(mutate(bytes.into_owned(), &mutations)));
        survives(&files, family_of(name));
    }

    #[test]
    fn no_malformed_configuration_panics(mutations in prop::collection::vec(mutation(), 1..6)) {
        let mut files = files("unigram_bytes");
        files.config = files.config.map(|bytes| Cow::Owned(mutate(bytes.into_owned(), &mutations)));
        survives(&files, TextFamily::SigLip1);
    }

    #[test]
    fn no_malformed_tokenizer_json_panics(mutations in prop::collection::vec(mutation(), 1..4)) {
        let mut files = files("gemma_json");
        files.json = files.json.map(|bytes| Cow::Owned(mutate(bytes.into_owned(), &mutations)));
        survives(&files, TextFamily::SigLip2);
    }
}

#[test]
fn a_reading_shows_what_the_tower_does_not_see() {
    for name in ALL {
        let processor = processor(name);
        let short = processor.reading("A Cat", None).unwrap();
        assert_eq!(short.canonical, "a cat", "{name}");
        assert_eq!(short.ids, processor.encode("A Cat", None).unwrap());
        assert!(short.cut.is_empty());
        // Cut or not, no token is lost: those of a large context are those of the small one and what was cut.
        let text = "the quick brown fox jumps over the lazy dog and the quick brown fox again";
        let wide = TextSpec { context: 256, ..spec(family_of(name), Canonicalization::Hf) };
        let whole = TextProcessor::new(&files(name), wide).unwrap().encode(text, None).unwrap();
        let long = processor.reading(text, None).unwrap();
        assert!(long.ids.truncated, "{name}");
        let kept = &long.ids.ids[..CONTEXT - 1];
        let eos = long.ids.ids[CONTEXT - 1];
        assert_eq!([kept, &long.cut, &[eos]].concat(), whole.ids[..whole.used], "{name}");
    }
}

#[test]
fn a_text_that_just_fits_is_not_cut() {
    for name in ALL {
        let processor = processor(name);
        // One word more in each: one of them fills the context to the last place.
        for words in 1..2 * CONTEXT {
            let text = "a ".repeat(words);
            let reading = processor.reading(text.trim_end(), None).unwrap();
            assert_eq!(reading.cut.is_empty(), !reading.ids.truncated, "{name}, {words} words");
        }
    }
}
