"""Batches: pictures of distinct concepts and texts for them, with the matrix of which belong together."""

import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from concepts import LANGUAGES
from model import CONTEXT
from texts import TEMPLATES, texts_of

ONE_COLOUR = {"emojione-mono", "fluent-mono"}
ONE_COLOUR_WEIGHT = 0.3  # they teach the shape, but nobody searches among them
VALIDATION_PICTURES = 300
LANGUAGE_WEIGHTS = {"en": 8, "de": 3, "fr": 3, "ja": 3, "es": 3}  # the others: 0.5 each
FLIPPABLE = {"animals-nature", "food-drink", "smileys-emotion", "travel-places", "objects", "activities", "people-body"}
SIDED = ("left", "right", "clock", "thirty", "up", "down", "forward", "back")


class Dataset:
    """The rendered pictures and all texts, held in memory."""

    def __init__(self, folder: Path, seed: int):
        self.concepts = json.loads((folder / "concepts.json").read_text())
        self.pictures = json.loads((folder / "pictures.json").read_text())
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.tokenizer = load_tokenizer(folder / "tokenizer.json")
        self.rng = random.Random(seed)
        self.stored_for = None
        self.classes = sorted({p["concept"] for p in self.pictures})
        self.class_of = {concept: k for k, concept in enumerate(self.classes)}

        # A few pictures of the training vendors are held back, to watch the training and to fit the final
        # temperature and bias; never the only colour picture of a concept.
        by_concept = {}
        for row, picture in enumerate(self.pictures):
            if picture["vendor"] not in ONE_COLOUR:
                by_concept.setdefault(picture["concept"], []).append(row)
        spare = [rows for rows in by_concept.values() if len(rows) >= 4]
        chooser = random.Random(0)
        self.validation = sorted(chooser.choice(rows) for rows in chooser.sample(spare, VALIDATION_PICTURES))
        held = set(self.validation)
        self.rows = {concept: [] for concept in self.classes}
        self.row_weights = {concept: [] for concept in self.classes}
        for row, picture in enumerate(self.pictures):
            if row not in held:
                self.rows[picture["concept"]].append(row)
                weight = ONE_COLOUR_WEIGHT if picture["vendor"] in ONE_COLOUR else 1.0
                self.row_weights[picture["concept"]].append(weight)
        self.mono = np.array([p["vendor"] in ONE_COLOUR for p in self.pictures])
        self.flip = np.array([self._may_flip(p["concept"]) for p in self.pictures])

        # Which concepts a text is right for: names are nearly unique, tags are shared ("fruit", "animal").
        self.texts, self.right_for = {}, {}
        for concept in self.classes:
            self.texts[concept] = {}
            for lang in LANGUAGES:
                names, tags = texts_of(self.concepts[concept], lang)
                self.texts[concept][lang] = (names, tags)
                for text in names + tags:
                    self.right_for.setdefault(text.lower(), set()).add(concept)

    def _may_flip(self, concept: int) -> bool:
        record = self.concepts[concept]
        return record["group"] in FLIPPABLE and not any(word in record["name"] for word in SIDED)

    def load_images(self, side: int) -> None:
        """Keep the pictures in memory at a third more than the side the model sees (premultiplied while shrinking)."""
        self.stored_for = side
        wanted = min(side * 4 // 3, self.images.shape[1])
        self.store = torch.empty(len(self.images), wanted, wanted, 4, dtype=torch.uint8)
        for start in range(0, len(self.images), 512):
            block = torch.from_numpy(np.array(self.images[start:start + 512])).permute(0, 3, 1, 2).float()
            if wanted != block.shape[-1]:
                alpha = block[:, 3:] / 255
                block = torch.cat([block[:, :3] * alpha, block[:, 3:]], 1)
                block = F.interpolate(block, size=(wanted, wanted), mode="bilinear", antialias=True)
                block = torch.cat([block[:, :3] / (block[:, 3:] / 255).clamp(min=1e-3), block[:, 3:]], 1)
            self.store[start:start + 512] = block.round().clamp(0, 255).byte().permute(0, 2, 3, 1)

    def linear_features(self, width: int) -> torch.Tensor:
        """A unit vector for each picture: its 24 × 24 pixels on white, whitened by the training pictures' PCA.

        Nearest neighbours among these already find the concept of half of the held-back pictures, so they are a good
        place to begin: the helper vectors start as their means, and the image tower first learns to reproduce them.
        """
        blocks = []
        for start in range(0, len(self.images), 512):
            block = torch.from_numpy(np.array(self.images[start:start + 512])).permute(0, 3, 1, 2).float() / 255
            block = block[:, :3] * block[:, 3:] + 1 - block[:, 3:]
            blocks.append(F.interpolate(block, size=(24, 24), mode="bilinear", antialias=True).flatten(1))
        pixels = torch.cat(blocks)
        use = torch.from_numpy(~self.mono)
        use[self.validation] = False
        pixels -= pixels[use].mean(0)
        generator_state = torch.get_rng_state()
        _, values, vectors = torch.svd_lowrank(pixels[use], width, niter=3)
        torch.set_rng_state(generator_state)
        features = F.normalize(pixels @ vectors / (values + 0.1 * values.mean()), dim=-1)
        self.means = torch.zeros(len(self.classes), width)
        for row, picture in enumerate(self.pictures):
            if use[row]:
                self.means[self.class_of[picture["concept"]]] += features[row]
        self.means = F.normalize(self.means, dim=-1)
        lines = [self.class_of[p["concept"]] for p in self.pictures]
        best = (features[self.validation] @ self.means.T).argmax(-1)
        right = best == torch.tensor(lines)[self.validation]
        print(f"linear features, nearest mean: top-1 {right.float().mean().item():.3f}", flush=True)
        # One-colour drawings are unlike the rest in pixels; they only get their concept's mean.
        return F.normalize(features * use[:, None] + self.means[lines], dim=-1)

    def sample_text(self, concept: int, lang: str) -> tuple[str, set]:
        """A text for a concept and the set of concepts it is right for."""
        names, tags = self.texts[concept][lang]
        if not names:
            names, tags = self.texts[concept]["en"]
            lang = "en"
        if tags and self.rng.random() < 0.22:
            text = self.rng.choice(tags)
        else:
            text = names[0] if self.rng.random() < 0.6 else self.rng.choice(names)
        right = self.right_for[text.lower()]
        if lang in TEMPLATES and self.rng.random() < 0.35:
            text = self.rng.choice(TEMPLATES[lang]).format(text)
        return text, right

    def batch(self, concepts_per_batch: int, pictures_per_concept: int, texts_per_batch: int):
        """Rows of pictures, their classes, token ids, and the pictures × texts and texts × classes matrices."""
        chosen = self.rng.sample(self.classes, concepts_per_batch)
        rows = []
        for concept in chosen:
            rows += self.rng.choices(self.rows[concept], self.row_weights[concept], k=pictures_per_concept)
        texts = []
        for j in range(texts_per_batch):
            lang = "en"
            if self.rng.random() > 1 / 3:
                lang = self.rng.choices(LANGUAGES, [LANGUAGE_WEIGHTS.get(name, 0.5) for name in LANGUAGES])[0]
            texts.append(self.sample_text(chosen[j % concepts_per_batch], lang))
        ids = torch.tensor([e.ids for e in self.tokenizer.encode_batch([text for text, _ in texts])])
        picture_concepts = [concept for concept in chosen for _ in range(pictures_per_concept)]
        pairs = torch.tensor([[concept in right for _, right in texts] for concept in picture_concepts])
        soft = torch.zeros(len(texts), len(self.classes))
        for j, (_, right) in enumerate(texts):
            columns = [self.class_of[c] for c in right]
            soft[j, columns] = 1 / len(columns)
        classes = torch.tensor([self.class_of[c] for c in picture_concepts])
        return torch.tensor(rows), classes, ids, pairs, soft


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer with SigLIP's padding: always to the context length, with its own pad token."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(length=CONTEXT, pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    return tokenizer
