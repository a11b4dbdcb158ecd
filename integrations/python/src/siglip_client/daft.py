"""Daft (0.7): a provider for `embed_image`, `embed_text` and `classify_image`.

    provider = siglip_client.daft.SiglipProvider()
    frame.with_column("vector", embed_image(col("bytes"), provider=provider, model="google/siglip2-base-patch16-224"))

`embed_image` takes encoded files (a binary column) as well as decoded pictures. Give it the files: Daft decodes some of them
otherwise than the model was trained with.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import pyarrow as pa
from daft import DataType
from daft.ai.protocols import (
    ImageClassifier,
    ImageClassifierDescriptor,
    ImageEmbedder,
    ImageEmbedderDescriptor,
    TextEmbedder,
    TextEmbedderDescriptor,
)
from daft.ai.provider import Provider
from daft.ai.typing import Descriptor, EmbeddingDimensions, UDFOptions

from ._png import png
from .columns import Kind
from .embedder import Embedder
from .errors import InputError
from .opening import shared

_log = logging.getLogger("siglip_client")
T = TypeVar("T")

#: Options of a call that are Daft's own.
_DAFT = ("batch_size", "max_retries", "on_error", "concurrency", "num_gpus")
BATCH_SIZE = 256


class SiglipProvider(Provider):
    """`options` are those of `siglip_client.connect`; those of a call (`embed_image(…, flags=[…])`) come before them.

    A row that cannot be embedded is null, and the log says why; with `on_error="raise"` it is an error.
    All that Daft runs in one process shares one worker for pictures, and one for texts.
    """

    def __init__(self, name: str | None = None, **options: Any) -> None:
        self._name = name or "siglip"
        self._options = options

    @property
    def name(self) -> str:
        return self._name

    def get_text_embedder(
        self, model: str | None = None, dimensions: int | None = None, **options: Any
    ) -> TextEmbedderDescriptor:
        descriptor = _TextEmbedder(self._name, *self._all(model, options))
        if dimensions not in (None, descriptor.get_dimensions().size):
            width = descriptor.get_dimensions().size
            raise ValueError(f"the vectors have {width} numbers, not {dimensions}: SigLIP's are not for shortening")
        return descriptor

    def get_image_embedder(self, model: str | None = None, **options: Any) -> ImageEmbedderDescriptor:
        return _ImageEmbedder(self._name, *self._all(model, options))

    def get_image_classifier(self, model: str | None = None, **options: Any) -> ImageClassifierDescriptor:
        return _ImageClassifier(self._name, *self._all(model, options))

    def _all(self, model: str | None, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `connect` gets, and what Daft does."""
        merged = {**self._options, **options, **({"model": model} if model else {})}
        ours = {key: value for key, value in merged.items() if key not in _DAFT}
        return ours, {key: value for key, value in merged.items() if key in _DAFT}


@dataclass
class _Described(Descriptor[T], Generic[T]):
    """What goes to Daft's processes, to be made into a model there."""

    provider: str
    options: dict[str, Any]
    daft: dict[str, Any] = field(default_factory=dict)

    def get_provider(self) -> str:
        return self.provider

    def get_model(self) -> str:
        return str(self.options.get("model") or self.options.get("url"))

    def get_options(self) -> dict[str, Any]:
        return dict(self.options)

    def get_udf_options(self) -> UDFOptions:
        return UDFOptions(**{"batch_size": BATCH_SIZE, **self.daft})

    @property
    def _on_error(self) -> str:
        return str(self.daft.get("on_error", "ignore"))

    def _dimensions(self, kind: Kind) -> EmbeddingDimensions:
        # The driver asks before anything runs. It is the worker that will do the work, where Daft runs in this process.
        return EmbeddingDimensions(shared(kind=kind, **self.options).dimensions, DataType.float32())


class _TextEmbedder(_Described[TextEmbedder], TextEmbedderDescriptor):
    def get_dimensions(self) -> EmbeddingDimensions:
        return self._dimensions("text")

    def instantiate(self) -> TextEmbedder:
        return _Model("text", self.options, self._on_error)


class _ImageEmbedder(_Described[ImageEmbedder], ImageEmbedderDescriptor):
    def get_dimensions(self) -> EmbeddingDimensions:
        return self._dimensions("image")

    def instantiate(self) -> ImageEmbedder:
        return _Model("image", self.options, self._on_error)


class _ImageClassifier(_Described[ImageClassifier], ImageClassifierDescriptor):
    def instantiate(self) -> ImageClassifier:
        return _Classifier(self.options, self._on_error)


class _Model:
    """Embeds lists, as Daft gives them."""

    def __init__(self, kind: Kind, options: dict[str, Any], on_error: str) -> None:
        self._kind: Kind = kind
        self._options = options
        self._on_error = on_error
        self._embedder()

    def _embedder(self) -> Embedder:
        return shared(kind=self._kind, **self._options)

    def embed_text(self, text: list[str]) -> list[Any]:
        return self._embed(pa.array(text, pa.large_string()))

    def embed_image(self, images: list[Any]) -> list[Any]:
        return self._embed(pa.array([_file(image) for image in images], pa.large_binary()))

    def _embed(self, rows: pa.Array) -> list[Any]:
        embedder = self._embedder()
        answer = embedder.embed(pa.record_batch([rows], names=[embedder.column]))
        _report(answer, self._on_error)
        vectors = answer.column("embedding")
        numbers = vectors.flatten().to_numpy().reshape(-1, embedder.dimensions)
        rows_of_numbers = iter(numbers.astype("float32", copy=False))
        return [next(rows_of_numbers) if there else None for there in vectors.is_valid().to_pylist()]


class _Classifier:
    """Classifies lists of pictures, with the labels that come with them."""

    def __init__(self, options: dict[str, Any], on_error: str) -> None:
        self._options = options
        self._on_error = on_error

    def classify_image(self, image: list[Any], labels: str | list[str]) -> list[Any]:
        labels = [labels] if isinstance(labels, str) else list(labels)
        rows = pa.array([_file(picture) for picture in image], pa.large_binary())
        answer = self._embedder(labels).embed(pa.record_batch([rows], names=["image"]))
        _report(answer, self._on_error)
        return list(answer.column("label").to_pylist())

    def _embedder(self, labels: list[str]) -> Embedder:
        if "url" in self._options:
            return shared(**self._options, labels=labels)
        return shared(**self._options, label_set=_label_file(tuple(labels)))


_label_files: dict[tuple[str, ...], Any] = {}


def _label_file(labels: tuple[str, ...]) -> str:
    """A file with these labels, which is removed with the process."""
    file = _label_files.get(labels)
    if file is None or not os.path.exists(file.name):
        file = tempfile.NamedTemporaryFile("w", prefix="siglip-labels-", suffix=".json", encoding="utf-8")
        json.dump(list(labels), file)
        file.flush()
        _label_files[labels] = file
    return file.name


def _file(image: Any) -> bytes | None:
    return image if image is None or isinstance(image, bytes) else png(image)


def _report(answer: pa.RecordBatch, on_error: Literal["raise"] | str) -> None:
    errors = [error for error in answer.column("error").to_pylist() if error is not None]
    if not errors:
        return
    message = f"{len(errors)} of {answer.num_rows} rows cannot be embedded, such as: {errors[0]}"
    if on_error == "raise":
        raise InputError(message)
    _log.warning("%s", message)
