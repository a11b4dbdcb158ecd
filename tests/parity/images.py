"""Compares decoding, resizing and cutting with Pillow and transformers, live.

    cargo build --release --example preprocess
    pip install pillow numpy transformers torch torchvision
    python tests/parity/images.py [--images DIR]… [--helper target/release/examples/preprocess]

Pictures: every kind that `tests/fixtures/make_images.py` draws, at a larger size; the files of `--images`;
and scikit-image's photographs, where that package is installed. Checked:

* decoding equals `ImageOps.exif_transpose(image).convert("RGB")` byte for byte;
* every filter of a resize to random sizes equals Pillow's byte for byte;
* JPEGs scaled down while they are decoded equal Pillow's `Image.draft`;
* patches equal those of transformers' PIL-backed processors byte for byte, for SigLIP (bicubic squash),
  SigLIP 2 (bilinear squash) and NaFlex. The largest difference to the torchvision-backed ones is printed.

Exits with 1 and names the pictures where something differs.
"""

import argparse
import importlib.util
import io
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
import make_images  # noqa: E402

# Above twice this number Pillow refuses a picture before it allocates it.
Image.MAX_IMAGE_PIXELS = 64_000_000


class Helper:
    """The example `preprocess`, one request a line."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, path, step, **fields):
        request = json.dumps({"path": str(path), "step": step, **fields})
        self.process.stdin.write(request.encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        shape = answer["shape"]
        data = self.process.stdout.read(int(np.prod(shape)))
        return np.frombuffer(data, np.uint8).reshape(shape)


class Tally:
    """Largest difference and number of exact pictures of each check."""

    def __init__(self):
        self.checks, self.failures = {}, []

    def add(self, check, name, ours, theirs, allowed=0):
        worst, exact, count = self.checks.get(check, (0, 0, 0))
        if ours.shape != theirs.shape:
            self.failures.append(f"{check}: {name}: shape {ours.shape}, Pillow {theirs.shape}")
            return
        difference = int(np.abs(ours.astype(int) - theirs.astype(int)).max())
        self.checks[check] = (max(worst, difference), exact + (difference == 0), count + 1)
        if difference > allowed:
            self.failures.append(f"{check}: {name}: differs by {difference}")

    def report(self):
        for check, (worst, exact, count) in self.checks.items():
            print(f"{check:40} {count:5} compared, {exact:5} exact, largest difference {worst}")
        print("\n".join(self.failures) if self.failures else "all within bounds")
        return not self.failures


def photographs(folders):
    spec = importlib.util.find_spec("skimage")
    if spec:
        folders = [*folders, Path(spec.origin).parent / "data"]
    kinds = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    for folder in folders:
        yield from sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in kinds)


def processors():
    """(name, fields of our request, PIL processor, torchvision processor or None, options)."""
    from transformers import Siglip2ImageProcessor, SiglipImageProcessor

    try:  # transformers 5: the plain names are backed by torchvision.
        from transformers import Siglip2ImageProcessorPil, SiglipImageProcessorPil
    except ImportError:  # transformers 4: the plain names are backed by PIL.
        Siglip2ImageProcessorPil, SiglipImageProcessorPil = Siglip2ImageProcessor, SiglipImageProcessor
    plain = {"do_rescale": False, "do_normalize": False}
    for name, side, patch, resample in (("siglip-224", 224, 16, 3), ("siglip-384/14", 384, 14, 3), ("siglip2-256", 256, 16, 2)):
        options = {"size": {"height": side, "width": side}, "resample": resample, **plain}
        request = {"height": side, "width": side, "patch": patch, "resample": resample}
        yield name, request, SiglipImageProcessorPil(**options), SiglipImageProcessor(**options)
    for budget in (64, 256, 1024):
        options = {"max_num_patches": budget, "patch_size": 16, **plain}
        request = {"max_num_patches": budget, "patch": 16, "resample": 2}
        pair = Siglip2ImageProcessorPil(**options), Siglip2ImageProcessor(**options)
        yield f"naflex-{budget}", request, *pair


def processed(processor, image, patch):
    """Bytes `[rows, cols, patch · patch · 3]` from either kind of processor."""
    out = processor(images=image, return_tensors="np")
    values = np.asarray(out["pixel_values"])[0]
    if "spatial_shapes" in out:
        rows, cols = (int(side) for side in out["spatial_shapes"][0])
        return values[: rows * cols].round().astype(np.uint8).reshape(rows, cols, -1)
    side = values.shape[-1] // patch
    values = values[:, : side * patch, : side * patch].round().astype(np.uint8)
    values = values.reshape(3, side, patch, side, patch).transpose(1, 3, 2, 4, 0)
    return values.reshape(side, side, -1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", action="append", default=[], type=Path)
    parser.add_argument("--helper", default=ROOT / "target/release/examples/preprocess")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    helper, tally = Helper(arguments.helper), Tally()
    random.seed(arguments.seed)
    folder = Path(tempfile.mkdtemp())
    for name, data in make_images.good(301, 207).items():
        (folder / name).write_bytes(data)
    paths = sorted(folder.iterdir()) + list(photographs(arguments.images))
    pipelines = list(processors())
    refused = 0
    for path in paths:
        data = path.read_bytes()
        try:
            theirs = make_images.expected(data)
        except Exception as error:  # noqa: BLE001 - Pillow raises anything on damaged files
            theirs = error
        try:
            ours = helper(path, "decode")
        except ValueError as error:
            ours = error
        if isinstance(theirs, Exception):
            refused += 1
            if not isinstance(ours, Exception):
                print(f"note: Pillow refuses {path.name} ({theirs}), we do not")
            continue
        if isinstance(ours, Exception) and path.parent.name == "bad":
            # Damaged entropy data, which Pillow fills with grey.
            print(f"note: we refuse {path.name} ({ours}), Pillow does not")
            continue
        if isinstance(ours, Exception):
            tally.failures.append(f"decode: {path.name}: {ours}")
            continue
        kind = Image.open(io.BytesIO(data)).format
        tally.add(f"decode {kind}", path.name, ours, theirs)
        if (ours != theirs).any():
            continue
        image = Image.fromarray(theirs)
        for resample in list(Image.Resampling)[:6]:
            width, height = (max(1, int(2 ** random.uniform(0, 10.5))) for _ in range(2))
            resized = helper(path, "resize", width=width, height=height, resample=int(resample))
            tally.add(f"resize {resample.name.lower()}", f"{path.name} to {width} × {height}", resized,
                      np.asarray(image.resize((width, height), resample)))
        for name, request, pil, torchvision in pipelines:
            patches = helper(path, "patches", **request)
            tally.add(f"patches {name}", path.name, patches, processed(pil, image, request["patch"]))
            tally.add(f"(torchvision {name})", path.name, patches,
                      processed(torchvision, image, request["patch"]), allowed=255)
        if kind == "JPEG":
            for side in (24, 40, 96, 224):
                request = {"height": side, "width": side, "patch": 8, "resample": 3}
                patches = helper(path, "patches", fast=True, **request)
                reduced = make_images.drafted(data, side).resize((side, side), Image.Resampling.BICUBIC)
                theirs = np.asarray(reduced).reshape(side // 8, 8, side // 8, 8, 3).transpose(0, 2, 1, 3, 4)
                tally.add(f"fast patches {side}", path.name, patches, theirs.reshape(side // 8, side // 8, -1))
    print(f"{len(paths)} files, {refused} of them refused by Pillow too")
    sys.exit(0 if tally.report() else 1)


if __name__ == "__main__":
    main()
