"""The pictures of these tests, what `siglip embed` makes of them, and whether an engine's rows are those.

A corpus is a folder with `files/` (pictures), `photos/` (the same and some bad rows, as Parquet files with the columns id, image
and n), `expected.npy` and `expected.names.txt`.
"""

from __future__ import annotations

import io
import os
import pathlib
import random
import subprocess
import time

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

EXAMPLES = pathlib.Path(__file__).parents[2] / "models/demo/examples"
#: Rows that no model can embed, with what the error says.
BAD = {
    "bad-null": (None, "null"),
    "bad-empty": (b"", "empty"),
    "bad-text": (b"no picture", "not known"),
    "bad-cut": (next(EXAMPLES.glob("*.png")).read_bytes()[:300], "damaged"),
}


def pictures(count: int, size: int, kind: str) -> dict[str, bytes]:
    """So many pictures by name, no two alike: emoji, turned and on a coloured ground."""
    chance = random.Random(7)
    emoji = [Image.open(path).convert("RGBA") for path in sorted(EXAMPLES.glob("*.png"))]
    made = {}
    for at in range(count):
        ground = Image.new("RGBA", (size, size * 3 // 4), tuple(chance.randrange(256) for _ in range(3)) + (255,))
        face = emoji[at % len(emoji)].resize((size // 2, size // 2)).rotate(chance.randrange(360))
        ground.alpha_composite(face, (chance.randrange(size // 2), 0))
        data = io.BytesIO()
        ground.convert("RGB").save(data, kind, **({"quality": 90} if kind == "jpeg" else {}))
        made[f"{at:05}.{kind}"] = data.getvalue()
    return made


def make(folder: pathlib.Path, binary: str, count: int, parts: int = 8, size: int = 96, kind: str = "png") -> None:
    """Makes a corpus."""
    rows: dict[str, bytes | None] = dict(pictures(count, size, kind))
    (folder / "files").mkdir(parents=True)
    for name, data in rows.items():
        (folder / "files" / name).write_bytes(data or b"")
    subprocess.run(
        [binary, "embed", "--model", "demo", str(folder / "files"), "--output", str(folder / "expected.npy")],
        check=True, capture_output=True,
    )
    rows |= {name: data for name, (data, _) in BAD.items()}
    names = sorted(rows)
    random.Random(3).shuffle(names)
    (folder / "photos").mkdir()
    for part in range(parts):
        some = names[part::parts]
        table = pa.table({
            "id": some,
            "image": pa.array([rows[name] for name in some], pa.binary()),
            "n": pa.array(range(len(some)), pa.int32()),
        })
        pq.write_table(table, folder / "photos" / f"part-{part:03}.parquet")


def expected(folder: pathlib.Path) -> dict[str, numpy.ndarray]:
    """The vector of each good row, by its id."""
    vectors = numpy.load(folder / "expected.npy")
    names = (folder / "expected.names.txt").read_text().splitlines()
    assert len(names) == len(vectors)
    return {os.path.basename(name): vector for name, vector in zip(names, vectors)}


def check(folder: pathlib.Path, rows: list[dict], limit: float = 1e-6) -> str:
    """Whether these rows (id, embedding, error) are all of the corpus, each once, with the vectors of `siglip embed`."""
    want = expected(folder)
    ids = sorted(row["id"] for row in rows)
    assert ids == sorted([*want, *BAD]), f"{len(ids)} rows, {len(set(ids))} ids, {len(want) + len(BAD)} expected"
    largest, same = 0.0, 0
    for row in rows:
        if row["id"] in BAD:
            assert row["embedding"] is None and BAD[row["id"]][1] in row["error"], row
            continue
        assert row["error"] is None, row
        vector = numpy.asarray(row["embedding"], "float32")
        largest = max(largest, float(numpy.abs(vector - want[row["id"]]).max()))
        same += bool((vector == want[row["id"]]).all())
    assert largest <= limit, f"the largest difference is {largest}"
    return f"{len(ids)} rows, {len(BAD)} bad; largest difference {largest:.1e}, {same} of {len(want)} bit-equal"


def workers(binary: str) -> list[int]:
    """The `siglip worker` processes of this program that run."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if words[:2] == [binary.encode(), b"worker"] and state not in "ZX":
            found.append(int(path.name))
    return found


def none_left(binary: str, seconds: float = 15.0) -> None:
    """Waits until no worker of this program runs."""
    deadline = time.monotonic() + seconds
    while workers(binary):
        assert time.monotonic() < deadline, f"left over: {workers(binary)}"
        time.sleep(0.1)
