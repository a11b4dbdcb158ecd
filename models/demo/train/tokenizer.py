"""The tokenizer: a byte-pair vocabulary trained on the labels of the training concepts in every language."""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from concepts import LANGUAGES
from texts import TEMPLATES

VOCABULARY = 8192
PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


def train_tokenizer(concepts) -> Tokenizer:
    """Train on names (often) and tags (once), so that names become few tokens.

    The normaliser lowers case and turns punctuation into spaces. A service that canonicalises texts itself
    before tokenising therefore changes nothing.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFKC(), normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[’']"), ""), normalizers.Replace(Regex(r"[\p{P}]+"), " "),
        normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(),
    ])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    weight = {"en": 8, "de": 4, "fr": 4, "es": 4, "ja": 4}
    lines = []
    for concept in concepts:
        for lang in LANGUAGES:
            repeat = weight.get(lang, 1)
            if lang in concept.names:
                lines += [concept.names[lang]] * repeat
                lines += concept.tags[lang] * (1 + repeat // 4)
    for lang, templates in TEMPLATES.items():
        lines += [t.replace("{}", "") for t in templates] * 20 * weight.get(lang, 1)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[PAD, EOS, UNKNOWN], show_progress=False,
                                  limit_alphabet=3000)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A $B {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))])
    return tokenizer
