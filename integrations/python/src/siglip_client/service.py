"""A running `siglip serve`, over HTTP."""

from __future__ import annotations

import array
import base64
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import pyarrow as pa

from . import _http
from .columns import Kind, Piece
from .embedder import Embedder
from .errors import ServiceError

#: What the service says of an input that it had no time for: it is asked for again.
_TOO_LATE = "deadline_exceeded"
_PLACE = re.compile(r"^(image|input)\[\d+\](\.\w+)?( \([^)]*\))?: ")


class Service(Embedder):
    """A running service, with the same methods as a Worker.

    Requests have 64 rows and 16 MiB at most, a few at a time; one that is too large for the service is halved. 429, 503 and lost
    connections are tried again. Each request names the fingerprint of the first one: a service whose model changes meanwhile
    is a FingerprintError, and no table has vectors of two models.

    Methods may be called from several threads.

    url: http(s)://host:port, with the path before `/v1` if there is one.
    model: the model's name there; the service's first one if left out.
    labels, label_set: labels, or the name of a stored set; adds the columns `label` and `score`.
    requests: requests at a time.
    timeout: seconds for one answer.
    retry_for: seconds for which a request that is refused for now is tried again.
    The others are a Worker's.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        kind: Kind = "image",
        column: str | None = None,
        keep_input: bool = False,
        labels: Sequence[str] | None = None,
        label_set: str | None = None,
        embedding_dtype: Literal["f32", "f16"] = "f32",
        fingerprint: str | None = None,
        api_key: str | None = None,
        requests: int = 4,
        timeout: float = 120.0,
        retry_for: float = 300.0,
    ) -> None:
        if labels is not None and label_set is not None:
            raise ValueError("either labels or label_set")
        self._labels: dict[str, Any] = {}
        if labels is not None:
            self._labels = {"labels": list(labels)}
        elif label_set is not None:
            self._labels = {"label_set": label_set}
        super().__init__(
            kind=kind,
            column=column,
            keep_input=keep_input,
            fingerprint=fingerprint,
            labelled=bool(self._labels),
            piece_rows=64,
            piece_bytes=16 << 20,
        )
        if embedding_dtype not in ("f32", "f16"):
            raise ValueError(f"embedding_dtype is 'f32' or 'f16', not {embedding_dtype!r}")
        self._element = pa.float32() if embedding_dtype == "f32" else pa.float16()
        self._http = _http.Http(url, api_key, timeout, retry_for)
        try:
            self._results, name = self._describe(model)
            self._check_fingerprint()
        except BaseException:
            self._http.close()
            raise
        options = {"model": name, "encoding_format": "base64", "partial": "true"}
        if embedding_dtype == "f16":
            options["embedding_type"] = "float16"
        route = "/v1/embeddings/images" if kind == "image" else "/v1/embeddings"
        self._path = f"{route}?{urllib.parse.urlencode(options)}"
        self._name = name
        self._headers = {"x-siglip-expect-fingerprint": self.fingerprint}
        self._room = threading.Semaphore(2 * requests)
        self._threads = ThreadPoolExecutor(requests, "siglip request")
        self._closed = False

    def _describe(self, model: str | None) -> tuple[pa.Schema, str]:
        document, _ = self._http.ask("GET", "/v1/models", unusable=lambda answer: _not_loaded(answer, model))
        if not _entries(document, model):
            # Models are listed once they are loaded; while they are not, this is 503 and asked again.
            self._http.ask("GET", "/health/ready")
            document, _ = self._http.ask("GET", "/v1/models", unusable=lambda answer: _not_loaded(answer, model))
        if not _entries(document, model):
            names = ", ".join(entry["id"] for entry in document["data"])
            raise ServiceError(f"the service has no model {model!r}; it has: {names or 'none'}")
        about = _entries(document, model)[0]
        fields = [
            pa.field("embedding", pa.list_(pa.field("item", self._element), about["dimensions"])),
            pa.field("error", pa.string()),
        ]
        if self._labels:
            fields += [pa.field("label", pa.string()), pa.field("score", pa.float32())]
        said = {"fingerprint": about["fingerprint"], "model": about["id"], "dtype": about.get("dtype", "")}
        metadata = {f"siglip.{key}": str(value) for key, value in said.items()}
        return pa.schema(fields, metadata=metadata), str(about["id"])

    @property
    def results_schema(self) -> pa.Schema:
        return self._results

    @property
    def usable(self) -> bool:
        return not self._closed

    def close(self) -> None:
        """Gives up what was not asked yet."""
        self._closed = True
        self._http.close()
        # What waits for a thread finds the connection closed.
        self._threads.shutdown(wait=False)

    def _submit(self, piece: Piece) -> Future[pa.RecordBatch]:
        self._room.acquire()
        try:
            future = self._threads.submit(self._answer, piece.array)
        except RuntimeError:
            self._room.release()
            raise ServiceError("the client was closed") from None
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _answer(self, rows: pa.Array) -> pa.RecordBatch:
        entries = self._entries(rows)
        vectors, errors = [], []
        width = self.dimensions * self._element.bit_width // 8
        for entry in entries:
            vector = base64.b64decode(entry["embedding"]) if "embedding" in entry else None
            if vector is not None and len(vector) != width:
                raise ServiceError(f"a vector of {len(vector)} bytes in place of {width}")
            vectors.append(vector)
            errors.append(entry.get("error"))
        columns = [self._vectors(vectors), pa.array(errors, pa.string())]
        if self._labels:
            columns += self._judge(vectors)
        return pa.RecordBatch.from_arrays(columns, schema=self._results)

    def _vectors(self, vectors: list[bytes | None]) -> pa.Array:
        """Little-endian rows as one fixed_size_list."""
        width = self.dimensions * self._element.bit_width // 8
        data = b"".join(vector if vector is not None else bytes(width) for vector in vectors)
        if sys.byteorder == "big":
            numbers = array.array("H" if self._element == pa.float16() else "I", data)
            numbers.byteswap()
            data = numbers.tobytes()
        values = pa.Array.from_buffers(self._element, len(vectors) * self.dimensions, [None, pa.py_buffer(data)])
        mask = pa.array([vector is None for vector in vectors], pa.bool_())
        return pa.FixedSizeListArray.from_arrays(values, type=self._results.field("embedding").type, mask=mask)

    def _entries(self, rows: pa.Array) -> list[dict[str, Any]]:
        """An entry for each row, with `embedding` or with `error` in words."""
        entries: list[dict[str, Any]] = [{"error": "null"} for _ in range(len(rows))]
        places = [at for at, valid in enumerate(rows.is_valid().to_pylist()) if valid]
        if places:
            for at, entry in zip(places, self._asked(rows.take(pa.array(places, pa.int64())))):
                entries[at] = entry
        return entries

    def _asked(self, rows: pa.Array) -> list[dict[str, Any]]:
        if self.kind == "image":
            body, content_type = _http.form("image", [memoryview(row.as_buffer()) for row in rows])
        else:
            body = json.dumps({"input": [{"text": text} for text in rows.to_pylist()]}).encode()
            content_type = "application/json"
        headers = {**self._headers, "content-type": content_type}
        try:
            document, _ = self._http.ask("POST", self._path, body, headers, _too_late)
        except _http.TooLarge as error:
            if len(rows) == 1:
                # Too much time is the service's own trouble, too many bytes are the row's.
                if "not be finished within" in str(error):
                    raise
                return [{"error": str(error)}]
            half = len(rows) // 2
            return self._asked(rows.slice(0, half)) + self._asked(rows.slice(half))
        data = document["data"]
        if len(data) != len(rows):
            raise ServiceError(f"{len(data)} entries in the answer to {len(rows)} inputs")
        return [entry if "embedding" in entry else {"error": _words(entry)} for entry in data]

    def _judge(self, vectors: list[bytes | None]) -> list[pa.Array]:
        """The best label of each vector and its score."""
        labels: list[str | None] = [None] * len(vectors)
        scores: list[float | None] = [None] * len(vectors)
        places = [at for at, vector in enumerate(vectors) if vector is not None]
        if places:
            good = self._vectors([vectors[at] for at in places])
            numbers = good.cast(pa.list_(pa.float32(), self.dimensions)).to_pylist()
            body = json.dumps({"model": self._name, "embeddings": numbers, "top_k": 1, **self._labels}).encode()
            headers = {**self._headers, "content-type": "application/json"}
            document, _ = self._http.ask("POST", "/v1/classify", body, headers, _too_late)
            if len(document["data"]) != len(places):
                raise ServiceError(f"{len(document['data'])} entries in the answer to {len(places)} embeddings")
            for at, entry in zip(places, document["data"]):
                labels[at], scores[at] = entry["prediction"], entry["score"]
        return [pa.array(labels, pa.string()), pa.array(scores, pa.float32())]


def _entries(document: Any, model: str | None) -> list[Any]:
    return [entry for entry in document["data"] if model in (None, entry["id"], entry.get("source"))]


def _not_loaded(document: Any, model: str | None) -> str | None:
    for entry in _entries(document, model)[:1]:
        if not (entry.get("fingerprint") and entry.get("dimensions")):
            return f"the model {entry['id']} is not loaded"
    return None


def _too_late(document: Any) -> str | None:
    errors = [entry.get("error") for entry in document["data"]]
    late = any(isinstance(error, dict) and error.get("code") == _TOO_LATE for error in errors)
    return "the service had no time for some inputs" if late else None


def _words(entry: dict[str, Any]) -> str:
    """What the service says of an input, without the input's place in the request, which is no place of a table."""
    error = entry.get("error")
    message = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    return _PLACE.sub("", message)
