"""Something that goes wrong once, in whichever process comes first."""

from __future__ import annotations

import os
import pathlib
import signal
import threading
import time


def first(marker: pathlib.Path) -> bool:
    """Whether nobody asked before, on this machine."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def kill_at_work(pid: int) -> threading.Thread:
    """`kill -9` once the process computes again, while the caller goes on to use it. A fast machine has little left to compute."""

    def watch() -> None:
        start = _ticks(pid)
        while _ticks(pid) <= start:
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def _ticks(pid: int) -> int:
    """Hundredths of a second that a process has computed."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
