"""Decoding and resizing one JPEG to the model's size: ours, Pillow, OpenCV and torchvision in turns, one thread each.

    cargo build --release
    pip install pillow numpy opencv-python-headless torch torchvision
    python benches/preprocess_peers.py --siglip target/release/siglip --model CHECKPOINT [--rounds 5]

Prints a Markdown table with milliseconds (the median of the rounds' medians) and each peer's time over ours, measured in
the same round. Only Pillow computes the same pixels as ours; OpenCV and torchvision resize without or with another
antialiasing, and count here as the fastest that is commonly used.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2 import functional as vision_functional

SIDE = 224  # of the checkpoint with which ours runs
SIZES = [(640, 480), (4000, 3000)]


def scene(width: int, height: int) -> bytes:
    """Gradients, waves and a little noise: a JPEG of quality 90 that compresses about as a photograph does."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = np.sin(columns / 37) * np.cos(rows / 23) * 60
    grain = np.random.default_rng(0).integers(0, 16, (height, width))
    channels = columns * 255 / width + wave + grain, rows * 255 / height - wave + grain, 128 + wave + grain
    picture = np.stack(channels, -1).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=90)
    return out.getvalue()


def pillow(data: bytes):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def pillow_draft(data: bytes):
    image = Image.open(io.BytesIO(data))
    image.draft(None, (SIDE, SIDE))
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def opencv(data: bytes):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def vision(data: bytes):
    image = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return vision_functional.resize(image, [SIDE, SIDE], antialias=True)


PEERS = {"Pillow": pillow, "OpenCV (INTER_AREA)": opencv, "torchvision": vision, "Pillow with draft": pillow_draft}


def median_ms(run, seconds: float) -> float:
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--siglip", required=True)
    parser.add_argument("--model", required=True, help=f"a checkpoint of {SIDE} px with the bilinear filter")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder = Path(tempfile.mkdtemp())

    def ours(path: Path, decode: str) -> float:
        command = [arguments.siglip, "bench", "--model", arguments.model, "--prepare", str(path), "--image-decode", decode,
                   "--threads", "1", "--seconds", str(arguments.seconds), "--json"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return json.loads(out.strip().splitlines()[-1])["median_ms"]

    print("| picture | ours | " + " | ".join(f"{name} (× ours)" for name in PEERS) + " | ours, fast |")
    print("| --- |" + " --- |" * (len(PEERS) + 2))
    for width, height in SIZES:
        data = scene(width, height)
        path = folder / f"{width}x{height}.jpg"
        path.write_bytes(data)
        exact, fast, peers, ratios = [], [], {name: [] for name in PEERS}, {name: [] for name in PEERS}
        for _ in range(arguments.rounds):
            exact.append(ours(path, "exact"))
            fast.append(ours(path, "fast"))
            for name, run in PEERS.items():
                peers[name].append(median_ms(lambda run=run: run(data), arguments.seconds))
                ratios[name].append(peers[name][-1] / (fast if "draft" in name else exact)[-1])
        cells = [f"{statistics.median(peers[name]):.1f} ({statistics.median(ratios[name]):.2f})" for name in PEERS]
        cells = [f"{statistics.median(exact):.1f}", *cells, f"{statistics.median(fast):.1f}"]
        print(f"| {width} × {height} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
