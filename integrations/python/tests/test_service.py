from __future__ import annotations

import base64
import http.server
import json
import os
import re
import struct
import subprocess
import tempfile
import threading
import time
import unittest
from typing import Any, ClassVar

import pyarrow as pa

from siglip_client import FingerprintError, Service, ServiceError, Worker, connect

from .common import PICTURES, table


class Scripted(http.server.ThreadingHTTPServer):
    """A service of two numbers a vector: the row's length and 1. `answers` are what it says first: a status, or a word."""

    daemon_threads = True

    def __init__(self, *answers: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.fingerprint = "f1"
        self.largest = 100_000
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *error: Any) -> None:
        self.shutdown()
        super().__exit__(*error)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, document: Any, **headers: str) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        entry = {"id": "m", "fingerprint": self.server.fingerprint, "dimensions": 2, "dtype": "f32"}
        self.reply(200, {"data": [entry]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers)))
            answer = self.server.answers.pop(0) if self.server.answers else 200
        if answer == "reset":
            self.close_connection = True
            return
        if answer in (429, 503):
            return self.reply(answer, {"error": {"message": "busy"}}, retry_after="0")
        if answer != 200 and isinstance(answer, int):
            return self.reply(answer, {"error": {"message": "no"}})
        if self.headers["x-siglip-expect-fingerprint"] != self.server.fingerprint:
            return self.reply(412, {"error": {"message": "another space"}})
        if len(body) > self.server.largest:
            return self.reply(413, {"error": {"message": "too large"}})
        boundary = re.search("boundary=(.*)", self.headers["content-type"])[1].encode()  # type: ignore[index]
        parts = body.split(b"--" + boundary)[1:-1]
        rows = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in parts]
        data: list[dict[str, Any]] = []
        for row in rows:
            vector = base64.b64encode(struct.pack("<2f", len(row), 1.0)).decode()
            data.append({"embedding": vector})
        if answer == "late":
            data[0] = {"object": "error", "error": {"code": "deadline_exceeded", "message": "late"}}
        if answer == "short":
            data.pop()
        self.reply(200, {"data": data})


class Requests(unittest.TestCase):
    ROWS: ClassVar[list[bytes | None]] = [b"x" * n for n in range(100)]

    def embed(self, server: Scripted, rows: list[bytes | None] | None = None, **options: Any) -> pa.Table:
        with Service(server.url, **{"retry_for": 20, **options}) as service:
            return service.embed(table(self.ROWS if rows is None else rows))

    def lengths(self, out: pa.Table) -> list[float | None]:
        return [None if vector is None else vector[0] for vector in out["embedding"].to_pylist()]

    def test_what_passes_is_tried_again(self) -> None:
        for answers in [(429,), (503, 429), ("reset",), ("late",), (502, 504, "reset", "late")]:
            with Scripted(*answers) as server:
                out = self.embed(server)
                self.assertEqual(self.lengths(out), list(range(100)), answers)
                self.assertEqual(len(server.seen), 2 + len(answers))

    def test_what_does_not_pass_is_an_error(self) -> None:
        for answers, options, words in [
            ((401,), {}, r"/v1/embeddings/images.*: 401: no"),
            ((500,), {}, "500: no"),
            (("short",), {}, "63 entries in the answer to 64 inputs|35 entries in the answer to 36"),
            ([429] * 100, {"retry_for": 1}, r"429: busy \(tried again for 1 s\)"),
            (["reset"] * 100, {"retry_for": 1}, r"cannot be reached: .*tried again for 1 s"),
        ]:
            with Scripted(*answers) as server, self.assertRaisesRegex(ServiceError, words):
                self.embed(server, **options)

    def test_what_is_too_large_is_halved(self) -> None:
        rows: list[bytes | None] = [b"x" * 4000, None, b"y" * 3000, b"z" * 20_000, b"w"]
        with Scripted() as server:
            server.largest = 10_000
            out = self.embed(server, rows)
        self.assertEqual(self.lengths(out), [4000, None, 3000, None, 1])
        errors = out["error"].to_pylist()
        self.assertEqual(errors[1], "null")
        self.assertRegex(errors[3], "413: too large")
        self.assertEqual([at for at, error in enumerate(errors) if error], [1, 3])

    def test_a_model_that_changes_meanwhile(self) -> None:
        with Scripted() as server, Service(server.url) as service:
            self.assertEqual(service.fingerprint, "f1")
            service.embed(table([b"x"]))
            server.fingerprint = "f2"
            with self.assertRaisesRegex(FingerprintError, "another space"):
                service.embed(table([b"x"]))
            with self.assertRaisesRegex(FingerprintError, "m gives vectors of the embedding space f2, not of f1"):
                Service(server.url, fingerprint="f1")
            self.assertRaisesRegex(ServiceError, "no model 'n'; it has: m", Service, server.url, model="n")

    def test_keys_names_and_addresses(self) -> None:
        with Scripted() as server:
            self.embed(server, [b"x"], api_key="k")
            path, headers = server.seen[0]
            self.assertEqual(headers["authorization"], "Bearer k")
            self.assertIn("model=m&encoding_format=base64&partial=true", path)
        for url in ["ftp://a", "http://", "http:///v1"]:
            self.assertRaises(ValueError, Service, url)
        started = time.monotonic()
        self.assertRaisesRegex(ServiceError, "cannot be reached", Service, "http://127.0.0.1:1", retry_for=0.5)
        self.assertLess(time.monotonic() - started, 5)
        self.assertRaises(ValueError, connect)

    def test_closing_ends_waiting(self) -> None:
        with Scripted(*[429] * 1000) as server:
            service = Service(server.url, retry_for=600)
            threading.Timer(0.5, service.close).start()
            # More requests than threads: some wait for one.
            with self.assertRaisesRegex(ServiceError, "closed"):
                service.embed(table([b"x"] * 500))
            with self.assertRaisesRegex(ServiceError, "closed"):
                service.embed(table([b"x"]))


class Running(unittest.TestCase):
    """Against the program."""

    @classmethod
    def setUpClass(cls) -> None:
        command = [os.environ["SIGLIP_BIN"], "serve", "--model", "demo", "--port", "0", "--drain-timeout", "5s"]
        cls.log = tempfile.TemporaryFile("w+")
        cls.server = subprocess.Popen(command, stderr=cls.log)
        found = None
        while not found:
            assert cls.server.poll() is None
            time.sleep(0.05)
            cls.log.seek(0)
            found = re.search(r"listening on (http://[\d.:]+)", cls.log.read())
        cls.url = found[1]

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.terminate()
        assert cls.server.wait(20) == 0
        cls.log.close()

    def test_as_a_worker_gives_it(self) -> None:
        data = table([*PICTURES, None, b"", b"no picture", PICTURES[0][:200]] * 10)
        with connect(url=self.url) as service, Worker("demo") as worker:
            out, expected = service.embed(data), worker.embed(data)
            self.assertEqual((service.fingerprint, service.model), (worker.fingerprint, worker.model))
        self.assertEqual(out.schema.remove_metadata(), expected.schema.remove_metadata())
        self.assertEqual(out["error"], expected["error"])
        for one, other in zip(out["embedding"].to_pylist(), expected["embedding"].to_pylist()):
            self.assertEqual(one is None, other is None)
            if one:
                self.assertLess(max(abs(x - y) for x, y in zip(one, other)), 1e-5)

    def test_texts_labels_and_half_precision(self) -> None:
        with Service(self.url, kind="text", embedding_dtype="f16") as service:
            out = service.embed(pa.table({"text": ["a cat", None, ""]}))
        self.assertEqual(out.schema.field("embedding").type, pa.list_(pa.float16(), 192))
        self.assertEqual(out["error"].to_pylist()[:2], [None, "null"])
        with Service(self.url, labels=["guitar", "red apple"]) as service:
            out = service.embed(table([*PICTURES, b"bad"]))
        self.assertEqual(out["label"].to_pylist()[2:4], ["guitar", "red apple"])
        self.assertEqual(out["score"].to_pylist()[6], None)


if __name__ == "__main__":
    unittest.main()
