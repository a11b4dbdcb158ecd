"""Fetch the pinned artwork and label packages the demo model is trained and evaluated on.

Every input is a published npm package, named with its exact version, and is brought by `npm pack`
(the ordinary client, no install scripts are run). Nothing of it is kept in this repository.

    python fetch.py --out DATA
"""

import argparse
import subprocess
import tarfile
from pathlib import Path

# name, version, licence of the artwork, what it is used for
PACKAGES = [
    ("emojibase-data", "17.0.0", "MIT", "names and tags in many languages"),
    ("@iconify-json/noto", "1.2.9", "Apache-2.0", "training artwork: Google Noto Emoji"),
    ("@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "training artwork: Google Noto Emoji 1 (blobs)"),
    ("@iconify-json/fluent-emoji", "1.2.7", "MIT", "training artwork: Microsoft Fluent, gradients"),
    ("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "training artwork: Microsoft Fluent, flat"),
    ("@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT", "training artwork: Microsoft Fluent, one colour"),
    ("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "training artwork: Microsoft Fluent, 3D renders"),
    ("@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "training artwork: EmojiOne 2"),
    ("@iconify-json/emojione-monotone", "1.2.1", "CC-BY-4.0", "training artwork: EmojiOne 2, one colour"),
    ("@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "training artwork: Firefox OS emoji"),
    ("@iconify-json/streamline-emojis", "1.2.4", "CC-BY-4.0", "training artwork: Streamline"),
    ("@iconify-json/flag", "1.2.12", "MIT", "training artwork: flag-icons, 4:3 flags"),
    ("@iconify-json/circle-flags", "1.2.11", "MIT", "training artwork: round flags"),
    ("@iconify-json/flagpack", "1.2.8", "MIT", "training artwork: Flagpack"),
    ("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "EVALUATION ONLY: Twemoji, the unseen artist"),
]


def folder_of(name: str, version: str) -> str:
    """The folder a package is unpacked to, e.g. `iconify-json+noto@1.2.9`."""
    return f"{name.lstrip('@').replace('/', '+')}@{version}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out / "packages"
    out.mkdir(parents=True, exist_ok=True)
    for name, version, licence, purpose in PACKAGES:
        target = out / folder_of(name, version)
        if target.exists():
            continue
        print(f"{name}@{version} ({licence}): {purpose}", flush=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}"],
            cwd=out, check=True, capture_output=True, text=True,
        ).stdout.split()[-1]
        with tarfile.open(out / packed) as tar:
            tar.extractall(target, filter="data")
        (out / packed).unlink()


if __name__ == "__main__":
    main()
