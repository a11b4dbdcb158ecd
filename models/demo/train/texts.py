"""The texts of a concept: names, tags and short codes, and the sentences they are put in."""

import re

TEMPLATES = {
    "en": ["a picture of {}", "an emoji of {}", "a drawing of {}", "This is a photo of {}.", "a photo of a {}",
           "a photo of {}", "an icon of a {}", "a {}", "the {} emoji", "a cartoon {}", "clip art of {}"],
    "de": ["ein Bild von {}", "ein Emoji: {}", "eine Zeichnung: {}", "ein Foto von {}", "{} als Symbol"],
    "fr": ["une image de {}", "un émoji : {}", "un dessin de {}", "une photo de {}", "icône : {}"],
    "es": ["una imagen de {}", "un emoji de {}", "un dibujo de {}", "una foto de {}", "icono de {}"],
    "ja": ["{}の絵", "{}の絵文字", "{}の写真", "{}のイラスト"],
    "it": ["un'immagine di {}", "una foto di {}"],
    "pt": ["uma imagem de {}", "uma foto de {}"],
    "nl": ["een afbeelding van {}", "een foto van {}"],
    "pl": ["obraz: {}", "zdjęcie: {}"],
    "zh": ["{}的图片", "{}的照片"],
    "ko": ["{} 그림", "{} 사진"],
    "ru": ["изображение: {}", "фото: {}"],
}


def short_names(name: str, group: str, lang: str) -> list[str]:
    """A name and the shorter ways people write it: "flag: France" is also "France flag" and "flag of France"."""
    found = [name]
    if group == "flags" and ":" in name:
        kind, place = (part.strip() for part in name.split(":", 1))
        found += [f"{kind} {place}", f"{place} {kind}"]
        if lang == "en":
            found += [f"flag of {place}", f"the flag of {place}", f"{place} flag"]
    elif lang == "en" and name.endswith(" face") and len(name.split()) == 2 and not name.split()[0].endswith("ing"):
        found.append(name.removesuffix(" face"))
    return found


def texts_of(concept: dict, lang: str) -> tuple[list[str], list[str]]:
    """The names and the tags of a concept in one language."""
    name = concept["names"].get(lang)
    names = short_names(name, concept["group"], lang) if name else []
    tags = [t for t in concept["tags"].get(lang, []) if len(t) > 1 or lang in ("ja", "zh", "ko")]
    if lang == "en":
        tags += sorted({re.sub(r"[_-]+", " ", code) for code in concept["shortcodes"] if len(code) > 2})
    return names, tags
