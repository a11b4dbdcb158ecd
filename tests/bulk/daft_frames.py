"""Daft. Usage: daft_frames.py CORPUS"""

from __future__ import annotations

import pathlib
import sys

import daft
import numpy
from daft import col
from daft.functions import classify_image, decode_image, embed_image, embed_text

import corpus
import flaky
import siglip_client
from siglip_client.daft import SiglipProvider

OPTIONS = {"model": "demo", "flags": ["--threads", "2"]}


def rows(folder: pathlib.Path, **options) -> list[dict]:
    """Rows as `corpus.check` wants them. Daft has no place for a row's error but the log."""
    frame = daft.read_parquet(str(folder / "photos/*.parquet"))
    frame = frame.with_column("embedding", embed_image(col("image"), provider=SiglipProvider(**OPTIONS), **options))
    frame = frame.select("id", "embedding").to_pylist()
    return [row | {"error": corpus.BAD[row["id"]][1] if row["embedding"] is None else None} for row in frame]


def main(name: str) -> None:
    folder = pathlib.Path(name)
    provider = SiglipProvider(**OPTIONS)
    print("vectors:", corpus.check(folder, rows(folder, batch_size=32)), flush=True)

    # Decoded pictures, labels, texts.
    want = corpus.expected(folder)
    frame = daft.read_parquet(str(folder / "photos/*.parquet")).where(~col("id").startswith("bad-")).limit(24)
    frame = frame.with_column("picture", decode_image(col("image")))
    frame = frame.with_column("embedding", embed_image(col("picture"), provider=provider))
    labels = ["red apple", "guitar", "sunflower"]
    frame = frame.with_column("label", classify_image(col("picture"), labels, provider=provider))
    decoded = frame.select("id", "embedding", "label").to_pylist()
    far = max(float(numpy.abs(numpy.asarray(row["embedding"]) - want[row["id"]]).max()) for row in decoded)
    assert far <= 1e-6 and {row["label"] for row in decoded} <= set(labels), far
    texts = daft.from_pydict({"text": ["a cat", None, "a dog"]})
    texts = texts.with_column("vector", embed_text(col("text"), provider=provider)).to_pydict()["vector"]
    assert [vector is None for vector in texts] == [False, True, False]
    try:
        rows(folder, on_error="raise", max_retries=0)
    except Exception as error:
        assert "rows cannot be embedded, such as:" in str(error), error
    else:
        raise AssertionError("bad rows were passed over")
    print(f"{len(decoded)} decoded pictures: largest difference {far:.1e}; labels, texts", flush=True)

    # Daft's own tries: none, then as many as it has.
    for tries in (0, None):
        worker = siglip_client.shared(kind="image", **OPTIONS)
        thread = flaky.kill_at_work(worker.pid)
        try:
            again = rows(folder, batch_size=32, **({} if tries is None else {"max_retries": tries}))
            assert tries is None, "nothing was killed"
            print("its worker killed:", corpus.check(folder, again), flush=True)
        except Exception as error:
            assert tries == 0 and "was killed by signal 9 (SIGKILL)" in str(error), error
        thread.join()
        assert not worker.usable
    for kind in ("image", "text"):
        siglip_client.shared(kind=kind, **OPTIONS).close()


if __name__ == "__main__":
    main(sys.argv[1])
