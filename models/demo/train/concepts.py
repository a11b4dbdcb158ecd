"""The concepts: which emoji count as one thing, which are kept for training, and every text for them.

Skin tones, hair and gender variants are merged into the neutral emoji, so that "a concept" is a thing that is
drawn and named differently from the others. Concepts that look or sound like each other are put in one family
(clock faces, hearts of all colours, "red apple" and "green apple"), and the held-out tenth is drawn by family: a
held-out concept has no sibling in training, under any vendor and in any language.
"""

import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

LANGUAGES = ["en", "de", "fr", "ja", "es", "it", "pt", "nl", "pl", "zh", "ko", "ru"]
HELD_OUT_SHARE = 0.10
HELD_OUT_SEED = 4

# Whole subgroups that are one family each.
FAMILY_SUBGROUPS = {
    "keycap", "zodiac", "arrow", "av-symbol", "geometric", "alphanum", "heart", "time-clock", "cat-face",
    "monkey-face", "math", "currency", "religion", "gender", "punctuation", "family", "music",
}
# Words that say nothing about which thing it is.
EMPTY_HEADS = {"face", "symbol", "button", "sign", "mark", "person", "people", "emoji"}


@dataclass
class Concept:
    """One thing: its code points, its texts by language, and whether training may see it."""

    code: str
    name: str
    group: str
    subgroup: str
    family: str
    names: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)
    shortcodes: list = field(default_factory=list)
    held_out: bool = False


def plain(code: str) -> str:
    """A sequence without the variation selector, which packages write or leave out at will."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def is_variant(code: str, codes: set) -> bool:
    """Whether a sequence only adds gender or hair to another concept."""
    parts = code.split("-")
    if any(part in ("2640", "2642") for part in parts) and len(parts) > 1:
        return True
    if any(part in ("1F9B0", "1F9B1", "1F9B2", "1F9B3") for part in parts):
        return True
    if "200D" in parts and parts[0] in ("1F468", "1F469"):
        return True
    return "200D" in parts and parts[0] == "1F9D1" and "1F9D1" in parts[1:] and code not in codes


def family_of(label: str, subgroup: str, code: str) -> str:
    """The family a concept belongs to; concepts without siblings are a family of their own."""
    if re.fullmatch(r"1F5[56][0-9A-F]", code) and "o’clock" in label or "thirty" in label:
        return "time-clock"
    if subgroup in FAMILY_SUBGROUPS:
        return subgroup
    head = re.split(r"\b(?:with|on|in|of|without|and|behind|from|over|the)\b|[:,(]", label.lower())[0]
    words = [w for w in re.findall(r"[\w’]+", head) if w not in EMPTY_HEADS]
    return words[-1] if words else label.lower()


def load_concepts(packages: Path) -> list[Concept]:
    """Read emojibase and return every concept in Unicode order, with the held-out tenth marked."""
    base = packages / "emojibase-data@17.0.0" / "package"
    hierarchy = json.loads((base / "meta" / "groups.json").read_text())
    groups, subgroups = hierarchy["groups"], hierarchy["subgroups"]
    data = {lang: {plain(e["hexcode"]): e for e in json.loads((base / lang / "data.json").read_text())}
            for lang in LANGUAGES}
    codes = {c for c, e in data["en"].items() if "group" in e}
    concepts = []
    for code, entry in data["en"].items():
        if "group" not in entry or groups[str(entry["group"])] == "component" or is_variant(code, codes):
            continue
        subgroup = subgroups[str(entry["subgroup"])]
        concept = Concept(code, entry["label"], groups[str(entry["group"])], subgroup,
                          family_of(entry["label"], subgroup, code))
        for lang in LANGUAGES:
            if code in data[lang] and data[lang][code].get("label"):
                concept.names[lang] = data[lang][code]["label"]
                concept.tags[lang] = data[lang][code].get("tags", [])
        concepts.append(concept)
    for name in ("cldr", "emojibase", "github", "joypixels"):
        table = json.loads((base / "en" / "shortcodes" / f"{name}.json").read_text())
        table = {plain(code): value for code, value in table.items()}
        for concept in concepts:
            found = table.get(concept.code, [])
            concept.shortcodes += [found] if isinstance(found, str) else found
    hold_out(concepts)
    return concepts


def hold_out(concepts: list[Concept]) -> None:
    """Mark a random tenth of the concepts, family by family.

    Flags are never drawn: what a country's flag looks like cannot be told from its name. Families of more than a
    dozen are not drawn either, since one of them would be most of the tenth.
    """
    families = {}
    for concept in concepts:
        if concept.group != "flags":
            families.setdefault(concept.family, []).append(concept)
    drawable = sorted(name for name, members in families.items() if len(members) <= 12)
    random.Random(HELD_OUT_SEED).shuffle(drawable)
    wanted = int(len(concepts) * HELD_OUT_SHARE)
    taken = 0
    for name in drawable:
        if taken >= wanted:
            break
        for member in families[name]:
            member.held_out = True
            taken += 1
