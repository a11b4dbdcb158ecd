"""The figures of PROTOCOL.md, from any source of embeddings. Only numpy."""

import json
import re
from pathlib import Path

import numpy as np

LANGUAGES = {"de": "German", "fr": "French", "ja": "Japanese", "es": "Spanish"}
# Photographs that the packages scikit-image 0.25.2 and scikit-learn carry, and what would be a right answer.
PHOTOGRAPHS = {
    "chelsea.png": {"cat", "cat face"}, "coffee.png": {"hot beverage"}, "rocket.jpg": {"rocket"},
    "astronaut.png": {"astronaut", "woman"}, "motorcycle_left.png": {"motorcycle"}, "moon.png": {"full moon"},
    "camera.png": {"camera"}, "coins.png": {"coin"}, "flower.jpg": {"blossom", "hibiscus", "rosette", "bouquet"},
}


def same(text: str) -> str:
    """Texts that are one answer: case and punctuation do not count."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The place of the best right answer in each row, from 1; a tie counts against the model."""
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    return 1 + ((scores >= best) & ~right).sum(1)


def summary(places: np.ndarray) -> dict:
    """Top-1, top-5 and the mean reciprocal rank."""
    return {"top1": float((places <= 1).mean()), "top5": float((places <= 5).mean()),
            "mrr": float((1 / places).mean()), "of": int(len(places))}


def calibration(probability: np.ndarray, right: np.ndarray, bins: int = 10) -> dict:
    """Reliability table and expected calibration error over pairs."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    table, error = [], 0.0
    for b in range(bins):
        inside = which == b
        count = int(inside.sum())
        if count:
            mean, share = float(probability[inside].mean()), float(right[inside].mean())
            error += count / probability.size * abs(mean - share)
            table.append({"from": b / bins, "pairs": count, "mean_probability": mean, "right": share})
    return {"ece": error, "pairs": int(probability.size), "table": table}


def evaluate(data: Path, model: Path, embed_images, embed_texts, photographs: Path | None) -> dict:
    """Everything of the protocol. `embed_images(paths)` and `embed_texts(texts)` return rows of unit length."""
    concepts = [c for c in json.loads((data / "concepts.json").read_text()) if c["twemoji"]]
    scale, bias = scale_and_bias(model)
    paths = [data / "twemoji" / f"{c['code']}.png" for c in concepts]
    images = embed_images(paths)
    seen = np.array([c["drawn"] and not c["held_out"] for c in concepts])
    unseen = np.array([c["held_out"] for c in concepts])
    report = {"concepts": int(len(concepts)), "scale": scale, "bias": bias}

    def against(lang):
        names = [c["names"].get(lang, c["name"]) for c in concepts]
        keys = np.array([same(n) for n in names])
        return embed_texts(names), keys[:, None] == keys[None, :]

    texts, right = against("en")
    scores = images @ texts.T
    report["unseen_artist"] = summary(ranks(scores[seen], right[seen]))
    by_group = {}
    for group in sorted({c["group"] for c in concepts}):
        rows = seen & np.array([c["group"] == group for c in concepts])
        by_group[group] = summary(ranks(scores[rows], right[rows]))
    report["unseen_artist_by_group"] = by_group
    among = np.ix_(unseen, unseen)
    report["unseen_concepts"] = {
        "picture_to_text": summary(ranks(scores[among], right[among])),
        "text_to_picture": summary(ranks(scores[among].T, right[among].T)),
        "picture_to_all_texts": summary(ranks(scores[unseen], right[unseen])),
    }
    probability = 1 / (1 + np.exp(-(scores[seen].astype(np.float64) * scale + bias)))
    likely = probability >= 0.01
    report["calibration"] = {
        "all_pairs": calibration(probability.ravel(), right[seen].ravel()),
        "pairs_of_at_least_1_percent": calibration(probability[likely], right[seen][likely]),
    }
    report["languages"] = {}
    for lang, name in LANGUAGES.items():
        texts_there, right_there = against(lang)
        report["languages"][name] = summary(ranks((images @ texts_there.T)[seen], right_there[seen]))
    if photographs is not None:
        found = [name for name in PHOTOGRAPHS if (photographs / name).exists()]
        wanted = np.array([[c["name"] in PHOTOGRAPHS[name] for c in concepts] for name in found])
        places = ranks(embed_images([photographs / name for name in found]) @ texts.T, wanted)
        report["photographs"] = summary(places) | {"places": dict(zip(found, places.tolist()))}
    return report


def scale_and_bias(model: Path) -> tuple[float, float]:
    """exp(logit_scale) and logit_bias, read from the safetensors file without any framework."""
    with open(model / "model.safetensors", "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        values = []
        for name in ("logit_scale", "logit_bias"):
            entry = header[name]
            file.seek(8 + length + entry["data_offsets"][0])
            kind = {"F16": "<f2", "F32": "<f4"}[entry["dtype"]]
            values.append(float(np.frombuffer(file.read(np.dtype(kind).itemsize), kind)[0]))
    return float(np.exp(values[0])), values[1]


def show(report: dict) -> str:
    """The report as a short table for people."""
    def line(name, row):
        return f"{name:34} top-1 {row['top1']:6.1%}  top-5 {row['top5']:6.1%}  mrr {row['mrr']:.3f}  ({row['of']})"

    lines = [line("unseen artist, English", report["unseen_artist"])]
    lines += [line(f"  {group}", row) for group, row in report["unseen_artist_by_group"].items() if row["of"]]
    lines += [line(f"unseen artist, {name}", row) for name, row in report["languages"].items()]
    lines += [line(f"unseen concepts, {name.replace('_', ' ')}", row)
              for name, row in report["unseen_concepts"].items()]
    for name, part in report["calibration"].items():
        lines.append(f"calibration, {name.replace('_', ' ')}: ECE {part['ece']:.5f} over {part['pairs']} pairs")
        lines += [f"  {row['from']:.1f}: {row['pairs']:9} pairs, mean probability {row['mean_probability']:.4f}, "
                  f"right {row['right']:.4f}" for row in part["table"]]
    if "photographs" in report:
        lines.append(line("photographs", report["photographs"]))
    return "\n".join(lines)
