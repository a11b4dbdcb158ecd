"""Render the fetched artwork once, and write everything training needs into one folder.

    python prepare.py --data DATA

Writes DATA/images.npy (uint8 RGBA, one row a picture), DATA/pictures.json (vendor, concept, code of each row),
DATA/concepts.json, DATA/tokenizer.json and DATA/twemoji/ (PNG pictures of the unseen artist for the evaluation).
Held-out concepts are rendered only for the evaluation; they never reach images.npy.
"""

import argparse
import io
import json
import re
from dataclasses import asdict
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from concepts import load_concepts, plain

SIDE = 96  # pixels stored; more than the model sees, so that crops and scaling stay sharp
EVALUATION_SIDE = 256

# vendor, folder; the last two are drawn in one colour and are coloured at random in training
ICON_VENDORS = [
    ("noto", "iconify-json+noto@1.2.9"),
    ("noto-v1", "iconify-json+noto-v1@1.2.5"),
    ("fluent", "iconify-json+fluent-emoji@1.2.7"),
    ("fluent-flat", "iconify-json+fluent-emoji-flat@1.2.6"),
    ("emojione", "iconify-json+emojione@1.2.3"),
    ("fxemoji", "iconify-json+fxemoji@1.2.2"),
    ("streamline", "iconify-json+streamline-emojis@1.2.4"),
    ("emojione-mono", "iconify-json+emojione-monotone@1.2.1"),
    ("fluent-mono", "iconify-json+fluent-emoji-high-contrast@1.2.6"),
]
FLAG_VENDORS = [
    ("flag-icons", "iconify-json+flag@1.2.12", "-4x3"),
    ("circle-flags", "iconify-json+circle-flags@1.2.11", ""),
    ("flagpack", "iconify-json+flagpack@1.2.8", ""),
]
MONOCHROME = {"emojione-mono", "fluent-mono"}
# Twemoji draws the country flags of few vendors' names; these are the codes of the three British nations.
NATIONS = {"gb-eng": "1F3F4-E0067-E0062-E0065-E006E-E0067-E007F",
           "gb-sct": "1F3F4-E0067-E0062-E0073-E0063-E0074-E007F",
           "gb-wls": "1F3F4-E0067-E0062-E0077-E006C-E0073-E007F"}


def key(name: str) -> str:
    """A name without case, spaces and punctuation, for matching names across packages."""
    return re.sub(r"[\W_]+", "", name.lower().replace("&", "and").replace("ñ", "n"))


def name_table(concepts, packages: Path) -> dict:
    """From every name a package may use to the code of the concept; ambiguous names are dropped."""
    base = packages / "emojibase-data@17.0.0" / "package"
    unicode_names = {plain(c): n for c, n in json.loads((base / "meta" / "unicode-names.json").read_text()).items()}
    table, ambiguous = {}, set()
    for rank in range(3):  # the CLDR name wins over the Unicode name, and that over the short codes
        level = {}
        for concept in concepts:
            names = [[concept.name], [unicode_names.get(concept.code, "")], concept.shortcodes][rank]
            for name in names:
                stem = key(name)
                forms = {stem}
                if concept.group != "flags":
                    forms |= {stem.removesuffix("face"), stem + "face"}
                if concept.subgroup == "country-flag" and rank == 0:
                    forms = {stem, "flagfor" + stem.removeprefix("flag")}
                for form in forms:
                    if len(form) < 2 or form in table:
                        continue
                    if level.setdefault(form, concept.code) != concept.code:
                        ambiguous.add(form)
        table |= {form: code for form, code in level.items() if form not in ambiguous}
    return table


def svg_of(icons: dict, name: str) -> str | None:
    """The SVG document of an icon of an Iconify set, following aliases and their mirroring."""
    alias = icons.get("aliases", {}).get(name)
    entry = icons["icons"].get(name)
    flip = ""
    if entry is None and alias is not None:
        entry = icons["icons"].get(alias["parent"])
        if entry is None or alias.get("rotate") or alias.get("vFlip"):
            return None
        flip = "h" if alias.get("hFlip") else ""
    if entry is None:
        return None
    left, top = entry.get("left", 0), entry.get("top", 0)
    width = entry.get("width", icons.get("width", 16))
    height = entry.get("height", icons.get("height", 16))
    body = entry["body"]
    if flip:
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    side = max(width, height)  # pad to a square instead of squashing
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}" width="{side}" height="{side}" color="#000">{body}</svg>')


def icon_jobs(packages: Path, folder: str, table: dict, wanted: dict) -> dict:
    """code → SVG of every wanted concept that a vendor's icon set has."""
    package = packages / folder / "package"
    icons = json.loads((package / "icons.json").read_text())
    chars = json.loads((package / "chars.json").read_text())
    found = {}
    for code, name in chars.items():
        if plain(code) in wanted and (svg := svg_of(icons, name)):
            found.setdefault(plain(code), svg)
    for name in [*icons["icons"], *icons.get("aliases", {})]:
        forms = [key(name), key(re.sub(r"-\d$", "", name)), key(re.sub(r"^person-", "", name))]
        for form in forms:
            code = table.get(form)
            if code in wanted and code not in found and (svg := svg_of(icons, name)):
                found[code] = svg
                break
    return found


def flag_jobs(packages: Path, folder: str, suffix: str, wanted: dict) -> dict:
    """code → SVG of every country flag in a set that is named by country code."""
    icons = json.loads((packages / folder / "package" / "icons.json").read_text())
    found = {}
    for name in [*icons["icons"], *icons.get("aliases", {})]:
        if not name.endswith(suffix):
            continue
        country = name.removesuffix(suffix) if suffix else name
        if re.fullmatch("[a-z]{2}", country):
            code = "-".join(f"{0x1F1E6 + ord(letter) - 97:X}" for letter in country)
        else:
            code = NATIONS.get(country)
        if code in wanted and (svg := svg_of(icons, name)):
            found[code] = svg
    return found


def training_sources(packages: Path, table: dict, wanted: dict) -> list[tuple[str, dict]]:
    """Each training vendor with what it has of the wanted concepts: code → SVG, or the path of a PNG."""
    sources = [(vendor, icon_jobs(packages, folder, table, wanted)) for vendor, folder in ICON_VENDORS]
    sources += [(vendor, flag_jobs(packages, folder, suffix, wanted)) for vendor, folder, suffix in FLAG_VENDORS]
    assets = packages / "lobehub+fluent-emoji-3d@1.1.0" / "package" / "assets"
    # This package also holds flags and newer emoji that Microsoft's own set lacks; where those drawings come from is
    # not said, so only what the Fluent sets have is taken.
    official = dict(sources)["fluent-flat"]
    found = {plain(path.stem): path for path in sorted(assets.iterdir()) if plain(path.stem) in official}
    return [*sources, ("fluent-3d", found)]


def render(job) -> np.ndarray | None:
    """One picture as a square of straight-alpha RGBA bytes; None if it cannot be drawn or is empty."""
    source, side = job
    try:
        if isinstance(source, Path):
            picture = Image.open(source)
        else:
            picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=source, width=side, height=side))))
        picture = picture.convert("RGBA")
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    except Exception as problem:  # a broken drawing is left out and counted
        print(f"not drawn: {str(problem)[:80]}")
        return None
    pixels = np.asarray(picture)
    return pixels if (pixels[..., 3] > 32).mean() > 0.01 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    packages = arguments.data / "packages"

    concepts = load_concepts(packages)
    table = name_table(concepts, packages)
    index = {concept.code: i for i, concept in enumerate(concepts)}
    training = {c.code: c for c in concepts if not c.held_out}

    jobs, pictures = [], []
    sources = training_sources(packages, table, training)
    for vendor, found in sources:
        print(f"{vendor}: {len(found)}", flush=True)
        for code, source in found.items():
            jobs.append((source, SIDE))
            pictures.append({"vendor": vendor, "concept": index[code], "code": code})
    with Pool(arguments.processes) as pool:
        rendered = pool.map(render, jobs, chunksize=64)
    kept = [i for i, pixels in enumerate(rendered) if pixels is not None]
    np.save(arguments.data / "images.npy", np.stack([rendered[i] for i in kept]))
    (arguments.data / "pictures.json").write_text(json.dumps([pictures[i] for i in kept]))
    print(f"{len(kept)} training pictures of {len({pictures[i]['concept'] for i in kept})} concepts", flush=True)

    everything = {c.code: c for c in concepts}
    unseen = icon_jobs(packages, "iconify-json+twemoji@1.2.5", table, everything)
    folder = arguments.data / "twemoji"
    folder.mkdir(exist_ok=True)
    codes = list(unseen)
    with Pool(arguments.processes) as pool:
        rendered = pool.map(render, [(unseen[c], EVALUATION_SIDE) for c in codes], chunksize=64)
    for code, pixels in zip(codes, rendered):
        if pixels is not None:
            canvas = Image.new("RGBA", (EVALUATION_SIDE, EVALUATION_SIDE), "white")
            canvas.alpha_composite(Image.fromarray(pixels))
            canvas.convert("RGB").save(folder / f"{code}.png")
    print(f"{len(codes)} Twemoji pictures for the evaluation", flush=True)

    drawn = {pictures[i]["concept"] for i in kept}
    records = [asdict(c) | {"drawn": i in drawn, "twemoji": c.code in unseen} for i, c in enumerate(concepts)]
    (arguments.data / "concepts.json").write_text(json.dumps(records, ensure_ascii=False))
    from tokenizer import train_tokenizer  # what only draws needs no tokenizers

    train_tokenizer([c for c in concepts if not c.held_out]).save(str(arguments.data / "tokenizer.json"))


if __name__ == "__main__":
    main()
