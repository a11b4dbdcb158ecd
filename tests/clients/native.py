"""What our own routes give, for comparison; and a service that is full for a moment."""

import base64
import contextlib
import http.server
import math
import threading

import requests


def url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def vectors(base: str, inputs: list) -> list[list[float]]:
    """Embeddings of texts and of pictures (bytes), by the native route."""
    inputs = [{"image": base64.b64encode(x).decode()} if isinstance(x, bytes) else x for x in inputs]
    answer = requests.post(f"{base}/v1/embeddings", json={"input": inputs}, timeout=60)
    assert answer.ok, answer.text
    return [entry["embedding"] for entry in answer.json()["data"]]


def same(ours, theirs, length: bool = True) -> None:
    """Checks that rows are equal: cosine at least 0.999999, and of length 1."""
    assert len(ours) == len(theirs), (len(ours), len(theirs))
    for a, b in zip(ours, theirs):
        a, b = [float(x) for x in a], [float(x) for x in b]
        norms = math.sqrt(math.fsum(x * x for x in a)), math.sqrt(math.fsum(x * x for x in b))
        cosine = math.fsum(x * y for x, y in zip(a, b)) / (norms[0] * norms[1])
        assert len(a) == len(b) and cosine >= 0.999999, (len(a), len(b), cosine)
        assert not length or abs(norms[1] - 1) < 1e-4, norms


def raises(kind, call, part: str = "", **attributes):
    """Checks that a call raises that client's exception, and that its text names what was wrong."""
    try:
        call()
    except kind as error:
        for name, value in attributes.items():
            assert getattr(error, name) == value, (name, getattr(error, name), error)
        assert part in f"{error} {error.args} {getattr(error, 'body', '')}", (part, error)
        return error
    raise AssertionError(f"{kind.__name__} was expected")


@contextlib.contextmanager
def full_once(base: str, shape):
    """A server in front of the service that answers the first request with 429 and the body that `shape` makes."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append(self.path)
            if len(seen) == 1:
                import json

                status, kind, content = 429, "application/json", json.dumps(shape("full")).encode()
            else:
                kept = {name: self.headers[name] for name in ("content-type", "authorization") if name in self.headers}
                answer = requests.post(f"{base}{self.path}", data=body, headers=kept, timeout=60)
                status, kind, content = answer.status_code, answer.headers["content-type"], answer.content
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.send_header("retry-after", "1")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
        assert len(seen) == 2, seen
    finally:
        server.shutdown()
