"""The columns that go in and those that come out; what a batch is cut into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from .errors import InputError

Kind = Literal["image", "text"]
Data = TypeVar("Data", pa.RecordBatch, pa.Table)

#: Rows of a piece at most. A piece is what is sent at once: small enough that the next one is read while one is computed.
PIECE_ROWS = 256
#: Bytes of a piece at most, but for a single row that is longer.
PIECE_BYTES = 32 << 20
#: Bytes of one picture or text at most. A longer one is a bad row, and is not sent.
ROW_BYTES = 256 << 20


@dataclass(frozen=True)
class Piece:
    """Some rows of a column.

    `array` is large_binary or large_string; `refused` says of rows that are null in it why they are not sent.
    """

    array: pa.Array
    refused: dict[int, str]


def wire_type(kind: Kind) -> pa.DataType:
    """The type that a column is sent in."""
    return pa.large_binary() if kind == "image" else pa.large_string()


def find(schema: pa.Schema, column: str, kind: Kind, added: tuple[str, ...], keep_input: bool) -> int:
    """The index of the column to embed.

    Raises InputError if it is not there once, if its type does not fit, or if a column has a name that will be added.
    """
    found = schema.get_all_field_indices(column)
    if len(found) != 1:
        names = ", ".join(schema.names[:50])
        raise InputError(f"{len(found) or 'no'} columns are called {column!r}; the columns are: {names}")
    type_ = schema.field(found[0]).type
    if not _fits(type_, kind):
        wanted = "pictures are encoded files (binary)" if kind == "image" else "texts are strings"
        raise InputError(f"the column {column!r} has the type {type_}: {wanted}")
    kept = [name for name in schema.names if keep_input or name != column]
    taken = [name for name in added if name in kept]
    if taken:
        raise InputError(f"a column {taken[0]!r} is there already: rename it, its name is that of a result")
    return int(found[0])


def _fits(type_: pa.DataType, kind: Kind) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    # Spark and pandas have columns without a value as null.
    if pa.types.is_null(type_):
        return True
    if kind == "image":
        return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_))
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def pieces(
    column: pa.Array | pa.ChunkedArray, kind: Kind, rows: int = PIECE_ROWS, size: int = PIECE_BYTES
) -> Iterator[Piece]:
    """The column in pieces of at most `rows` rows and `size` bytes; at least one, of no rows if the column has none."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    chunks = [chunk for chunk in chunks if len(chunk)] or [pa.array([], column.type)]
    for chunk in chunks:
        array = _to_wire(chunk, kind)
        start = 0
        for stop in _cuts(array, rows, size):
            yield _piece(array.slice(start, stop - start), kind)
            start = stop


def _to_wire(array: pa.Array, kind: Kind) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(wire_type(kind))


def _cuts(array: pa.Array, rows: int, size: int) -> Iterator[int]:
    """Where pieces end."""
    if array.nbytes <= size:
        yield from range(rows, len(array), rows)
        yield len(array)
        return
    held = start = 0
    for index, length in enumerate(pc.fill_null(pc.binary_length(array), 0).to_pylist()):
        if index > start and (index - start == rows or held + length > size):
            yield index
            held, start = 0, index
        held += length
    yield len(array)


def _piece(array: pa.Array, kind: Kind) -> Piece:
    if array.nbytes <= ROW_BYTES:
        return Piece(array, {})
    lengths = pc.fill_null(pc.binary_length(array), 0).to_pylist()
    long = {row: length for row, length in enumerate(lengths) if length > ROW_BYTES}
    if not long:
        return Piece(array, {})
    mask = pa.array([row in long for row in range(len(array))])
    name = "a picture" if kind == "image" else "a text"
    refused = {row: f"{name} of {length} bytes: at most {ROW_BYTES} are sent" for row, length in long.items()}
    return Piece(pc.if_else(mask, pa.scalar(None, array.type), array), refused)


def explain(batch: pa.RecordBatch, refused: dict[int, str]) -> pa.RecordBatch:
    """The results of a piece, with the reasons for rows that were not sent."""
    if not refused:
        return batch
    index = batch.schema.get_field_index("error")
    errors = batch.column(index).to_pylist()
    for row, why in refused.items():
        errors[row] = why
    columns = list(batch.columns)
    columns[index] = pa.array(errors, batch.schema.field(index).type)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def added_schema(schema: pa.Schema, index: int, results: pa.Schema, keep_input: bool) -> pa.Schema:
    """A table's schema with the results' columns after its own; the metadata of both."""
    fields = [field for at, field in enumerate(schema) if keep_input or at != index]
    metadata: dict[Any, Any] = {**(schema.metadata or {}), **(results.metadata or {})}
    return pa.schema([*fields, *results], metadata=metadata)


def join(data: Data, index: int, results: list[pa.RecordBatch], keep_input: bool) -> Data:
    """The rows of a table or batch with their results beside them."""
    schema = added_schema(data.schema, index, results[0].schema, keep_input)
    own: list[Any] = [column for at, column in enumerate(data.columns) if keep_input or at != index]
    added: list[Any] = pa.Table.from_batches(results).columns
    if not isinstance(data, pa.Table):
        added = [_one(column) for column in added]
    joined: Data = type(data).from_arrays([*own, *added], schema=schema)
    return joined


def variable_lists(data: Data, element: pa.DataType | None = None) -> Data:
    """The same rows with `embedding` as a list without a fixed length, of `element` if that is given.

    For engines that have no others, and for Parquet: pyarrow before 26 cannot read lists of a fixed length back if one is null.
    """
    index = data.schema.get_field_index("embedding")
    element = element or data.schema.field(index).type.value_type
    field = pa.field("embedding", pa.list_(pa.field("item", element)))
    columns: list[Any] = list(data.columns)
    columns[index] = columns[index].cast(field.type)
    changed: Data = type(data).from_arrays(columns, schema=data.schema.set(index, field))
    return changed


def _one(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
