from __future__ import annotations

import pickle
import unittest
from unittest import mock

import pyarrow as pa

from siglip_client import FingerprintError, InputError, ServiceError, WorkerError, columns

ADDED = ("embedding", "error")


class Find(unittest.TestCase):
    def test_says_what_is_wrong_with_a_table(self) -> None:
        schema = pa.schema([("id", pa.int32()), ("image", pa.binary()), ("error", pa.string())])
        for column, kind, added, words in [
            ("photo", "image", (), "no columns are called 'photo'; the columns are: id, image, error"),
            ("id", "image", (), "has the type int32: pictures are encoded files (binary)"),
            ("image", "text", (), "has the type binary: texts are strings"),
            ("image", "image", ADDED, "a column 'error' is there already"),
        ]:
            with self.assertRaises(InputError) as raised:
                columns.find(schema, column, kind, added, False)
            self.assertIn(words, str(raised.exception))
        twice = pa.schema([("image", pa.binary()), ("image", pa.binary())])
        with self.assertRaisesRegex(InputError, "2 columns are called 'image'"):
            columns.find(twice, "image", "image", ADDED, False)

    def test_a_result_may_have_the_name_of_the_column_that_goes(self) -> None:
        schema = pa.schema([("embedding", pa.binary())])
        self.assertEqual(columns.find(schema, "embedding", "image", ADDED, False), 0)
        with self.assertRaises(InputError):
            columns.find(schema, "embedding", "image", ADDED, True)

    def test_every_type_of_text_and_bytes(self) -> None:
        for kind, value, types in [
            ("image", b"x", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())]),
            ("text", "x", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]),
        ]:
            for type_ in [*types, pa.null()]:
                schema = pa.schema([("c", type_)])
                self.assertEqual(columns.find(schema, "c", kind, ADDED, False), 0)  # type: ignore[arg-type]
                array = pa.nulls(2) if pa.types.is_null(type_) else pa.array([value, None]).cast(type_)
                [piece] = columns.pieces(array, kind)  # type: ignore[arg-type]
                self.assertEqual(piece.array.type, columns.wire_type(kind))  # type: ignore[arg-type]
                self.assertEqual(piece.array.to_pylist()[1], None)


class Pieces(unittest.TestCase):
    def lengths(self, values: list[bytes | None], **limits: int) -> list[int]:
        cut = list(columns.pieces(pa.array(values, pa.binary()), "image", **limits))
        self.assertEqual([row for piece in cut for row in piece.array.to_pylist()], values)
        return [len(piece.array) for piece in cut]

    def test_rows_and_bytes_are_bounded(self) -> None:
        self.assertEqual(self.lengths([]), [0])
        self.assertEqual(self.lengths([b"x"] * 600), [256, 256, 88])
        self.assertEqual(self.lengths([b"x" * 10] * 10, size=40), [4, 4, 2])
        # A long row is a piece of its own.
        self.assertEqual(self.lengths([b"x", b"y" * 100, None, b"z"], size=40), [1, 1, 2])
        self.assertEqual(self.lengths([b"x" * 10] * 10, rows=3, size=40), [3, 3, 3, 1])

    def test_chunks_and_slices(self) -> None:
        column = pa.chunked_array([[b"a"], [], [b"b", b"c"]], pa.binary()).slice(1)
        cut = list(columns.pieces(column, "image"))
        self.assertEqual([piece.array.to_pylist() for piece in cut], [[b"b", b"c"]])
        self.assertEqual(len(list(columns.pieces(pa.chunked_array([], pa.binary()), "image"))), 1)

    def test_a_row_that_is_too_long_is_not_sent(self) -> None:
        with mock.patch.object(columns, "ROW_BYTES", 50):
            [first, second] = columns.pieces(pa.array([b"x", b"y" * 60, b"z"]), "image", size=61)
        self.assertEqual(first.array.to_pylist(), [b"x", None])
        self.assertEqual(first.refused, {1: "a picture of 60 bytes: at most 50 are sent"})
        self.assertEqual(second.refused, {})
        answer = pa.record_batch({"error": pa.array([None, "null"])})
        explained = columns.explain(answer, first.refused)
        self.assertEqual(explained.column("error").to_pylist(), [None, first.refused[1]])


class Lists(unittest.TestCase):
    def test_a_list_without_a_fixed_length(self) -> None:
        vectors = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
        batch = pa.record_batch({"n": [1, 2, 3], "embedding": vectors}).replace_schema_metadata({"k": "v"})
        for data in (batch, pa.Table.from_batches([batch])):
            out = columns.variable_lists(data)
            self.assertEqual(out.schema.field("embedding").type, pa.list_(pa.float32()))
            self.assertEqual(out.column("embedding").to_pylist(), vectors.to_pylist())
            self.assertEqual((out.schema.names, out.schema.metadata), (["n", "embedding"], {b"k": b"v"}))
            self.assertEqual(columns.variable_lists(out, pa.float64()).column("embedding").type, pa.list_(pa.float64()))


class Errors(unittest.TestCase):
    def test_they_travel(self) -> None:
        for error in [
            WorkerError("a", 70), ServiceError("b", 503), InputError("c"), FingerprintError("d"),
        ]:
            again = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(again), str(again), vars(again)), (type(error), str(error), vars(error)))


if __name__ == "__main__":
    unittest.main()
