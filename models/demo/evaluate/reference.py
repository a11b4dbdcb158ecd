"""The same figures from transformers in f32, and the golden values for the Rust tests.

    python reference.py --data DATA                      # the figures of PROTOCOL.md
    python reference.py --expected ../expected.json      # golden values of the example pictures
    python reference.py --check-training DATA RUN        # the exported files against the trained checkpoint

This is what the project's own engine is compared with, never what is reported as the engine's result.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoTokenizer, SiglipImageProcessor, SiglipModel

from metrics import evaluate, show

HERE = Path(__file__).resolve().parent
EXAMPLE_TEXTS = [
    "a photo of a cat", "a cat", "pizza", "a red car", "a guitar", "flag of Japan", "Katze", "voiture", "ネコ", "gato",
]


def pooled(output):
    return output if torch.is_tensor(output) else output.pooler_output


class Reference:
    """SiglipModel in f32, with transformers' own processor and tokenizer."""

    def __init__(self, folder: Path):
        self.model = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = image_processor(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.length = self.model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def images(self, paths):
        rows = []
        for start in range(0, len(paths), 64):
            batch = [Image.open(p).convert("RGB") for p in paths[start:start + 64]]
            pixels = self.processor(images=batch, return_tensors="pt")["pixel_values"]
            rows.append(pooled(self.model.get_image_features(pixel_values=pixels)))
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1).numpy()

    def ids(self, texts):
        encoded = self.tokenizer(texts, padding="max_length", truncation=True, max_length=self.length)
        return encoded["input_ids"]

    @torch.no_grad()
    def texts(self, texts):
        ids = torch.tensor(self.ids(texts))
        rows = torch.cat([pooled(self.model.get_text_features(input_ids=part)) for part in ids.split(256)])
        return torch.nn.functional.normalize(rows, dim=-1).numpy()


def image_processor(folder: Path):
    """The processor that resizes with Pillow, whose pixels are the reference."""
    try:
        from transformers import SiglipImageProcessorPil
        return SiglipImageProcessorPil.from_pretrained(folder)
    except ImportError:
        return SiglipImageProcessor.from_pretrained(folder)


def expected(reference: Reference, folder: Path) -> dict:
    """Golden values: token ids, the first values of every vector, and the matrix of logits."""
    paths = sorted((folder / "examples").glob("*.png"))
    images, texts = reference.images(paths), reference.texts(EXAMPLE_TEXTS)
    scale = reference.model.logit_scale.exp().item()
    bias = reference.model.logit_bias.item()
    logits = images @ texts.T * scale + bias
    rounded = lambda rows: [[round(float(v), 6) for v in row] for row in rows]
    return {
        "made_by": f"transformers in f32 from the f16 weights; vectors are L2-normalised, their first 8 of {images.shape[1]} values",
        "logit_scale_exp": round(scale, 6), "logit_bias": round(bias, 6),
        "images": [{"file": p.name, "embedding": row} for p, row in zip(paths, rounded(images[:, :8]))],
        "texts": [{"text": t, "ids": i, "embedding": row}
                  for t, i, row in zip(EXAMPLE_TEXTS, reference.ids(EXAMPLE_TEXTS), rounded(texts[:, :8]))],
        "logits": rounded(logits),
    }


def check_training(folder: Path, data: Path, run: Path) -> None:
    """The exported files must give the vectors that the training code gives for the trained weights."""
    sys.path.insert(0, str(HERE.parent / "train"))
    from data import load_tokenizer
    from model import build, image_vectors, text_vectors

    reference = Reference(folder)
    tokenizer = load_tokenizer(data / "tokenizer.json")
    saved = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    pad, eos = (tokenizer.token_to_id(token) for token in ("<pad>", "</s>"))
    trained = build(tokenizer.get_vocab_size(), pad, eos, saved.get("variant", "demo")).eval()
    trained.load_state_dict(saved["average"])
    concepts = json.loads((data / "concepts.json").read_text())
    texts = [name for c in concepts for lang, name in c["names"].items() if lang in ("en", "de", "ja", "fr", "es", "ru")]
    texts += ["", "!!!", "A photo of A_CAT, isn't it?", "ＡＢＣ ﬁne", "many words " * 20]
    ids = [e.ids for e in tokenizer.encode_batch(texts)]
    assert ids == reference.ids(texts), "token ids differ"
    paths = sorted((data / "twemoji").glob("*.png"))[:64]
    pixels = reference.processor(images=[Image.open(p).convert("RGB") for p in paths], return_tensors="pt")
    with torch.no_grad():
        by_training = text_vectors(trained, torch.tensor(ids[:512])).numpy(), image_vectors(trained, pixels["pixel_values"]).numpy()
    by_export = reference.texts(texts[:512]), reference.images(paths)
    for kind, a, b in zip(("texts", "images"), by_training, by_export):
        worst = float((a * b).sum(1).min())
        print(f"{kind}: smallest cosine between training (f32) and export (f16 weights) {worst:.6f}")
        assert worst > 0.9995
    # The tokenizer library on its own (as Rust uses it) must pad and cut to the same ids.
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.enable_truncation(reference.length)
    plain.enable_padding(length=reference.length, pad_id=0, pad_token="<pad>")
    assert [e.ids for e in plain.encode_batch(texts)] == ids
    print(f"token ids of {len(texts)} texts agree")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE.parent)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--expected", type=Path)
    parser.add_argument("--check-training", type=Path, nargs=2, metavar=("DATA", "RUN"))
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.check_training:
        check_training(arguments.model, *arguments.check_training)
    reference = Reference(arguments.model)
    if arguments.expected:
        text = json.dumps(expected(reference, arguments.model), ensure_ascii=False, indent=1)
        arguments.expected.write_text(text + "\n")
    if arguments.data:
        report = evaluate(arguments.data, arguments.model, reference.images, reference.texts, arguments.photographs)
        print(show(report))
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
