"""Requests to a service: kept connections, and coming again when it says so."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any

from .errors import FingerprintError, ServiceError

#: Answers after which the same request may be sent again.
AGAIN = {408, 429, 502, 503, 504}
#: Bytes of an answer at most.
ANSWER_BYTES = 256 << 20


class TooLarge(ServiceError):
    """The service never takes a request of this size (413)."""


class Http:
    """Requests to one service, from any thread. Connections are kept, as many as requests were made at once."""

    def __init__(self, url: str, api_key: str | None, timeout: float, retry_for: float) -> None:
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not the address of a service: http://host:port")
        self.url = urllib.parse.urlunsplit(parts).rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = {"accept": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._timeout = timeout
        self._retry_for = retry_for
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = threading.Event()

    def close(self) -> None:
        """Ends connections, and waiting for a service that said to come again."""
        with self._lock:
            self._closed.set()
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        unusable: Callable[[Any], str | None] = lambda _: None,
    ) -> tuple[Any, str]:
        """The document and the fingerprint of an answer.

        A refusal that may pass (429, 503, no connection, an answer that `unusable` says something of) is asked again for
        `retry_for` seconds.
        Raises TooLarge, FingerprintError or ServiceError.
        """
        deadline = time.monotonic() + self._retry_for
        pause = 0.2
        while True:
            if self._closed.is_set():
                raise ServiceError("the client was closed")
            try:
                status, answer, data = self._once(method, path, body, {**self._headers, **(headers or {})})
                if status == 200:
                    document = json.loads(data)
                    why = unusable(document)
                    if why is None:
                        return document, answer.get("x-siglip-fingerprint") or ""
                    error, wait = ServiceError(f"{self.url}{path}: {why}", status), None
                else:
                    error = _refusal(f"{self.url}{path}", status, data)
                    if status not in AGAIN:
                        raise error
                    wait = _seconds(answer.get("retry-after"))
            except (OSError, http.client.HTTPException) as problem:
                what = str(problem) or type(problem).__name__
                error, wait = ServiceError(f"{self.url}{path} cannot be reached: {what}"), None
            except ValueError as problem:
                raise ServiceError(f"{self.url}{path}: not an answer of this service: {problem}") from problem
            # Many clients that were refused at once do not come back at once.
            wait = max(wait or 0.0, pause) * random.uniform(1.0, 1.25)
            pause = min(pause * 2, 10.0)
            if time.monotonic() + wait > deadline:
                message = f"{error} (tried again for {self._retry_for:g} s)"
                raise ServiceError(message, error.status)
            self._closed.wait(wait)

    def _once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        with self._lock:
            connection = self._idle.pop() if self._idle else self._connection()
        try:
            connection.request(method, self._base + path, body, headers)
            answer = connection.getresponse()
            data = answer.read(ANSWER_BYTES + 1)
            if len(data) > ANSWER_BYTES:
                raise ValueError(f"more than {ANSWER_BYTES} bytes")
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if not self._closed.is_set():
                self._idle.append(connection)
                return answer.status, answer.headers, data
        connection.close()
        return answer.status, answer.headers, data

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)


def form(field: str, files: list[bytes | memoryview]) -> tuple[bytes, str]:
    """A multipart form with one file a part, and its content type."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="f"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    parts: list[bytes | memoryview] = []
    for file in files:
        parts += [head, file, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _refusal(where: str, status: int, data: bytes) -> ServiceError:
    try:
        message = str(json.loads(data)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        message = data[:500].decode("utf-8", "replace") or http.client.responses.get(status, "")
    if status == 412:
        return FingerprintRefusal(message, status)
    kind = TooLarge if status == 413 else ServiceError
    return kind(f"{where}: {status}: {message}", status)


class FingerprintRefusal(FingerprintError, ServiceError):
    """The service's model is another one than that which the vectors are for (412)."""


def _seconds(text: str | None) -> float | None:
    """Of Retry-After; a date is passed over, the service sends none."""
    try:
        return min(max(float(text), 0.0), 60.0) if text else None
    except ValueError:
        return None
