"""Drawings of the concepts that were in training: by the artist whom training never saw, and by the others.

Made from the packages of `train/fetch.py` where they are not there yet, as `train/prepare.py` makes them for the evaluation:
256 × 256 pixels on white, those of one colour in black.
"""

import io
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train"))

from concepts import load_concepts  # noqa: E402


def by_unseen(data: Path) -> list[tuple[str, Path]]:
    """Name and picture of every concept that was in training, drawn by the unseen artist."""
    concepts = [concept for concept in load_concepts(data / "packages") if not concept.held_out]
    folder = data / "twemoji"
    if not folder.exists():
        from prepare import icon_jobs

        wanted = {concept.code: concept for concept in concepts}
        draw_into(folder, icon_jobs(data / "packages", "iconify-json+twemoji@1.2.5", {}, wanted))
    return [(c.name, folder / f"{c.code}.png") for c in concepts if (folder / f"{c.code}.png").exists()]


def by_others(data: Path, one_colour: bool) -> dict[str, list[Path]]:
    """The pictures that training artists drew of each concept, by its name; those of one colour only on request."""
    concepts = [concept for concept in load_concepts(data / "packages") if not concept.held_out]
    folder = data / "others"
    from prepare import MONOCHROME, name_table, training_sources

    if not folder.exists():
        # Names are matched with those of all concepts, as in training: a name of two of them is of none.
        table = name_table(load_concepts(data / "packages"), data / "packages")
        wanted = {concept.code: concept for concept in concepts}
        unfinished = data / "others.unfinished"
        unfinished.mkdir(exist_ok=True)
        for vendor, found in training_sources(data / "packages", table, wanted):
            draw_into(unfinished / vendor, found)
        unfinished.rename(folder)
    vendors = [vendor for vendor in sorted(folder.iterdir()) if one_colour or vendor.name not in MONOCHROME]
    found = {c.name: [vendor / f"{c.code}.png" for vendor in vendors] for c in concepts}
    return {name: [path for path in paths if path.exists()] for name, paths in found.items()}


def draw_into(folder: Path, found: dict) -> None:
    """A picture of everything that was found: code → SVG, or the path of a picture."""
    from prepare import EVALUATION_SIDE, render

    folder.mkdir(exist_ok=True)
    for code, source in found.items():
        path = folder / f"{code}.png"
        if not path.exists() and (pixels := render((source, EVALUATION_SIDE))) is not None:
            canvas = Image.new("RGBA", (EVALUATION_SIDE, EVALUATION_SIDE), "white")
            canvas.alpha_composite(Image.fromarray(pixels))
            path.write_bytes(png(canvas.convert("RGB")))


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)  # most of them are read once
    return file.getvalue()


def all_names(data: Path) -> list[str]:
    """The names of all concepts, also of those that no training picture was of."""
    return [concept.name for concept in load_concepts(data / "packages")]
