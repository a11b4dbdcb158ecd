"""A soak: good clients whose every answer is checked, beside clients that misbehave. See `soak`."""

import argparse
import base64
import collections
import http.client
import json
import pathlib
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "models/demo/examples"
WARM_UP = 10.0  # seconds before memory is looked at
GOOD, HOSTILE = 4, 6  # threads of each


class Soak:
    """What all threads share."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.seed = port, seed
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0
        pictures = sorted(EXAMPLES.glob("*.png"))
        self.pictures = [path.read_bytes() for path in pictures]
        self.known: dict[str, list[float]] = {}

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def fault(self, what: str) -> None:
        with self.lock:
            self.counts["faults"] += 1
            if len(self.wrong) < 20:
                self.wrong.append(what[:300])

    def address(self, number: int) -> tuple[str, int]:
        """Each client has an address of its own, so that it is a client of its own."""
        return (f"127.0.1.{number + 1}", 0)

    # Good clients.

    def good(self, number: int) -> None:
        chance = random.Random(self.seed * 1000 + number)
        connection = None
        while not self.stop.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(
                    "127.0.0.1", self.port, timeout=90, source_address=self.address(number)
                )
            name, path, kind, body, check = self.request(chance)
            began = time.monotonic()
            try:
                connection.request("POST", path, body, {"content-type": kind})
                answer = connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                if not self.stop.is_set():
                    self.fault(f"{name}: no answer: {error!r}")
                connection = None
                continue
            took = time.monotonic() - began
            with self.lock:
                self.slowest = max(self.slowest, took)
            self.count(f"good {answer.status}")
            if answer.status == 200:
                try:
                    check(json.loads(data))
                except Exception as error:  # noqa: BLE001 - whatever is wrong with an answer is a fault
                    self.fault(f"{name}: a wrong answer: {error!r}: {data[:100]!r}")
            elif answer.status == 429:
                time.sleep(min(2.0, float(answer.headers.get("retry-after", "1"))))
            else:
                self.fault(f"{name}: {answer.status} {data[:200]!r}")
            if chance.random() < 0.05:
                connection.close()
                connection = None
            time.sleep(chance.random() * 0.05)

    def request(self, chance: random.Random):
        kind = chance.choice(["texts", "cached", "picture", "pictures", "classify"])
        if kind == "texts":
            texts = [f"a photo of number {chance.randrange(10**6)}" for _ in range(chance.randrange(1, 9))]
            body = json.dumps({"input": texts}).encode()
            return kind, "/v1/embeddings", "application/json", body, lambda answer: self.vectors(answer, len(texts))
        if kind == "cached":
            text = chance.choice(["a cat", "a dog", "a red car", "a guitar"])
            body = json.dumps({"input": text}).encode()
            return kind, "/v1/embeddings", "application/json", body, lambda answer: self.same(text, answer)
        if kind == "picture":
            place = chance.randrange(len(self.pictures))
            body = self.pictures[place]
            return kind, "/v1/embeddings/images", "image/png", body, lambda answer: self.same(str(place), answer)
        if kind == "pictures":
            chosen = [chance.choice(self.pictures) for _ in range(chance.randrange(2, 6))]
            urls = ["data:image/png;base64," + base64.b64encode(picture).decode() for picture in chosen]
            body = json.dumps({"input": urls}).encode()
            return kind, "/v1/embeddings", "application/json", body, lambda answer: self.vectors(answer, len(urls))
        labels = chance.sample(["cat", "dog", "car", "guitar", "flag", "rocket"], 3)
        picture = base64.b64encode(chance.choice(self.pictures)).decode()
        body = json.dumps({"input": "data:image/png;base64," + picture, "labels": labels}).encode()
        return kind, "/v1/classify", "application/json", body, lambda answer: self.labels(answer, labels)

    def vectors(self, answer, count: int) -> list[list[float]]:
        found = [entry["embedding"] for entry in answer["data"]]
        assert len(found) == count, f"{len(found)} of {count}"
        for vector in found:
            assert abs(sum(x * x for x in vector) - 1.0) < 1e-3, "not of length 1"
        return found

    def same(self, name: str, answer) -> None:
        (vector,) = self.vectors(answer, 1)
        first = self.known.setdefault(name, vector)
        assert sum(a * b for a, b in zip(first, vector)) > 0.999, f"{name} has another vector now"

    def labels(self, answer, labels: list[str]) -> None:
        text = json.dumps(answer)
        assert all(f'"{label}"' in text for label in labels), "a label is missing"

    # Hostile ones. What they are answered does not matter, as long as it is an answer or a closed connection.

    def hostile(self, number: int) -> None:
        chance = random.Random(self.seed * 2000 + number)
        tricks = [
            self.slow_head, self.slow_body, self.leaves, self.does_not_read, self.garbage, self.bomb, self.huge,
            self.many_connections, self.errors, self.expansion,
        ]  # fmt: skip
        while not self.stop.is_set():
            trick = chance.choice(tricks)
            try:
                trick(chance, GOOD + number)
                self.count(f"hostile {trick.__name__}")
            except OSError:
                self.count(f"hostile {trick.__name__} cut off")
            self.stop.wait(chance.random() * 0.1)

    def connect(self, number: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5, source_address=self.address(number))

    def head(self, path: str, length: int, kind: str = "application/json") -> bytes:
        lines = [f"POST {path} HTTP/1.1", "host: x", f"content-type: {kind}", f"content-length: {length}", "", ""]
        return "\r\n".join(lines).encode()

    def slow_head(self, chance: random.Random, number: int) -> None:
        with self.connect(number) as stream:
            for byte in b"GET / HTTP/1.1\r\nx-a: " + b"a" * 20:
                stream.sendall(bytes([byte]))
                if self.stop.wait(0.05):
                    return

    def slow_body(self, chance: random.Random, number: int) -> None:
        with self.connect(number) as stream:
            stream.sendall(self.head("/v1/embeddings", 1 << 20))
            for _ in range(20):
                stream.sendall(b" " * 100)
                if self.stop.wait(0.1):
                    return

    def leaves(self, chance: random.Random, number: int) -> None:
        body = json.dumps({"input": [f"gone {chance.random()}" for _ in range(32)]}).encode()
        with self.connect(number) as stream:
            stream.sendall(self.head("/v1/embeddings", len(body)) + body)
            self.stop.wait(chance.random() * 0.05)

    def does_not_read(self, chance: random.Random, number: int) -> None:
        with self.connect(number) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 50)
            self.stop.wait(2)

    def garbage(self, chance: random.Random, number: int) -> None:
        with self.connect(number) as stream:
            stream.sendall(chance.randbytes(chance.randrange(1, 5000)))
            stream.recv(1000)

    def post(self, number: int, path: str, body: bytes, kind: str = "application/json") -> bytes:
        with self.connect(number) as stream:
            stream.settimeout(90)
            stream.sendall(self.head(path, len(body), kind) + body)
            return stream.recv(65536)

    def bomb(self, chance: random.Random, number: int) -> None:
        """A PNG that says it is enormous."""
        size = (60000).to_bytes(4, "big")
        header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + size + b"\x08\x06\0\0\0"
        self.post(number, "/v1/embeddings/images", header + bytes(100), "image/png")

    def huge(self, chance: random.Random, number: int) -> None:
        with self.connect(number) as stream:
            stream.sendall(self.head("/v1/embeddings", 1 << 40))
            stream.recv(1000)

    def many_connections(self, chance: random.Random, number: int) -> None:
        streams = []
        try:
            for _ in range(80):
                streams.append(self.connect(number))
            self.stop.wait(0.5)
        finally:
            for stream in streams:
                stream.close()

    def errors(self, chance: random.Random, number: int) -> None:
        bodies = [b"", b"[", b"{}", b'{"input": [' + b"[" * 1000, b'{"input": 1}', b'{"input": "x", "model": "none"}']
        bodies += [b'{"' + b"k" * 100_000 + b'": 1}', b'{"input": ' + json.dumps(["x"] * 5000).encode() + b"}"]
        self.post(number, chance.choice(["/v1/embeddings", "/v1/classify", "/v1/score"]), chance.choice(bodies))

    def expansion(self, chance: random.Random, number: int) -> None:
        """A template that would grow to gigabytes."""
        picture = base64.b64encode(self.pictures[0]).decode()
        body = {"input": "data:image/png;base64," + picture, "labels": ["x" * 100_000], "template": "{}" * 5_000}
        self.post(number, "/v1/classify", json.dumps(body).encode())


def resident(pid: int) -> int:
    """Bytes of the process in RAM."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024


def start(binary: str, folder: pathlib.Path) -> tuple[subprocess.Popen, int]:
    log = folder / "log"
    arguments = [
        binary, "serve", "--port", "0", "--log-format", "json", "--log", "info,siglip::access=warn",
        "--max-connections", "256", "--header-timeout", "5s", "--body-timeout", "5s", "--drain-timeout", "20s",
        "--max-memory", "512MiB",
        # Full within the first third: a cache that fills is no leak.
        "--text-cache-bytes", "2MiB",
    ]  # fmt: skip
    with log.open("wb") as out:
        server = subprocess.Popen(arguments, stderr=out)
    for _ in range(600):
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text())
        if found and ready(int(found[1])):
            return server, int(found[1])
        if server.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"the service did not start:\n{log.read_text()}")


def ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        server, port = start(options.binary, folder)
        try:
            failed = run(server, port, options)
        finally:
            server.kill()
        if failed:
            print("the end of the log:", *(folder / "log").read_text().splitlines()[-20:], sep="\n")
            sys.exit(1)


def run(server: subprocess.Popen, port: int, options: argparse.Namespace) -> bool:
    soak = Soak(port, options.seed)
    threads = [threading.Thread(target=soak.good, args=(n,)) for n in range(GOOD)]
    threads += [threading.Thread(target=soak.hostile, args=(n,)) for n in range(HOSTILE)]
    for thread in threads:
        thread.start()
    began, samples, probes = time.monotonic(), [], []
    seconds = options.minutes * 60
    while (now := time.monotonic() - began) < seconds and server.poll() is None:
        if now >= min(WARM_UP, seconds / 10):
            samples.append((now, resident(server.pid)))
        asked = time.monotonic()
        if not ready(port):
            soak.fault("the probe was not answered with 200")
        probes.append(time.monotonic() - asked)
        if int(now) % 60 == 0:
            print(f"{now:6.0f} s, {resident(server.pid) / 2**20:.0f} MiB, {dict(soak.counts)}", flush=True)
        time.sleep(1)
    crashed = server.poll() is not None
    soak.stop.set()
    for thread in threads:
        thread.join(timeout=120)
    server.send_signal(signal.SIGTERM)
    try:
        code = server.wait(timeout=30)
    except subprocess.TimeoutExpired:
        code = None
    third = (samples[-1][0] - samples[0][0]) / 3
    second = [size for at, size in samples if samples[0][0] + third <= at < samples[0][0] + 2 * third]
    last = [size for at, size in samples if at >= samples[0][0] + 2 * third]
    growth = statistics.mean(last) / statistics.mean(second) - 1
    print("\ncounts:", json.dumps(soak.counts, indent=2, sort_keys=True))
    print(f"slowest good answer {soak.slowest:.1f} s; slowest probe {max(probes):.2f} s")
    print(f"memory: second third {statistics.mean(second) / 2**20:.1f} MiB, last third {statistics.mean(last) / 2**20:.1f} "
          f"MiB ({growth:+.2%}), most {max(size for _, size in samples) / 2**20:.1f} MiB")
    print(f"SIGTERM: exit {code}")
    failures = []
    if crashed:
        failures.append(f"the service ended by itself with {server.returncode}")
    if soak.wrong:
        failures.append("requests went wrong:\n  " + "\n  ".join(soak.wrong))
    if growth > 0.02:
        failures.append(f"memory grew by {growth:.2%}")
    if code != 0:
        failures.append(f"SIGTERM: exit {code}")
    for failure in failures:
        print("FAILED:", failure)
    return bool(failures)


if __name__ == "__main__":
    main()
