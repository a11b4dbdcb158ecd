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
import json
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "train"))

from concepts import load_concepts  # noqa: E402

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


def drawings(data: Path) -> list[tuple[str, Path]]:
    """Name and picture of every concept that was in training, drawn by the unseen artist."""
    concepts = [concept for concept in load_concepts(data / "packages") if not concept.held_out]
    folder = data / "twemoji"
    if not folder.exists():
        render_into(folder, data, {concept.code: concept for concept in concepts})
    return [(c.name, folder / f"{c.code}.png") for c in concepts if (folder / f"{c.code}.png").exists()]


def render_into(folder: Path, data: Path, wanted: dict) -> None:
    """The pictures as train/prepare.py makes them."""
    from prepare import EVALUATION_SIDE, icon_jobs, render

    unseen = icon_jobs(data / "packages", "iconify-json+twemoji@1.2.5", {}, wanted)
    folder.mkdir()
    for code, svg in unseen.items():
        if (pixels := render((svg, EVALUATION_SIDE))) is not None:
            canvas = Image.new("RGBA", (EVALUATION_SIDE, EVALUATION_SIDE), "white")
            canvas.alpha_composite(Image.fromarray(pixels))
            canvas.convert("RGB").save(folder / f"{code}.png")


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


class Server:
    """A running server, or one that is started for the game."""

    def __init__(self, arguments):
        self.process, self.model = None, arguments.model
        self.url = arguments.server
        if self.url is None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command = [arguments.siglip, "serve", "--model", self.model, "--port", str(port), "--log", "warn"]
            self.process = subprocess.Popen(command)
            self.url = f"http://127.0.0.1:{port}"
            self.wait()

    def wait(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health/ready"):
                    return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server is not ready after a minute")

    def post(self, route: str, body: dict) -> tuple[dict, float]:
        """The answer, and the seconds that it took."""
        request = urllib.request.Request(
            self.url + route, json.dumps({"model": self.model} | body).encode(), {"Content-Type": "application/json"})
        start = time.perf_counter()
        with urllib.request.urlopen(request) as response:
            answer = response.read()
        return json.loads(answer), time.perf_counter() - start

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--siglip", default="siglip", help="the binary")
    parser.add_argument("--server", help="the address of a running server, instead of the binary")
    parser.add_argument("--pictures", type=int, default=10_000, help="pictures at most")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    pictures = composites(drawings(arguments.data), arguments.pictures)
    server = Server(arguments)
    report, missed = {}, []
    try:
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
    finally:
        server.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if missed:
        raise SystemExit(f"below the bar: {', '.join(missed)}")


if __name__ == "__main__":
    main()
