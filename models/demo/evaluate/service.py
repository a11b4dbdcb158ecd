"""A `siglip` service that evaluations ask: one that runs already, or one that is started for them."""

import argparse
import base64
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

PICTURES_PER_REQUEST = 32
VECTORS_PER_REQUEST = 500  # the service takes 512 unless it is told otherwise


def run(description: str, evaluate: Callable[["Server", argparse.Namespace], dict],
        add_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """An evaluation as a command. It gives its figures; what `missed` says of them is below a bar, and the command fails."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--siglip", default="siglip", help="the binary")
    parser.add_argument("--server", help="the address of a running server, instead of the binary")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    add_options(parser)
    arguments = parser.parse_args()
    server = Server(arguments)
    try:
        figures = evaluate(server, arguments)
    finally:
        server.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    if figures["missed"]:
        raise SystemExit(f"below the bar: {', '.join(figures['missed'])}")


class Server:
    """A running server, or one that is started for the evaluation."""

    def __init__(self, arguments: argparse.Namespace):
        self.process, self.model, self.binary = None, arguments.model, arguments.siglip
        self.url = arguments.server.rstrip("/") if arguments.server else None
        self.is_own = self.url is None
        if self.is_own:
            self.start()

    def start(self, *options: str) -> None:
        """Starts the binary, again where it runs already."""
        self.stop()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # In f32 whatever the machine has, so that figures can be compared.
        command = [self.binary, "serve", "--model", self.model, "--dtype", "f32", "--port", str(port), "--log", "warn",
                   *options]
        self.process = subprocess.Popen(command)
        self.url = f"http://127.0.0.1:{port}"
        self._wait()

    def _wait(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health/ready"):
                    return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server is not ready after a minute")

    def send(self, method: str, route: str, body: dict | None = None) -> dict:
        """The answer to one request."""
        data = None if body is None else json.dumps({"model": self.model} | body).encode()
        request = urllib.request.Request(self.url + route, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {route}: {error} {error.read(2000).decode()}") from error
        return json.loads(answer or b"{}")

    def post(self, route: str, body: dict) -> tuple[dict, float]:
        """The answer, and the seconds that it took."""
        start = time.perf_counter()
        answer = self.send("POST", route, body)
        return answer, time.perf_counter() - start

    def images(self, pictures: list[Path | bytes]) -> np.ndarray:
        """Embeddings of pictures, `[pictures, width]`, f32 of length 1."""
        files = (picture if isinstance(picture, bytes) else picture.read_bytes() for picture in pictures)
        return self._embeddings([{"image": base64.b64encode(file).decode()} for file in files])

    def texts(self, texts: list[str]) -> np.ndarray:
        """Embeddings of texts, `[texts, width]`, f32 of length 1."""
        return self._embeddings([{"text": text} for text in texts])

    def _embeddings(self, items: list[dict]) -> np.ndarray:
        rows = []
        for part in parts(items, PICTURES_PER_REQUEST):
            answer = self.send("POST", "/v1/embeddings", {"input": part, "encoding_format": "base64"})
            rows += [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in answer["data"]]
        return np.stack(rows)

    def scale_and_bias(self) -> tuple[float, float]:
        """What makes a logit of a cosine: scale and bias of the model, as the service says them."""
        answer = self.send("GET", f"/v1/models/{self.model}")
        return answer["logit_scale"], answer["logit_bias"]

    def put_labels(self, name: str, labels: list[str], templates: list[str]) -> None:
        """Stores a label set and waits until it is encoded."""
        body = {"labels": labels, "templates": templates}
        answer = self.send("PUT", f"/v1/label-sets/{name}?wait=true", body)
        states = [state["state"] for state in answer["models"] if state["model"] == self.model]
        if states != ["ready"]:
            raise SystemExit(f"label set {name} is not encoded: {states}")

    def classify(self, vectors: np.ndarray, body: dict) -> list[dict]:
        """What `/v1/classify` answers to stored embeddings, one entry for each."""
        entries = []
        for part in parts(vectors, VECTORS_PER_REQUEST):
            entries += self.send("POST", "/v1/classify", body | {"embeddings": [encoded(row) for row in part]})["data"]
        return entries

    def stop(self) -> None:
        """Ends the server if it was started here."""
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None


def encoded(vector: np.ndarray) -> str:
    """An embedding as the service reads it: base64 of little-endian f32."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def parts(items, size: int) -> list:
    """The items in groups of at most `size`."""
    return [items[i:i + size] for i in range(0, len(items), size)]
