"""Ray Data on three nodes, one of which is killed. Usage: ray_nodes.py CORPUS

Runs in a network namespace whose loopback has the addresses 10.77.0.1 to 10.77.0.3. The first is the head and computes nothing.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pyarrow as pa
import ray
import ray.data

import corpus
from siglip_client.ray import Embed

RAY = str(pathlib.Path(sys.executable).with_name("ray"))
HEAD = "10.77.0.1:6399"


class Placed(Embed):
    """Writes down on which node it was when, by a file a batch."""

    def __init__(self, folder: str, **options) -> None:
        super().__init__(**options)
        self._folder = pathlib.Path(folder)
        self._node = ray.util.get_node_ip_address()
        self._calls = 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        out = super().__call__(batch)
        self._calls += 1
        (self._folder / f"{self._node}-{os.getpid()}-{self._calls}").touch()
        return out


def node(address: str, *flags: str) -> subprocess.Popen:
    """A node in a process group of its own."""
    command = [RAY, "start", "--block", f"--node-ip-address={address}", "--object-store-memory=150000000", *flags]
    # Its lines are for whoever looks why it did not come.
    return subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)


def kill(process: subprocess.Popen) -> None:
    """`kill -9` of a node: what it started, and all that came from that."""
    parents: dict[int, int] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found, more = {process.pid}, True
    while more:
        grown = found | {pid for pid, parent in parents.items() if parent in found}
        more, found = grown != found, grown
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def listens() -> bool:
    address, port = HEAD.split(":")
    try:
        socket.create_connection((address, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for(what, seconds: float, words: str):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, words
        time.sleep(0.2)
    return found


def main(name: str) -> None:
    folder = pathlib.Path(name)
    # Short, for the sockets in it.
    scratch = tempfile.mkdtemp(prefix="rn", dir="/tmp")
    head = ("--head", "--port=6399", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={scratch}")
    nodes = {"10.77.0.1": node("10.77.0.1", *head)}
    try:
        wait_for(listens, 120, "the head did not come")
        for address in ("10.77.0.2", "10.77.0.3"):
            nodes[address] = node(address, f"--address={HEAD}", "--num-cpus=2")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = 300_000
        ray.init(address=HEAD, _node_ip_address="10.77.0.1", log_to_driver=False, logging_level="error")
        wait_for(lambda: len([one for one in ray.nodes() if one["Alive"]]) == 3, 120, "three nodes did not come")

        state = tempfile.mkdtemp(dir=folder)
        victim: list[str] = []

        def killer() -> None:
            # The node of the first batch goes, once the other works, too.
            batches = wait_for(lambda: _two_nodes(state), 300, "only one node works")
            victim.append(batches)
            kill(nodes.pop(batches))

        thread = threading.Thread(target=killer)
        thread.start()
        rows = ray.data.read_parquet(str(folder / "photos")).map_batches(
            Placed, fn_constructor_kwargs={"folder": state, "model": "demo", "flags": ["--threads", "1"]},
            batch_format="pyarrow", batch_size=32, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1,
            scheduling_strategy="SPREAD",
        ).take_all()
        thread.join()
        assert victim, "no node was killed"
        batches = len(os.listdir(state))
        print(f"{victim[0]} killed:", corpus.check(folder, rows), f"in {batches} batches", flush=True)
        ray.shutdown()
    finally:
        for process in nodes.values():
            kill(process)
        shutil.rmtree(scratch, ignore_errors=True)
    corpus.none_left(os.environ["SIGLIP_BIN"])


def _two_nodes(state: str) -> str | None:
    """The address of a node that has done some batches, if another has, too."""
    seen = [name.split("-")[0] for name in os.listdir(state)]
    return seen[0] if len(set(seen)) == 2 else None


if __name__ == "__main__":
    main(sys.argv[1])
