"""Ray Data: a class for `map_batches`.

    dataset.map_batches(
        siglip_client.ray.Embed,
        fn_constructor_kwargs={"model": "google/siglip2-base-patch16-224"},
        batch_format="pyarrow", batch_size=512, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=4,
    )
"""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa

from .columns import variable_lists
from .opening import connect


class Embed:
    """An actor's worker or connection; each call gives a batch its columns `embedding` and `error`.

    `embedding` is a list without a fixed length, which every version of pyarrow reads back from Parquet.

    `options` are those of `siglip_client.connect`: `model=` for a worker of each actor, `url=` for a running service.

    If the worker dies, the batch fails with WorkerError and the next call starts another one, so that a block may be tried again:

        context = ray.data.DataContext.get_current()
        context.retried_map_errors, context.max_map_retries = True, 3
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._embedder = connect(**options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        # An actor may have several calls at once.
        with self._lock:
            if not self._embedder.usable:
                self._embedder.close()
                self._embedder = connect(**self._options)
        return variable_lists(self._embedder.embed(batch))
