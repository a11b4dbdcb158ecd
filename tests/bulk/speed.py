"""What each way does in a second, beside the towers alone. Usage: speed.py CORPUS COPIES

`siglip bench` is the towers alone, without reading, decoding and writing. SIGLIP_BULK_MODEL names another model than the embedded
one, whose towers are so small that everything around them counts more than it does for others.

Each way runs three times: over a few rows, over the corpus COPIES times and over twice that. What it does in a second follows from the
difference of the last two, so that starting an engine does not count: that is the column `start`.
"""

from __future__ import annotations

import glob
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

import siglip_client.ray
import siglip_client.spark

MODEL = os.environ.get("SIGLIP_BULK_MODEL", "demo")
#: Of the towers, for every way.
THREADS = os.environ.get("SIGLIP_BULK_THREADS", "2")
OPTIONS = {"model": MODEL, "flags": ["--threads", THREADS]}


def bench() -> float:
    """Pictures a second of the towers alone: the median of three runs."""
    command = [os.environ["SIGLIP_BIN"], "bench", "--model", MODEL, "--threads", THREADS, "--tower", "image", "--batch", "32", "--json"]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
    return statistics.median(json.loads(run.splitlines()[-1])["items_per_second"] for run in runs)


def embed(folder: pathlib.Path) -> None:
    """`siglip embed`, over links to the files."""
    files = sorted(str(path) for path in (folder / "files").iterdir())
    command = [os.environ["SIGLIP_BIN"], "embed", "--model", MODEL, "--threads", THREADS, "-"]
    command += ["--output", str(folder / "out.npy")]
    subprocess.run(command, input="\n".join(files), text=True, check=True, capture_output=True)


def worker(folder: pathlib.Path) -> None:
    with siglip_client.Worker(**OPTIONS) as worker:
        batches = (batch for path in parts(folder) for batch in pq.ParquetFile(path).iter_batches(256))
        rows = sum(batch.num_rows for batch in worker.stream(batches))
    assert rows == sum(pq.read_metadata(path).num_rows for path in parts(folder))


def ray_data(folder: pathlib.Path) -> None:
    import ray

    import ray_data

    if not ray.is_initialized():
        ray_data.start()
    data = ray.data.read_parquet(str(folder / "photos")).map_batches(
        siglip_client.ray.Embed, fn_constructor_kwargs=OPTIONS, batch_format="pyarrow", batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=1), num_cpus=2,
    )
    assert sum(len(batch["id"]) for batch in data.iter_batches(batch_format="pyarrow")) > 0


def spark(folder: pathlib.Path) -> None:
    import spark_frames

    # One task at a time, which has both cores.
    session = spark_frames.session("local[1]")
    frame = session.read.parquet(str(folder / "photos"))
    schema = siglip_client.spark.output_schema(frame.schema, **OPTIONS)
    frame.mapInArrow(siglip_client.spark.embed(**OPTIONS), schema).write.parquet(str(folder / "spark"), mode="overwrite")


def daft(folder: pathlib.Path) -> None:
    import daft
    from daft.functions import embed_image

    from siglip_client.daft import SiglipProvider

    frame = daft.read_parquet(str(folder / "photos/*.parquet"))
    vector = embed_image(daft.col("image"), provider=SiglipProvider(**OPTIONS))
    frame.select("id", vector.alias("embedding")).write_parquet(str(folder / "daft"))


def parts(folder: pathlib.Path) -> list[str]:
    return sorted(glob.glob(str(folder / "photos/*.parquet")))


def larger(corpus: pathlib.Path, copies: int, folder: pathlib.Path, most: int | None = None) -> int:
    """The corpus so many times over, without its bad rows, but not more than `most`; how many rows that are."""
    table = pa.concat_tables([pq.read_table(path) for path in parts(corpus)])
    good = pa.compute.invert(pa.compute.starts_with(table["id"], "bad-"))
    table = pa.concat_tables([table.filter(good)] * copies).slice(0, most)
    (folder / "photos").mkdir(parents=True)
    (folder / "files").mkdir()
    # Engines hand a batch on when its file ends: parts are as long as batches are where there are many rows.
    count = max(1, round(len(table) / 150))
    for part in range(count):
        start, end = part * len(table) // count, (part + 1) * len(table) // count
        some = table.slice(start, end - start)
        pq.write_table(some, folder / "photos" / f"part-{part:03}.parquet", row_group_size=256)
    for at, name in enumerate(table["id"].to_pylist()):
        os.link(corpus / "files" / name, folder / "files" / f"{at:06}-{name}")
    return len(table)


WAYS: dict[str, Callable[[pathlib.Path], None]] = {
    "siglip worker": worker, "siglip embed": embed, "Ray Data": ray_data, "Spark": spark, "Daft": daft,
}


def main(name: str, copies: str) -> None:
    scratch = pathlib.Path(tempfile.mkdtemp(dir=pathlib.Path(name)))
    try:
        small, large = scratch / "small", scratch / "large"
        few, many = larger(pathlib.Path(name), int(copies), small), larger(pathlib.Path(name), 2 * int(copies), large)
        larger(pathlib.Path(name), 1, scratch / "warm", 16)
        print(f"{'':14} {'start':>8} {'rows/s':>9} {'of bench':>10}   ({few} and {many} rows)")
        alone = bench()
        print(f"{'siglip bench':14} {'':8} {alone:9.1f} {100:8} %", flush=True)
        for title, way in WAYS.items():
            times = []
            way(scratch / "warm")
            for folder in (small, large):
                started = time.monotonic()
                way(folder)
                times.append(time.monotonic() - started)
            start = times[0] - few * (times[1] - times[0]) / (many - few)
            if times[1] < 1.2 * times[0] or start < -1:
                print(f"{title:14} {times[0]:6.1f} s, then {times[1]:.1f} s: the machine is too busy to tell", flush=True)
                continue
            rate = (many - few) / (times[1] - times[0])
            print(f"{title:14} {start:6.1f} s {rate:9.1f} {100 * rate / alone:8.0f} %", flush=True)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main(*sys.argv[1:])
