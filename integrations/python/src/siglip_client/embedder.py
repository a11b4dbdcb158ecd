"""What a worker and a service have in common: tables go in, the same rows come out with vectors beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, TypeVar

import pyarrow as pa

from . import columns
from .columns import Data, Kind, Piece
from .errors import FingerprintError

Self = TypeVar("Self", bound="Embedder")


class Embedder(ABC):
    """Embeds one column of tables and record batches.

    What comes out has the same rows in the same order, every other column unchanged, and after them
    `embedding` (fixed_size_list of float, null in a bad row), `error` (string, null in a good row) and, where labels are asked
    for, `label` (string) and `score` (float). The schema's metadata says which model made the vectors: `siglip.fingerprint`,
    `siglip.model` and others. Vectors of one fingerprint may be compared.
    """

    #: Tables of :meth:`stream` that are worked on while the caller has an earlier one.
    AHEAD = 2

    def __init__(
        self,
        *,
        kind: Kind,
        column: str | None,
        keep_input: bool,
        fingerprint: str | None,
        labelled: bool,
        piece_rows: int = columns.PIECE_ROWS,
        piece_bytes: int = columns.PIECE_BYTES,
    ) -> None:
        if kind not in ("image", "text"):
            raise ValueError(f"kind is 'image' or 'text', not {kind!r}")
        self.kind: Kind = kind
        self.column = column or kind
        self.keep_input = keep_input
        self._expected = fingerprint
        self._added = ("embedding", "error", *(("label", "score") if labelled else ()))
        self._piece_rows = piece_rows
        self._piece_bytes = piece_bytes

    # --- what the two have each in their own way

    @property
    @abstractmethod
    def results_schema(self) -> pa.Schema:
        """The columns that are added, with the metadata."""

    @property
    @abstractmethod
    def usable(self) -> bool:
        """False once it was closed or has failed for good."""

    @abstractmethod
    def _submit(self, piece: Piece) -> Future[pa.RecordBatch]:
        """Takes a piece; blocks while too much is on its way. The result has the columns of `results_schema`."""

    @abstractmethod
    def close(self) -> None:
        """Ends it. May be called twice."""

    # --- what they give

    @property
    def fingerprint(self) -> str:
        """Names the embedding space: vectors may be compared if it is the same."""
        return self._metadata("siglip.fingerprint")

    @property
    def model(self) -> str:
        """The model's name."""
        return self._metadata("siglip.model")

    @property
    def dimensions(self) -> int:
        """Numbers of a vector."""
        return int(self.results_schema.field("embedding").type.list_size)

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        """The schema of what comes out for tables of this schema."""
        index = columns.find(schema, self.column, self.kind, self._added, self.keep_input)
        return columns.added_schema(schema, index, self.results_schema, self.keep_input)

    def embed(self, data: Data) -> Data:
        """The rows with their vectors.

        Raises InputError for a table without the column, WorkerError or ServiceError if there is no answer. A row that cannot
        be embedded is no error: it says why in its column `error`.
        """
        return self._begin(data).end()

    def stream(self, batches: Iterable[Data]) -> Iterator[Data]:
        """The batches with their vectors, in their order; the next ones are worked on while the caller has one."""
        begun: deque[_Begun[Data]] = deque()
        for data in batches:
            begun.append(self._begin(data))
            if len(begun) > self.AHEAD:
                yield begun.popleft().end()
        while begun:
            yield begun.popleft().end()

    def _begin(self, data: Data) -> _Begun[Data]:
        index = columns.find(data.schema, self.column, self.kind, self._added, self.keep_input)
        parts = columns.pieces(data.column(index), self.kind, self._piece_rows, self._piece_bytes)
        return _Begun(data, index, self.keep_input, [(piece, self._submit(piece)) for piece in parts])

    def _metadata(self, key: str) -> str:
        value = (self.results_schema.metadata or {}).get(key.encode(), b"")
        return bytes(value).decode()

    def _check_fingerprint(self) -> None:
        if self._expected and self.fingerprint != self._expected:
            raise FingerprintError(
                f"{self.model} gives vectors of the embedding space {self.fingerprint}, not of {self._expected}"
            )

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Begun(Generic[Data]):
    """A table that is worked on."""

    def __init__(
        self, data: Data, index: int, keep_input: bool, parts: list[tuple[Piece, Future[pa.RecordBatch]]]
    ) -> None:
        self._data = data
        self._index = index
        self._keep_input = keep_input
        # The pieces' own arrays may go once they are written.
        self._parts = [(piece.refused, future) for piece, future in parts]

    def end(self) -> Data:
        results = [columns.explain(future.result(), refused) for refused, future in self._parts]
        return columns.join(self._data, self._index, results, self._keep_input)
