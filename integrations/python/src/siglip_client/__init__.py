"""SigLIP embeddings of tables, by one `siglip worker` or a running service.

    with Worker("google/siglip2-base-patch16-224") as worker:
        table = worker.embed(table)             # a pyarrow table with the column `image`

`siglip_client.ray`, `.spark` and `.daft` are for the engines of these names; docs/clusters.md has an example of each.
"""

from __future__ import annotations

from .columns import Kind
from .embedder import Embedder
from .errors import FingerprintError, InputError, ServiceError, SiglipError, WorkerError
from .opening import connect, shared
from .service import Service
from .worker import Worker

__all__ = [
    "Embedder",
    "FingerprintError",
    "InputError",
    "Kind",
    "Service",
    "ServiceError",
    "SiglipError",
    "Worker",
    "WorkerError",
    "connect",
    "shared",
]
