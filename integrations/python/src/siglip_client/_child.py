"""A child process that does not outlive its parent, and says why it ended."""

from __future__ import annotations

import collections
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from .errors import WorkerError

_log = logging.getLogger("siglip_client")

# The kernel kills the child when the thread that started it ends (Linux). It is set by a program between fork and exec, since
# Python code in a forked process may meet a lock that another thread held. A parent that is gone already is seen by its id.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]): os._exit(1)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_binary(binary: str | os.PathLike[str] | None) -> str:
    """The program: what is named here, else by SIGLIP_BIN, else `siglip` on PATH."""
    named = os.fspath(binary) if binary else os.environ.get("SIGLIP_BIN")
    path = shutil.which(named or "siglip")
    if path:
        return os.path.abspath(path)
    if not named:
        raise WorkerError("no program `siglip` on PATH; name it with binary= or the variable SIGLIP_BIN")
    origin = "" if binary else " (SIGLIP_BIN)"
    what = "cannot be run" if os.path.exists(named) else "is not there"
    raise WorkerError(f"{named}{origin} {what}")


class Child:
    """A process with pipes, whose last lines of standard error are kept.

    The thread that makes it must live as long as the process: on Linux the kernel kills it with that thread.
    """

    LINES = 30
    LINE = 2000

    def __init__(self, command: Sequence[str]) -> None:
        self._name = " ".join(command[:2])
        self._lines: collections.deque[str] = collections.deque(maxlen=self.LINES)
        try:
            # A session of its own: Ctrl-C is for the parent, which ends it in order.
            self._process = subprocess.Popen(
                _tied(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerError(f"{command[0]} cannot be started: {error}") from error
        assert self._process.stdin and self._process.stdout
        _widen(self._process.stdin.fileno())
        self.stdin = self._process.stdin
        self.stdout = self._process.stdout
        self._reader = threading.Thread(target=self._read, name="siglip stderr", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stderr
        with self._process.stderr as stream:
            while line := stream.readline(self.LINE):
                text = line.decode("utf-8", "replace").rstrip()
                if text:
                    self._lines.append(text)
                    _log.info("%s", text)

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code (negative: the signal that killed it); None if it runs still."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Ends it at once."""
        if self._process.poll() is None:
            self._process.kill()

    def ended(self, grace: float = 5.0) -> WorkerError:
        """Why it ended, in words; it is killed if it does not end within `grace` seconds."""
        code = self.wait(grace)
        if code is None:
            self.kill()
            self.wait()
            how = "gave no sense and was killed"
        elif code < 0:
            how = f"was killed by signal {-code} ({_signal_name(-code)})"
        else:
            how = f"ended with exit code {code}"
        self._reader.join(1.0)
        lines = list(self._lines)
        says = "; it said nothing" if not lines else "; its last lines:\n  " + "\n  ".join(lines)
        return WorkerError(f"{self._name} {how}{says}", code)


def _tied(command: Sequence[str]) -> list[str]:
    if not sys.platform.startswith("linux") or "python" not in os.path.basename(sys.executable or ""):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]


def _widen(pipe: int) -> None:
    """A pipe of 1 MiB in place of 64 KiB, where the system lets us: fewer changes between the processes."""
    try:
        import fcntl

        fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), 1 << 20)
    except (ImportError, OSError):
        pass


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
