"""One `siglip worker` as a child process."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

import pyarrow as pa

from . import columns
from ._child import Child, find_binary
from .columns import Kind, Piece
from .embedder import Embedder
from .errors import WorkerError

#: Pieces on their way at once: waiting for the pipe, in it, or with the worker.
IN_FLIGHT = 8


class Worker(Embedder):
    """A `siglip worker` with one loaded model.

    It is ready when this returns, and ends with `close`, with the context, or with this process, however that ends. It is not
    started again when it dies: what was on its way and all that comes later raises WorkerError, with its exit code and its
    last lines.

    Methods may be called from several threads.

    model: what `--model` takes: a hub id, a folder, a file, or `demo`.
    kind: "image" (encoded pictures, binary) or "text".
    column: the name of the column; `image` or `text` if left out.
    keep_input: whether that column is kept beside its vectors.
    label_set: a file with labels (docs/zero-shot.md); adds the columns `label` and `score`.
    embedding_dtype: "f32" or "f16".
    fingerprint: the embedding space that the vectors are for; another one is a FingerprintError.
    flags: more flags of `siglip worker`, such as ["--device", "cuda", "--threads", "4"].
    binary: the program; else SIGLIP_BIN, else `siglip` on PATH.
    start_timeout: seconds until the model must be ready; downloading is part of it.
    """

    def __init__(
        self,
        model: str,
        *,
        kind: Kind = "image",
        column: str | None = None,
        keep_input: bool = False,
        label_set: str | os.PathLike[str] | None = None,
        embedding_dtype: Literal["f32", "f16"] = "f32",
        fingerprint: str | None = None,
        flags: Sequence[str] = (),
        binary: str | os.PathLike[str] | None = None,
        start_timeout: float = 1800.0,
    ) -> None:
        super().__init__(
            kind=kind,
            column=column,
            keep_input=keep_input,
            fingerprint=fingerprint,
            labelled=label_set is not None,
        )
        command = [find_binary(binary), "worker", "--model", model, "--embedding-dtype", embedding_dtype]
        if label_set is not None:
            command += ["--label-set", os.fspath(label_set)]
        self._link = _Link([*command, *flags], kind)
        # The schema goes out with the first rows. None at all make the child answer with its own schema.
        self._link.submit(pa.array([], columns.wire_type(kind)))
        # Also at the end of the interpreter, and when nobody holds this any more.
        self._finalizer = weakref.finalize(self, _Link.close, self._link, 5.0)
        try:
            self._results = self._link.ready(start_timeout)
            self._check_fingerprint()
        except BaseException:
            self._finalizer.detach()
            self._link.close(0.0)
            raise

    @property
    def results_schema(self) -> pa.Schema:
        return self._results

    @property
    def usable(self) -> bool:
        return self._link.error is None

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._link.pid

    def _submit(self, piece: Piece) -> Future[pa.RecordBatch]:
        return self._link.submit(piece.array)

    def close(self) -> None:
        """Ends the child. What is on its way is finished if that takes no more than 5 s, else it gets an error."""
        if self._finalizer.detach():
            self._link.close(5.0)


class _Link:
    """The child and the threads at its pipes: one writes, one reads, one waits for the child to end.

    Answers come in the order of what was written. Writing and reading are never done by one thread, so that neither side waits
    for the other to take something.
    """

    def __init__(self, command: list[str], kind: Kind) -> None:
        self._owner = os.getpid()
        self._command = command
        self._schema = pa.schema([pa.field(kind, columns.wire_type(kind))])
        self._lock = threading.Lock()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._outgoing: queue.SimpleQueue[pa.Array | None] = queue.SimpleQueue()
        self._waiting: deque[tuple[Future[pa.RecordBatch], int]] = deque()
        self._child: Child | None = None
        self._results: pa.Schema | None = None
        self._known = threading.Event()
        self._done = threading.Event()
        self._closing = False
        self.error: WorkerError | None = None
        self._reader: threading.Thread | None = None
        self._writer = threading.Thread(target=self._write, name="siglip writer", daemon=True)
        self._writer.start()

    @property
    def pid(self) -> int:
        return self._child.pid if self._child else 0

    def ready(self, timeout: float) -> pa.Schema:
        """Waits for the model; the schema of the answers."""
        if not self._known.wait(timeout):
            self._fail(WorkerError(f"siglip worker was not ready after {timeout:g} s"))
        if self.error:
            raise self.error
        assert self._results is not None
        return self._results

    def submit(self, array: pa.Array) -> Future[pa.RecordBatch]:
        if os.getpid() != self._owner:
            raise WorkerError("this worker belongs to the process that this one was forked from: make one here")
        self._room.acquire()
        future: Future[pa.RecordBatch] = Future()
        with self._lock:
            # As it was raised for others already, it is raised anew.
            if self.error:
                self._room.release()
                raise WorkerError(*self.error.args)
            self._waiting.append((future, len(array)))
            self._outgoing.put(array)
        return future

    def close(self, grace: float) -> None:
        """Ends the child: in order if it does so within `grace` seconds."""
        if os.getpid() != self._owner:
            return
        self._closing = True
        self._outgoing.put(None)
        if self._done.wait(grace) or self._child is None:
            self._fail(WorkerError("the worker was closed"))
        else:
            self._fail(WorkerError(f"the worker was closed, and killed after {grace:g} s"))
        # The interpreter may be about to end, which it should not do to a thread inside of Arrow.
        for thread in (self._writer, self._reader):
            if thread and thread is not threading.current_thread():
                thread.join(5.0)

    # --- the thread that the child lives as long as

    def _write(self) -> None:
        try:
            self._child = Child(self._command)
        except WorkerError as error:
            self._fail(error)
            self._done.set()
            return
        self._reader = threading.Thread(target=self._read, args=(self._child,), name="siglip reader", daemon=True)
        self._reader.start()
        try:
            with self._child.stdin, pa.ipc.new_stream(self._child.stdin, self._schema) as stream:
                while (array := self._outgoing.get()) is not None:
                    stream.write_batch(pa.RecordBatch.from_arrays([array], schema=self._schema))
                    self._child.stdin.flush()
                    del array
        except (OSError, pa.ArrowException, ValueError):
            # The child does not read any more; the reader says why.
            pass
        self._child.wait()
        self._done.set()

    def _read(self, child: Child) -> None:
        try:
            with child.stdout, pa.ipc.open_stream(child.stdout) as stream:
                self._results = stream.schema
                self._known.set()
                while True:
                    batch = stream.read_next_batch()
                    with self._lock:
                        if not self._waiting:
                            raise pa.ArrowInvalid("an answer that nothing was asked for")
                        future, rows = self._waiting[0]
                        if batch.num_rows != rows:
                            raise pa.ArrowInvalid(f"{batch.num_rows} rows in the answer to {rows}")
                        self._waiting.popleft()
                    self._room.release()
                    future.set_result(batch)
        except StopIteration:
            with self._lock:
                lost = bool(self._waiting) or not self._closing
            if lost:
                self._fail(child.ended())
        except (OSError, pa.ArrowException, ValueError) as error:
            if child.wait(5.0) is None:
                self._fail(WorkerError(f"siglip worker writes what is not an answer: {error}"))
            else:
                self._fail(child.ended())

    def _fail(self, error: WorkerError) -> None:
        """Gives everything that waits, and all that comes, this error; the first one counts."""
        with self._lock:
            if self.error is None:
                self.error = error
            waiting = list(self._waiting)
            self._waiting.clear()
        for future, _ in waiting:
            self._room.release()
            future.set_exception(WorkerError(*self.error.args))
        if self._child:
            self._child.kill()
        # Who waits in `get` shall see it.
        self._outgoing.put(None)
        self._known.set()

