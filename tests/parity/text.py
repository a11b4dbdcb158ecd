"""Compares our token ids with transformers', tokenizers', sentencepiece's and open_clip's, string by string.

    cargo build --example tokenize
    python tests/parity/text.py --example target/debug/examples/tokenize [--siglip2-tokenizer DIR] [--count 10000]

DIR is a folder with Gemma's tokenizer.json (google/siglip2-*); it may have golden_ids.json as well.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unicodedata

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "fixtures"))

from transformers import Siglip2Tokenizer, SiglipTokenizer

import make_tokenizers as make
from strings import strings


def ours(binary, folder, family, mode, context, vocab, texts):
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    run = subprocess.run([binary, folder, family, mode, str(context), str(vocab)], input=lines.encode(), capture_output=True)
    if run.returncode:
        sys.exit(f"{folder}: {run.stderr.decode()}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def compare(name, texts, answers, reference, canonical=None):
    wrong = newer = 0
    for text, answer in zip(texts, answers, strict=True):
        expected = reference(text)
        if answer.get("ids") != expected:
            if canonical and not known(text) and "text" in answer and answer["text"] != canonical(text):
                newer += 1
                continue
            wrong += 1
            if wrong <= 5:
                print(f"  {name}: {text!r}\n    ours      {answer}\n    reference {expected}")
    print(f"{name}: {len(texts)} strings, {wrong} differ" + newer_than_python(newer))
    return wrong


def newer_than_python(count):
    version = unicodedata.unidata_version
    return f", {count} more where a character is newer than Unicode {version}" if count else ""


def known(text):
    """Whether this Python's Unicode has all of it: newer characters change case and order (NFC) in newer tables only."""
    return all(unicodedata.category(c) != "Cn" for c in text)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--example", required=True)
    arguments.add_argument("--siglip2-tokenizer", type=pathlib.Path)
    arguments.add_argument("--count", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=11)
    arguments = arguments.parse_args()
    texts = strings(arguments.count, arguments.seed)
    plain = [t for t in strings(arguments.count, arguments.seed + 1, special=False)
             if not any(s in t for s in ("<unk>", "</s>", "▁", "<pad>", "<eos>", "<bos>"))]
    lower = str.maketrans({chr(c): chr(c + 32) for c in range(65, 91)})
    wrong = 0

    def check(folder, family, mode, texts, reference, canonical=None, context=64, vocab=256_000):
        nonlocal wrong
        answers = ours(arguments.example, folder, family, mode, context, vocab, texts)
        wrong += compare(f"{pathlib.Path(folder).name} {family} {mode}", texts, answers, reference, canonical)

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        make.train(scratch)
        canonical = SiglipTokenizer(str(scratch / "unigram" / "spiece.model")).canonicalize_text
        for name in ("unigram", "unigram_bytes", "bpe"):
            check(scratch / name, "siglip1", "hf", texts, make.siglip_1(scratch / name, 64), canonical)
            check(scratch / name, "siglip1", "none", plain, make.sentencepiece(scratch / name, 64))
        check(scratch / "bpe_gemma", "siglip2", "none", plain, make.sentencepiece(scratch / "bpe_gemma", 64))
        # Canonicalisation alone, for every single character too.
        single = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
        for family, mode, reference, chars in [("siglip1", "hf", canonical, single),
                                               ("siglip2", "open_clip", make.open_clip_text, texts + single)]:
            answers = ours(arguments.example, scratch / "unigram", family, mode, 16, 256_000, chars)
            differ = [(t, a["text"], reference(t)) for t, a in zip(chars, answers, strict=True) if a["text"] != reference(t)]
            real = [d for d in differ if known(d[0])]
            print(f"{mode} {family} canonicalisation: {len(chars)} strings, {len(real)} differ" + newer_than_python(len(differ) - len(real)))
            for text, got, expected in real[:10]:
                print(f"  {text!r}\n    ours      {got!r}\n    reference {expected!r}")
            wrong += len(real)

    gemma = arguments.siglip2_tokenizer
    if gemma is None or not (gemma / "tokenizer.json").is_file():
        print("no Gemma tokenizer given (--siglip2-tokenizer): its comparisons are left out")
    else:
        raw, lowered = make.siglip_2(gemma, False, 64), make.siglip_2(gemma, True, 64)
        check(gemma, "siglip2", "none", texts, raw)
        check(gemma, "siglip2", "hf", texts, lowered, str.lower)
        check(gemma, "siglip2", "big_vision", texts, lambda text: raw(text.translate(lower)))
        check(gemma, "siglip2", "open_clip", texts, lambda text: raw(make.open_clip_text(text)), make.open_clip_text)
        tokenizer = Siglip2Tokenizer.from_pretrained(gemma, padding_side="right")
        check(gemma, "siglip2", "hf", texts[:2000],
              lambda text: tokenizer(text, padding="max_length", truncation=True, max_length=64)["input_ids"], str.lower)
        if (gemma / "golden_ids.json").is_file():
            golden = {case["text"]: case["ids"] for case in json.loads((gemma / "golden_ids.json").read_text())}
            answers = ours(arguments.example, gemma, "siglip2", "none", 64, 256_000, list(golden))
            for answer in answers:
                answer["ids"] = answer["ids"][: answer["used"]]
            wrong += compare("golden_ids.json", list(golden), answers, lambda text: golden[text])
    if wrong:
        sys.exit(f"{wrong} mismatches")
    print("all identical")


if __name__ == "__main__":
    main()
