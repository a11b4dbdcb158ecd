"""How long one text takes while a bulk job saturates the service, beside what it takes alone.

    python3 tests/load/beside.py target/release/siglip --model MODEL [--seconds 20] [-- FLAGS OF serve]

Starts the service, asks for one new text at a time for a while, then again while `--clients` clients send pictures without
pause, `--pictures` of them per request. Prints the percentiles and exits with 1 if the 95th of the second is more than
twice that of the first plus one batch of pictures. Needs nothing but Python.
"""

import argparse
import http.client
import itertools
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PICTURE = HERE.parent / "fixtures" / "images" / "420.jpg"
NUMBERS = itertools.count()


def start(binary: str, model: str, flags: list[str]) -> tuple[subprocess.Popen, str]:
    """The service and its address, once it is ready."""
    command = [binary, "serve", "--model", model, "--port", "0", "--log-format", "text", *flags]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    base = None
    for line in server.stderr:
        found = re.search(r"listening on (http://[0-9.:]+)", line)
        if found:
            base = found[1]
            break
    if base is None:
        sys.exit("the service did not start")
    threading.Thread(target=lambda: [None for _ in server.stderr], daemon=True).start()
    while True:
        try:
            urllib.request.urlopen(f"{base}/health/ready", timeout=5).read()
            return server, base
        except OSError:
            time.sleep(0.2)


def post(connection: http.client.HTTPConnection, path: str, body: bytes, kind: str) -> int:
    connection.request("POST", path, body, {"content-type": kind})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def text(connection: http.client.HTTPConnection) -> float:
    """Seconds of one text that was never sent before."""
    body = json.dumps({"input": f"a photo of thing number {next(NUMBERS)} {time.time_ns()}"}).encode()
    began = time.perf_counter()
    status = post(connection, "/v1/embeddings", body, "application/json")
    assert status == 200, f"a text was answered with {status}"
    return time.perf_counter() - began


def texts(host: str, seconds: float, pause: float) -> list[float]:
    connection, end, times = http.client.HTTPConnection(host, timeout=300), time.perf_counter() + seconds, []
    while time.perf_counter() < end or len(times) < 20:
        times.append(text(connection))
        time.sleep(pause)
    return sorted(times)


def form(picture: bytes, count: int) -> tuple[bytes, str]:
    part = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + picture + b"\r\n"
    return part * count + b"--x--\r\n", "multipart/form-data; boundary=x"


class Bulk(threading.Thread):
    """Sends pictures without pause."""

    def __init__(self, host: str, body: bytes, kind: str, count: int):
        super().__init__(daemon=True)
        self.host, self.body, self.kind, self.count = host, body, kind, count
        self.done, self.over = 0, threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=600)
        while not self.over.is_set():
            status = post(connection, "/v1/embeddings/images?encoding_format=base64", self.body, self.kind)
            if status == 200:
                self.done += self.count
            else:
                time.sleep(0.2)


def metric(base: str, name: str, **labels: str) -> float:
    total = 0.0
    for line in urllib.request.urlopen(f"{base}/metrics", timeout=30).read().decode().splitlines():
        found = re.match(rf"{name}(?:{{(.*)}})? (\S+)$", line)
        if found and all(f'{k}="{v}"' in (found[1] or "") for k, v in labels.items()):
            total += float(found[2])
    return total


def batches(base: str) -> tuple[float, float]:
    name = "siglip_inference_duration_seconds"
    return metric(base, f"{name}_sum", lane="image"), metric(base, f"{name}_count", lane="image")


def images(base: str) -> float:
    return metric(base, "siglip_items_total", lane="image", outcome="ok")


def percentile(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("flags", nargs="*", help="more flags of serve, after --")
    args = parser.parse_args()
    server, base = start(args.binary, args.model, args.flags)
    host = base.removeprefix("http://")
    try:
        texts(host, 2, 0)
        alone = texts(host, args.seconds, 0.02)
        body, kind = form(PICTURE.read_bytes(), args.pictures)
        bulk = [Bulk(host, body, kind, args.pictures) for _ in range(args.clients)]
        for client in bulk:
            client.start()
        while images(base) == 0:
            time.sleep(0.1)
        time.sleep(2)
        (spent, count), done, began = batches(base), images(base), time.perf_counter()
        beside = texts(host, args.seconds, 0.02)
        took = time.perf_counter() - began
        (spent_then, count_then), done_then = batches(base), images(base)
        for client in bulk:
            client.over.set()
    finally:
        server.kill()
        server.wait()
    batch = (spent_then - spent) / max(count_then - count, 1)
    print(f"{args.model}, {args.clients} clients with {args.pictures} pictures per request, {' '.join(args.flags)}")
    for name, times in [("alone", alone), ("beside", beside)]:
        p50, p95, p99 = (1e3 * percentile(times, share) for share in (0.5, 0.95, 0.99))
        print(f"  text {name:<7} p50 {p50:8.1f} ms  p95 {p95:8.1f} ms  p99 {p99:8.1f} ms  of {len(times)}")
    print(f"  pictures {(done_then - done) / took:.1f} per second, a batch of them takes {1e3 * batch:.0f} ms")
    bar = 2 * percentile(alone, 0.95) + batch
    kept = percentile(beside, 0.95) <= bar
    print(f"  bar: p95 at most {1e3 * bar:.0f} ms: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
