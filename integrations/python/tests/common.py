"""What the tests share. SIGLIP_BIN names the program."""

from __future__ import annotations

import os
import pathlib
import time

import pyarrow as pa

EXAMPLES = pathlib.Path(__file__).parents[3] / "models/demo/examples"
PICTURES = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.png"))]


def table(rows: list[bytes | None] | None = None) -> pa.Table:
    """Six pictures, or these rows, with columns beside them."""
    rows = PICTURES if rows is None else rows
    return pa.table({
        "id": pa.array(range(len(rows)), pa.int32()),
        "image": pa.array(rows, pa.binary()),
        "tags": pa.array([[{"a": at}] for at in range(len(rows))]),
    })


def children(pid: int | None = None) -> list[int]:
    """The processes that run `siglip worker` and were started by this one, or by `pid`."""
    parent = pid or os.getpid()
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            # The name may hold spaces and brackets; what comes after it does not.
            started_by = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if started_by == parent and b"worker" in words:
            found.append(int(path.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and nobody asked for does not."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Waits until a process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False
