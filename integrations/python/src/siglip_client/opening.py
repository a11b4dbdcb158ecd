"""A worker or a service, by the options that an engine carries to its processes."""

from __future__ import annotations

import os
import pickle
import threading
from typing import Any

from .embedder import Embedder
from .service import Service
from .worker import Worker

_lock = threading.Lock()
_open: dict[bytes, Embedder] = {}


def connect(model: str | None = None, *, url: str | None = None, **options: Any) -> Embedder:
    """A Service if there is a `url`, else a Worker, which needs a `model`; `options` are those of its class."""
    if url is not None:
        return Service(url, model=model, **options)
    if model is None:
        raise ValueError("name a model (`demo` is the embedded one), or the url of a running service")
    return Worker(model, **options)


def shared(model: str | None = None, *, url: str | None = None, **options: Any) -> Embedder:
    """As `connect`, but one for all in this process who ask for the same; it ends with the process.

    One that has failed is replaced by a new one when it is asked for next.
    """
    key = pickle.dumps((os.getpid(), model, url, sorted(options.items())))
    # Only one of those who ask at once loads the model; the others wait for it.
    with _lock:
        embedder = _open.get(key)
        if embedder is None or not embedder.usable:
            if embedder is not None:
                embedder.close()
            embedder = _open[key] = connect(model, url=url, **options)
        return embedder
