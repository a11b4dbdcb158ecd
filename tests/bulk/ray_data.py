"""Ray Data. Usage: ray_data.py CORPUS

A worker that is killed, a driver that is killed, and no id missing or twice.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

import corpus
import flaky
from siglip_client.ray import Embed

OPTIONS = {"model": "demo", "flags": ["--threads", "2"]}
BATCH = 32


class Killed(Embed):
    """Its worker is killed in the third batch of all."""

    def __init__(self, folder: str, **options) -> None:
        super().__init__(**options)
        self._folder = pathlib.Path(folder)
        self._calls = 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        self._calls += 1
        if self._calls == 3 and flaky.first(self._folder / "killed"):
            flaky.kill_at_work(self._embedder.pid)
        return super().__call__(batch)


class Counted(Embed):
    """Writes down which rows it has computed."""

    def __init__(self, folder: str, **options) -> None:
        super().__init__(**options)
        self._log = tempfile.NamedTemporaryFile("w", dir=folder, suffix=".ids", delete=False)

    def __call__(self, batch: pa.Table) -> pa.Table:
        out = super().__call__(batch)
        # As long as a larger model takes.
        time.sleep(0.3)
        self._log.write("".join(f"{name}\n" for name in batch["id"].to_pylist()))
        self._log.flush()
        return out


def start() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # As many blocks as a larger table would have: a block is what is tried again, and what a checkpoint knows.
    context.target_max_block_size = 300_000
    for tries in range(3):
        try:
            ray.init(
                address="local", num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1",
                object_store_memory=200_000_000, log_to_driver=False, logging_level="error",
            )
            return
        except Exception:
            # On a machine that is busy Ray's own processes do not find each other in time.
            ray.shutdown()
            if tries == 2:
                raise


def job(photos: pathlib.Path, kind: type = Embed, **options) -> ray.data.Dataset:
    return ray.data.read_parquet(str(photos)).map_batches(
        kind, fn_constructor_kwargs={**OPTIONS, **options}, batch_format="pyarrow", batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1,
    )


def main(name: str) -> None:
    folder = pathlib.Path(name)
    binary = os.environ["SIGLIP_BIN"]
    if len(sys.argv) > 2:
        return checkpointed(folder, pathlib.Path(sys.argv[2]))

    start()
    context = ray.data.DataContext.get_current()
    print("vectors:", corpus.check(folder, job(folder / "photos").take_all()), flush=True)

    with tempfile.TemporaryDirectory() as state:
        try:
            job(folder / "photos", Killed, folder=state).take_all()
        except Exception as error:
            assert "was killed by signal 9 (SIGKILL); its last lines:" in str(error), error
        else:
            raise AssertionError("nothing was killed")
    context.retried_map_errors, context.max_map_retries = True, 3
    with tempfile.TemporaryDirectory() as state:
        rows = job(folder / "photos", Killed, folder=state).take_all()
        assert (pathlib.Path(state) / "killed").exists()
    print("its worker killed:", corpus.check(folder, rows), flush=True)
    ray.shutdown()
    corpus.none_left(binary)
    driver_killed(folder, binary)


def checkpointed(folder: pathlib.Path, state: pathlib.Path) -> None:
    """A job that goes on where the last one stopped."""
    start()
    ray.data.DataContext.get_current().checkpoint_config = ray.data.checkpoint.CheckpointConfig(
        id_column="id", checkpoint_path=str(state / "checkpoint"), delete_checkpoint_on_success=False
    )
    job(folder / "photos", Counted, folder=str(state / "log")).write_parquet(str(state / "out"))


def finished(out: pathlib.Path) -> list[pathlib.Path]:
    """The Parquet files that are whole: Ray writes them in place."""
    return [path for path in out.glob("*.parquet") if path.read_bytes()[-4:] == b"PAR1"]


def driver_killed(folder: pathlib.Path, binary: str) -> None:
    state = pathlib.Path(tempfile.mkdtemp())
    try:
        (state / "log").mkdir()
        command = [sys.executable, __file__, str(folder), str(state)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Some of it is written, most of it is not.
        while not finished(state / "out"):
            assert process.poll() is None, "the first run was over too soon"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        corpus.none_left(binary, 60)
        before = [name for path in finished(state / "out") for name in pq.read_table(path)["id"].to_pylist()]
        total = len(corpus.expected(folder)) + len(corpus.BAD)
        assert 0 < len(before) < total, len(before)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = [row for path in (state / "out").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
        computed = [name for path in (state / "log").glob("*.ids") for name in path.read_text().splitlines()]
        print(f"driver killed after {len(before)} rows:", corpus.check(folder, rows), end="; ")
        print(f"{len(computed) - total} computed twice", flush=True)
        # What was in flight: the blocks that were not written yet.
        assert len(computed) - total <= total - len(before)
    finally:
        shutil.rmtree(state)
    corpus.none_left(binary)


if __name__ == "__main__":
    main(sys.argv[1])
