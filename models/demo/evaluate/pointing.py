"""The pointing game: is the maximum of a heat map in the right quarter of a picture? Through `POST /v1/heatmaps`.

    python pointing.py --data DATA --siglip ../../../target/release/siglip
    python pointing.py --data DATA --server http://127.0.0.1:8080 --model NAME

A picture is a canvas of 512 × 512 pixels with four drawings of Twemoji, the artist that no training picture is of, one in
each quarter; each of the four names is asked for. The drawings are of the concepts that training knew by other artists,
each in one picture, drawn by lot with a fixed seed. Chance is 25 %. A map's maximum is the patch with the highest cosine.

DATA is the folder of `train/fetch.py`; only `emojibase-data` and `@iconify-json/twemoji` are needed. The drawings are those
of `train/prepare.py`, and made here if they are not there. No PyTorch; see train/requirements.txt for the rest.
"""

import argparse
import base64
import io
import random
import statistics
from pathlib import Path

from PIL import Image

from drawings import by_unseen
from service import Server, run

SEED = 14
SIDE = 256
CANVAS = 2 * SIDE
# What is asked for, and the least share that the project holds itself to.
METHODS = {
    "windows": ({"method": "windows"}, 0.88),
    "windows of 3 × 3 alone": ({"method": "windows", "window": 3, "budget": 4}, 0.88),
    "windows of 2 × 2 alone": ({"method": "windows", "window": 2, "budget": 4}, None),
    "crops": ({"method": "crops"}, 0.97),
    "values": ({"method": "values"}, None),
    "crops, 9 of them": ({"method": "crops", "budget": 9}, None),
}


def composites(found: list[tuple[str, Path]], count: int) -> list[tuple[list[str], bytes]]:
    """Pictures of four drawings, with the names in the order top left, top right, bottom left, bottom right."""
    order = random.Random(SEED).sample(found, len(found))
    groups = [order[i:i + 4] for i in range(0, len(order) - 3, 4)]
    pictures = []
    for group in groups[:count]:
        canvas = Image.new("RGB", (CANVAS, CANVAS), "white")
        for quarter, (_, path) in enumerate(group):
            drawing = Image.open(path).convert("RGB").resize((SIDE, SIDE))
            canvas.paste(drawing, (quarter % 2 * SIDE, quarter // 2 * SIDE))
        file = io.BytesIO()
        canvas.save(file, "PNG")
        pictures.append(([name for name, _ in group], file.getvalue()))
    return pictures


def is_right(heatmap: dict) -> bool:
    """Whether the maximum is in the quarter whose number is the text's. A patch belongs to the quarter of its middle."""
    peak = heatmap["peak"]
    return (peak["y"] >= CANVAS // 2) * 2 + (peak["x"] >= CANVAS // 2) == heatmap["text"]


def in_box(heatmap: dict) -> float:
    """How much of the box and of the quarter is in both, of what is in either."""
    box, quarter = heatmap["box"], heatmap["text"]
    left, top = quarter % 2 * SIDE, quarter // 2 * SIDE
    width = min(box["x"] + box["width"], left + SIDE) - max(box["x"], left)
    height = min(box["y"] + box["height"], top + SIDE) - max(box["y"], top)
    common = max(width, 0) * max(height, 0)
    return common / (box["width"] * box["height"] + SIDE * SIDE - common)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument("--pictures", type=int, default=10_000, help="pictures at most")


def evaluate(server: Server, arguments: argparse.Namespace) -> dict:
    """All figures, which are printed as well."""
    pictures = composites(by_unseen(arguments.data), arguments.pictures)
    report, missed = {}, []
    encoded = [(names, base64.b64encode(picture).decode()) for names, picture in pictures]
    alone = [server.post("/v1/embeddings", {"input": [{"image": image}]})[1] for _, image in encoded[:50]]
    embedding = statistics.median(alone)
    print(f"{4 * len(pictures)} names in {len(pictures)} pictures; one embedding takes {1000 * embedding:.1f} ms")
    for method, (options, bar) in METHODS.items():
        right, overlap = [], []
        for names, image in encoded:
            answer, _ = server.post(
                "/v1/heatmaps", {"images": [image], "texts": names, "boxes": True} | options)
            right += [is_right(heatmap) for heatmap in answer["data"]]
            overlap += [in_box(heatmap) for heatmap in answer["data"]]
        # Texts are known by now: what is left is the picture.
        again = [server.post("/v1/heatmaps", {"images": [image], "texts": names} | options)[1]
                 for names, image in encoded[:50]]
        share, latency = statistics.mean(right), statistics.median(again)
        report[method] = {"right": share, "box_iou": statistics.mean(overlap), "ms": 1000 * latency,
                          "times_one_embedding": latency / embedding}
        verdict = "" if bar is None else f" (bar {bar:.0%}: {'met' if share >= bar else 'MISSED'})"
        missed += [method] if bar is not None and share < bar else []
        print(f"{method:24} right {share:6.1%}{verdict:20} box IoU {statistics.mean(overlap):.2f}  "
              f"{1000 * latency:6.1f} ms, {latency / embedding:.1f} embeddings", flush=True)
    return {"methods": report, "missed": missed}


if __name__ == "__main__":
    run(__doc__, evaluate, add_options)
