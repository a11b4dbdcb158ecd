"""Hundreds of odd pictures against Pillow: shapes that encoders rarely write and decoders rarely see.

    cargo build --release --example preprocess
    pip install pillow numpy
    python tests/parity/pictures_corpus.py [--helper target/release/examples/preprocess] [--keep DIR]

Every file is made here, the same on every run: by Pillow's encoders, by changing their output, or byte by byte. What
Pillow reads must come out equal byte for byte, or be refused with a reason that `REFUSED` names; what Pillow refuses may
be read or refused; nothing may panic. Exits with 1 and names the files where that does not hold.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import numpy as np


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
import make_images  # noqa: E402
import odd_images  # noqa: E402
from images import Helper  # noqa: E402

# Files that Pillow reads and we refuse on purpose: the start of the name, a word of the reason.
REFUSED = {
    "tiff-lab": "L*a*b*",
    "tiff-lzma": "LZMA",
    "tiff-webp": "WebP",
    # Scans that refine what was never sent: the library and `careful` need the bits that libjpeg makes up.
    "jpeg-without": "damaged",
    "damaged": "",
}

# Files that Pillow gets wrong, with the end of the name.
PILLOW_IS_WRONG = [
    # It reads plain planes of 16 bits as planes of 8.
    (r"tiff-(rgb16|cmyk16)-1-(planes|planar-tiles)-.*", "planes of 16 bits"),
    # libtiff has turned the bytes of these, Pillow turns them once more.
    (r"tiff-(grey32|float|grey16-signed)-(5|8|32773)-(strips|predictor-tiles)-.*", "wide big-endian samples"),
    # libtiff reads too few bytes of an odd number of blocks and leaves the last ones without chroma.
    (r"tiff-ycbcr(-range)?-44-.*", "4 × 4 chroma"),
    (r"damaged-.*", "damaged"),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--helper", default=Path(__file__).resolve().parents[2] / "target/release/examples/preprocess")
    parser.add_argument("--keep", type=Path, help="a folder to leave the files in")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    helper = Helper(arguments.helper)
    counts, failures, seen = {}, [], set()
    for name, data in odd_images.corpus():
        assert name not in seen, f"{name} is made twice"
        seen.add(name)
        path = folder / name
        path.write_bytes(data)
        try:
            theirs = make_images.expected(data)
        except Exception as error:  # noqa: BLE001 - Pillow raises anything on odd files
            theirs = error
        try:
            ours = helper(path, "decode")
        except ValueError as error:
            ours = error
        if isinstance(ours, Exception) and "decoder failed" in str(ours):
            verdict = "panic"
            failures.append(f"{name}: the decoder panicked")
        elif isinstance(theirs, Exception):
            verdict = "refused by Pillow, " + ("refused" if isinstance(ours, Exception) else "read")
        elif isinstance(ours, Exception):
            word = next((word for start, word in REFUSED.items() if name.startswith(start)), None)
            verdict = "refused on purpose"
            if word is None or word not in str(ours):
                verdict = "refused"
                failures.append(f"{name}: {ours}")
        elif any(re.fullmatch(pattern, name) for pattern, _ in PILLOW_IS_WRONG):
            same = ours.shape == theirs.shape and not (ours != theirs).any()
            verdict = "equal" if same else "Pillow wrong or file damaged"
        elif ours.shape != theirs.shape:
            verdict = "another size"
            failures.append(f"{name}: shape {ours.shape}, Pillow {theirs.shape}")
        elif (ours != theirs).any():
            verdict = "other pixels"
            difference = np.abs(ours.astype(int) - theirs.astype(int))
            failures.append(f"{name}: differs by up to {difference.max()}, by {difference.mean():.3f} on average")
        else:
            verdict = "equal"
        kind = name.split("-")[0]
        counts.setdefault(kind, {}).setdefault(verdict, 0)
        counts[kind][verdict] += 1
    for kind, verdicts in counts.items():
        print(f"{kind:10}", ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    print(f"{len(seen)} files;", "\n".join(failures) if failures else "all as they must be")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
