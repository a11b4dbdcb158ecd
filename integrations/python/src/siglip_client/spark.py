"""Spark: a function for `mapInArrow`, and the schema that it gives.

    options = {"model": "google/siglip2-base-patch16-224"}
    frame.mapInArrow(siglip_client.spark.embed(**options), siglip_client.spark.output_schema(frame.schema, **options))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .columns import variable_lists
from .opening import shared

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

Batches = Iterable[pa.RecordBatch]


def embed(**options: Any) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    """The function. `options` are those of `siglip_client.connect`.

    Each Python process of an executor has one worker, for all its tasks; there are as many as tasks run at a time, so give each
    its share of the cores: `flags=["--threads", "1"]`. If it dies, the task fails, and Spark's next attempt starts another one.
    """

    def run(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in shared(**options).stream(batches):
            # Spark knows neither lists of a fixed length nor 16-bit floats.
            yield variable_lists(batch, pa.float32())

    return run


def output_schema(
    schema: StructType, *, kind: str = "image", column: str | None = None, keep_input: bool = False, **options: Any
) -> StructType:
    """The schema of the frame that `mapInArrow` gives: the columns of `schema`, then the results'."""
    from pyspark.sql.types import ArrayType, FloatType, StringType, StructField, StructType

    fields = [field for field in schema.fields if keep_input or field.name != (column or kind)]
    added = [StructField("embedding", ArrayType(FloatType())), StructField("error", StringType())]
    if options.get("labels") is not None or options.get("label_set") is not None:
        added += [StructField("label", StringType()), StructField("score", FloatType())]
    return StructType([*fields, *added])
