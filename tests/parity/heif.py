"""HEIC against pillow-heif and AVIF against Pillow, of files that they make: `ImageOps.exif_transpose(image).convert("RGB")`.

    cargo build --release --features heif --example preprocess
    pip install pillow pillow-heif numpy
    python tests/parity/heif.py [--helper target/release/examples/preprocess]

Skipped, and says so, where the program was built without the feature `heif`. HEVC and AV1 say exactly which samples come out; how they
become RGB is the business of libheif, and its version decides. `ALLOWED` has what may differ between libheif 1.15 (Debian 12) and 1.23
(pillow-heif), or libavif (Pillow's AVIF). Exits with 1 and names the files that differ by more.
"""

import argparse
import io
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps, features

sys.path.insert(0, str(Path(__file__).resolve().parent))
from images import Helper  # noqa: E402


# Levels that a pixel may differ by, and all of them on average. Pictures with less chroma that a file turns have it in other places
# in 1.15 where a side is odd; libavif makes more chroma of less in another way.
ALLOWED = {
    "heic, grey or 4:4:4": (0, 0), "heic, less chroma": (1, 0.2), "heic, less chroma, odd and turned": (255, 8), "heic, 10 bits": (2, 1),
    "avif, 4:4:4": (1, 0.5), "avif, less chroma": (255, 10),
}


def drawing(chance, size, mode):
    """Smooth colours with some edges."""
    noise = Image.effect_noise(size, 60)
    bands = [ImageOps.autocontrast(Image.effect_noise(size, 90).filter(ImageFilter.GaussianBlur(6))) for _ in range(3)]
    picture = Image.merge("RGB", bands)
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        corner = chance.randrange(size[0]), chance.randrange(size[1])
        draw.ellipse((*corner, corner[0] + size[0] // 3, corner[1] + size[1] // 3), fill=tuple(chance.randrange(256) for _ in range(3)))
    if mode in ("RGBA", "LA"):
        picture.putalpha(noise.filter(ImageFilter.GaussianBlur(3)))
    return picture.convert(mode)


def files(chance):
    """Kinds, names and contents."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    for number in range(40):
        size = chance.randrange(17, 300), chance.randrange(17, 300)
        mode = chance.choice(["RGB", "RGB", "RGBA", "L"])
        options = {"quality": chance.choice([30, 60, 90, -1]), "chroma": chance.choice([420, 422, 444])}
        if options["quality"] == -1:
            options["chroma"] = 444
        exif = Image.Exif()
        if chance.random() < 0.5:
            # The encoder makes a transformation of the file of it.
            exif[274] = chance.randrange(1, 9)
        data = io.BytesIO()
        drawing(chance, size, mode).save(data, "HEIF", exif=exif.tobytes(), **options)
        kind = "heic, grey or 4:4:4"
        if mode != "L" and options["chroma"] != 444:
            odd = (size[0] % 2 or size[1] % 2) and exif.get(274, 1) != 1
            kind = "heic, less chroma" + (", odd and turned" if odd else "")
        yield kind, f"{number:02}-{mode}-{options['chroma']}-{options['quality']}.heic", data.getvalue()
    several = io.BytesIO()
    pictures = [drawing(chance, (120, 80), "RGB") for _ in range(3)]
    pictures[0].save(several, "HEIF", save_all=True, append_images=pictures[1:], primary_index=1)
    yield "heic, less chroma", "several.heic", several.getvalue()
    deep = pillow_heif.from_bytes("RGB;16", (96, 64), np.random.default_rng(7).integers(0, 65536, (64, 96, 3), np.uint16).tobytes())
    data = io.BytesIO()
    deep.save(data, quality=90)
    yield "heic, 10 bits", "10-bits.heic", data.getvalue()
    if not features.check("avif"):
        print("no AVIF: Pillow is built without it")
        return
    for number in range(20):
        size = chance.randrange(17, 300), chance.randrange(17, 300)
        mode = chance.choice(["RGB", "RGB", "RGBA"])
        subsampling = chance.choice(["4:2:0", "4:2:2", "4:4:4"])
        exif = Image.Exif()
        if chance.random() < 0.5:
            exif[274] = chance.randrange(1, 9)
        data = io.BytesIO()
        drawing(chance, size, mode).save(data, "AVIF", quality=chance.choice([30, 70, 95]), subsampling=subsampling, exif=exif, speed=8)
        kind = "avif, 4:4:4" if subsampling == "4:4:4" else "avif, less chroma"
        yield kind, f"{number:02}-{mode}-{subsampling.replace(':', '')}.avif", data.getvalue()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--helper", default=Path(__file__).resolve().parents[2] / "target/release/examples/preprocess")
    arguments = parser.parse_args()
    helper, failures, checks = Helper(arguments.helper), [], {}
    folder = Path(tempfile.mkdtemp())
    (folder / "empty").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    try:
        helper(folder / "empty", "decode")
    except ValueError as error:
        if "this build of the program cannot read" in str(error):
            print("SKIPPED: the program was built without the feature heif")
            return
    for kind, name, data in files(random.Random(5)):
        path = folder / name
        path.write_bytes(data)
        theirs = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        try:
            ours = helper(path, "decode")
        except ValueError as error:
            failures.append(f"{name}: {error}")
            continue
        if ours.shape != theirs.shape:
            failures.append(f"{name}: shape {ours.shape}, Pillow {theirs.shape}")
            continue
        difference = np.abs(ours.astype(int) - theirs.astype(int))
        worst, exact, count, mean = checks.get(kind, (0, 0, 0, 0.0))
        checks[kind] = max(worst, difference.max()), exact + (difference.max() == 0), count + 1, max(mean, difference.mean())
        levels, average = ALLOWED[kind]
        if difference.max() > levels or difference.mean() > average:
            failures.append(f"{name}: differs by up to {difference.max()}, by {difference.mean():.3f} on average")
    for kind, (worst, exact, count, mean) in checks.items():
        print(f"{kind:35} {count} compared, {exact} exact, largest difference {worst}, largest mean {mean:.3f}")
    print("\n".join(failures) if failures else "all as they must be")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
