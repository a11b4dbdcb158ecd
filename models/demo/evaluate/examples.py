"""What a few examples do for zero-shot labels: `POST /v1/label-sets/{name}/examples`, and `/v1/classify` with the set.

    python examples.py --data DATA --siglip ../../../target/release/siglip
    python examples.py --data DATA --server http://127.0.0.1:8080 --model NAME

A draw is 100 concepts by lot. Their labels are their names, made-up words, or half of each; their examples are drawings
by the artists of the training data; what is classified is the drawing of each by Twemoji, the artist that no training
picture is of. The same draws, with the same examples, are taken for all three kinds of names. Drawings of one colour are
left out (`--one-colour` has them), since the unseen artist has colours. Examples 1 to 4 of a label are different
drawings. Where a concept has fewer drawings than examples (8 and 16), the others are its drawings again, turned, moved,
scaled and with other colours.

Compared are, from the same embeddings: the words alone; the examples alone (prototypes: the nearest mean of examples);
words that count as a fixed number κ of examples; the rule of src/labels/examples.rs in numpy; that with a ridge regression on what it
leaves over, which the service does not have; and the service itself. For
the first `--served` draws, each of which is a stored label set that gets its examples step by step, it is checked that
the service puts the labels of every picture in the order of the closed form, but for labels that it says keep their
words. What the service gives in all draws is estimated as what the closed form gives there, and the mean difference of
the two in the draws of both.

DATA is the folder of `train/fetch.py`, with all packages. The drawings are made here if they are not there, which takes a
few minutes. No PyTorch; see train/requirements.txt for the rest, and matplotlib for `--curve`.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from drawings import by_others, by_unseen, png
from service import Server, encoded, parts, run

SEED = 14
LABELS = 100
LEAST = 4  # drawings by others that a concept must have
COUNTS = [1, 2, 4, 8, 16]
KINDS = ["true names", "half made-up", "made-up"]
MADE_UP = 2000
NAME = "evaluation-examples"
# Words count as so many examples where they explain all of them; and the pseudo-examples of an average label.
WORDS, PSEUDO_EXAMPLES = 4, 2
# What the project holds itself to, within TOLERANCE; what an earlier trial of the rule in numpy gave.
BARS = {"true names": [0.872, 0.883, 0.888], "half made-up": [0.812, 0.862, 0.882], "made-up": [0.826, 0.867, 0.883]}
TOLERANCE = 0.005
RULE = "the rule, closed form"
# From this many examples on there is something to learn from what the rule gets wrong.
RIDGE, RIDGE_FROM, PENALTIES = "ridge on the rule's residual", 8, [1, 3, 10, 30, 100, 300]
SERVED, SAME = "the rule, by the service", "the rule, closed form, the same draws"
ESTIMATED = "the service, estimated"
LOWEST = 70  # of the curve
ROWS = ["text only", "prototypes only", "fixed κ = 4", "fixed κ = 1", RULE, RIDGE]


def augmented(path: Path, lot: random.Random) -> bytes:
    """A drawing on white turned by 12°, scaled by 0.8 to 1.1 and moved by a tenth at most, with other colours."""
    picture = Image.open(path).convert("RGB")
    side = picture.width
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = change(picture).enhance(lot.uniform(0.8, 1.25))
    scaled = round(side * lot.uniform(0.8, 1.1))
    drawing = picture.rotate(lot.uniform(-12, 12), Image.Resampling.BICUBIC, fillcolor="white")
    canvas = Image.new("RGB", (side, side), "white")
    corner = [round((side - scaled) / 2 + lot.uniform(-0.1, 0.1) * side) for _ in "xy"]
    canvas.paste(drawing.resize((scaled, scaled)), corner)
    return png(canvas)


def made_up_names(count: int, known: set[str], lot: random.Random) -> list[str]:
    """Words of three syllables that name nothing."""
    names = {}
    while len(names) < count:
        syllables = [lot.choice("bdfgklmnprstvwz") + lot.choice("aeiou") + lot.choice(["", "", *"lnrsk"]) for _ in "123"]
        name = "".join(syllables)
        if name not in known:
            names[name] = None
    return list(names)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class Material:
    """Embeddings of everything that draws are taken from."""

    def __init__(self, server: Server, data: Path, template: str, one_colour: bool):
        lot = random.Random(SEED)
        unseen, others = dict(by_unseen(data)), by_others(data, one_colour)
        self.names = [name for name in unseen if len(others[name]) >= LEAST]
        self.made_up = made_up_names(MADE_UP, set(self.names), lot)
        self.texts = server.texts([template.format(name) for name in self.names])
        self.made_up_texts = server.texts([template.format(name) for name in self.made_up])
        self.unseen = server.images([unseen[name] for name in self.names])
        flat = [path for name in self.names for path in others[name]]
        rows = server.images(flat)
        again = []
        self.drawn = [len(others[name]) for name in self.names]
        for name in self.names:
            paths = others[name]
            again += [augmented(paths[i % len(paths)], lot) for i in range(max(COUNTS[-1] - len(paths), 0))]
        more = server.images(again)
        # Of each concept its drawings, and behind them those that are drawings again.
        self.examples, place, further = [], 0, 0
        for count in self.drawn:
            extra = max(COUNTS[-1] - count, 0)
            self.examples.append(np.concatenate([rows[place:place + count], more[further:further + extra]]))
            place, further = place + count, further + extra


class Draw:
    """The labels of a draw and their examples, `[labels, 16, width]`, from the first to the last that is added."""

    def __init__(self, material: Material, number: int):
        lot = np.random.default_rng([SEED, number])
        self.chosen = lot.choice(len(material.names), LABELS, replace=False)
        self.test = material.unseen[self.chosen].astype(np.float64)
        examples = []
        for concept in self.chosen:
            count = material.drawn[concept]
            order = np.concatenate([lot.permutation(count), np.arange(count, len(material.examples[concept]))])
            examples.append(material.examples[concept][order[:COUNTS[-1]]])
        self.examples = np.stack(examples).astype(np.float64)
        invented = lot.choice(len(material.made_up), LABELS, replace=False)
        half = lot.permutation(LABELS) < LABELS // 2
        self.labels, self.texts = {}, {}
        for kind, replaced in zip(KINDS, [np.zeros(LABELS, bool), half, np.ones(LABELS, bool)]):
            pairs = list(zip(replaced, invented, self.chosen))
            self.labels[kind] = [material.made_up[m] if r else material.names[c] for r, m, c in pairs]
            self.texts[kind] = np.stack([material.made_up_texts[m] if r else material.texts[c] for r, m, c in pairs])


def explained(texts: np.ndarray, examples: np.ndarray, scale: float) -> np.ndarray:
    """p_c: how well the words of each label explain its examples, `[labels]`."""
    labels, count, _ = examples.shape
    logits = scale * examples.reshape(labels * count, -1) @ texts.T
    logits = logits.reshape(labels, count, labels)
    logits -= logits.max(-1, keepdims=True)
    own = np.exp(logits[np.arange(labels), :, np.arange(labels)]) / np.exp(logits).sum(-1)
    return (own.sum(1) + PSEUDO_EXAMPLES * own.mean()) / (count + PSEUDO_EXAMPLES)


def directions(texts: np.ndarray, examples: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """The directions of labels by each method, `[labels, width]`."""
    texts, count = texts.astype(np.float64), examples.shape[1]
    prototypes = unit(examples.mean(1))
    words = explained(texts, examples, scale)[:, None]
    mixed = {
        "text only": texts,
        "prototypes only": prototypes,
        "fixed κ = 4": 4 * texts + count * prototypes,
        "fixed κ = 1": texts + count * prototypes,
        RULE: WORDS * words * texts + count * prototypes,
    }
    found = {name: unit(rows) for name, rows in mixed.items()}
    return found | {RIDGE: found[RULE] if count < RIDGE_FROM else ridge(found[RULE], examples)}


def ridge(rule: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """The rule's directions and what a ridge regression adds to them: of the examples on what is missing from 1 for their own
    label and from 0 for the others. Of the penalties, that with the least squares where each example is left out in turn."""
    labels, count, width = examples.shape
    flat = examples.reshape(labels * count, width)
    wanted = np.repeat(np.eye(labels), count, 0)
    cosines = flat @ rule.T
    others = cosines[wanted == 0].mean()
    slope = 1 / (cosines[wanted == 1].mean() - others)
    missing = wanted - slope * (cosines - others)
    values, vectors = np.linalg.eigh(flat.T @ flat)
    projected = flat @ vectors
    best = None
    for penalty in PENALTIES:
        inverse = projected / (values + penalty)
        left = missing - inverse @ (projected.T @ missing)
        error = ((left / (1 - (inverse * projected).sum(1))[:, None]) ** 2).sum()
        if best is None or error < best[0]:
            best = error, vectors @ (inverse.T @ missing)
    return slope * rule + best[1].T


def right(scores: np.ndarray) -> float:
    """The share of pictures, `[labels, labels]`, whose own label is the best."""
    return float((scores.argmax(1) == np.arange(len(scores))).mean())


class Service:
    """The rule by the service, checked against the closed form."""

    def __init__(self, server: Server, template: str, scale: float):
        self.server, self.template, self.scale = server, template, scale
        self.pairs, self.keep = 0, {kind: np.zeros(len(COUNTS)) for kind in KINDS}

    def draw(self, draw: Draw, kind: str) -> list[float]:
        """Top-1 after each number of examples."""
        labels, results = draw.labels[kind], []
        self.server.put_labels(NAME, labels, [self.template])
        done = 0
        for count in COUNTS:
            new = [{"label": labels[c], "embedding": encoded(draw.examples[c, i])}
                   for i in range(done, count) for c in range(LABELS)]
            for part in parts(new, 500):
                report = self.server.send("POST", f"/v1/label-sets/{NAME}/examples", {"examples": part})
            done = count
            if report["examples"] != count * LABELS:
                raise SystemExit(f"{report['examples']} examples are stored, not {count * LABELS}")
            keeps = {entry["label"] for entry in report["labels"] if entry["keeps_words"]}
            answers = self.server.classify(draw.test, {"label_set": NAME, "activation": "none"})
            closed = draw.test @ directions(draw.texts[kind], draw.examples[:, :count], self.scale)[RULE].T
            self.check(labels, keeps, answers, closed)
            self.keep[kind][COUNTS.index(count)] += len(keeps)
            results.append(np.mean([answer["predictions"][0]["label"] == own for answer, own in zip(answers, labels)]))
        self.server.send("DELETE", f"/v1/label-sets/{NAME}")
        return results

    def check(self, labels: list[str], keeps: set[str], answers: list[dict], closed: np.ndarray) -> None:
        """The service's order is that of the closed form, among labels that have the directions of their examples."""
        place = {label: i for i, label in enumerate(labels)}
        for answer, cosines in zip(answers, closed):
            order = [place[entry["label"]] for entry in answer["predictions"] if entry["label"] not in keeps]
            assert len(order) == len(labels) - len(keeps), "a label is missing"
            # Numbers of f32: what is equal but for rounding may change places.
            steps = np.diff(cosines[order])
            assert (steps < 1e-5).all(), f"not the order of the closed form: {steps.max()}"
            self.pairs += len(steps)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument("--draws", type=int, default=200, help="draws in numpy")
    parser.add_argument("--served", type=int, default=40, help="of them, by the service as well")
    parser.add_argument("--template", default="{}")
    parser.add_argument("--one-colour", action="store_true", help="also drawings of one colour as examples")
    parser.add_argument("--curve", type=Path, help="also draw accuracy over examples here, as PNG")


def evaluate(server: Server, arguments: argparse.Namespace) -> dict:
    """All figures, which are printed as well."""
    material = Material(server, arguments.data, arguments.template, arguments.one_colour)
    scale, _ = server.scale_and_bias()
    service = Service(server, arguments.template, scale)
    print(f"{len(material.names)} concepts with {LEAST} or more drawings by others, {sum(material.drawn)} of these; "
          f"{arguments.draws} draws, {arguments.served} of them by the service", flush=True)
    results = {kind: {row: [] for row in [*ROWS, SERVED]} for kind in KINDS}
    served = min(arguments.served, arguments.draws)
    for number in range(arguments.draws):
        draw = Draw(material, number)
        for kind in KINDS:
            each = [{name: right(draw.test @ rows.T) for name, rows in
                     directions(draw.texts[kind], draw.examples[:, :count], scale).items()} for count in COUNTS]
            for row in ROWS:
                results[kind][row].append([shares[row] for shares in each])
            if number < served:
                results[kind][SERVED].append(service.draw(draw, kind))
    figures = {"labels": LABELS, "counts": COUNTS, "kinds": {}, "missed": [], "steps_checked": service.pairs,
               "labels_that_keep_words": {kind: (of / max(served, 1)).tolist() for kind, of in service.keep.items()}}
    for kind in KINDS:
        rows = {row: summary(np.array(of)) for row, of in results[kind].items() if of}
        if served:
            same, by_service = np.array(results[kind][RULE])[:served], np.array(results[kind][SERVED])
            rows[SAME] = summary(same)
            rows[ESTIMATED] = summary(by_service - same)
            rows[ESTIMATED]["top1"] = (np.mean(results[kind][RULE], 0) + (by_service - same).mean(0)).tolist()
        figures["kinds"][kind] = rows
        for row in {RULE, ESTIMATED} & set(rows):
            for count, share, bar in zip(COUNTS, rows[row]["top1"], BARS[kind]):
                if share < bar - TOLERANCE:
                    figures["missed"].append(f"{row}, {kind}, {count} examples: {share:.1%}, bar {bar:.1%}")
    figures["missed"].sort()
    print(table(figures))
    print(f"The service and the closed form agree in {service.pairs} steps of rankings.")
    print(f"Labels of a draw that keep their words: {figures['labels_that_keep_words']}")
    if arguments.curve:
        draw_curve(figures, arguments.curve)
    return figures


def summary(shares: np.ndarray) -> dict:
    """Mean and standard error over draws of shares, `[draws, counts]`."""
    error = shares.std(0) / np.sqrt(len(shares))
    return {"top1": shares.mean(0).tolist(), "error": error.tolist(), "draws": len(shares)}


def table(figures: dict) -> str:
    """The figures in Markdown."""
    lines = [f"| {LABELS} labels, top-1 at {' / '.join(map(str, COUNTS))} examples | {' | '.join(KINDS)} |",
             "| --- |" + " --- |" * len(KINDS)]
    for row in figures["kinds"][KINDS[0]]:
        cells = []
        for kind in KINDS:
            shares = [f"{100 * share:.1f}" for share in figures["kinds"][kind][row]["top1"]]
            cells.append(shares[0] if row == "text only" else " / ".join(shares))
        lines.append(f"| {row} ({figures['kinds'][KINDS[0]][row]['draws']} draws) | {' | '.join(cells)} |")
    error = max(max(figures["kinds"][kind][RULE]["error"]) for kind in KINDS)
    return "\n".join([*lines, f"The standard error of the closed form is {100 * error:.1f} points at most."])


def draw_curve(figures: dict, path: Path) -> None:
    """Accuracy over examples, one panel for each kind of names."""
    from matplotlib import pyplot

    _, panels = pyplot.subplots(1, len(KINDS), figsize=(9, 3.4), sharey=True)
    for kind, panel in zip(KINDS, panels):
        of = figures["kinds"][kind]
        places = range(len(COUNTS))
        panel.axhline(100 * of["text only"]["top1"][0], color="0.5", linewidth=1, label="text only")
        lines = [("prototypes only", "tab:orange", "--"), ("fixed κ = 4", "tab:green", "-."), (RULE, "tab:blue", ":"),
                 (ESTIMATED, "tab:blue", "-")]
        for row, colour, style in lines:
            if row in of:
                shares = [100 * share for share in of[row]["top1"]]
                panel.plot(places, shares, style, color=colour, marker="o", markersize=3, label=row)
        panel.set_title(kind, fontsize=10)
        panel.set_xticks(places, COUNTS)
        panel.set_xlabel("examples of each label")
        panel.set_ylim(LOWEST, 92)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("right, % of 100 labels")
    panels[0].legend(fontsize=8, loc="lower right")
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=90)


if __name__ == "__main__":
    run(__doc__, evaluate, add_options)
