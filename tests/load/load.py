"""Concurrency 1 and 32 with 640×480 JPEGs, ten times overload, and clients that leave. Prints a table; exits with 1
if a promise is not kept."""

import argparse
import asyncio
import collections
import json
import math
import pathlib
import random
import re
import statistics
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from PIL import Image

QUEUE = 64  # --max-queue-items of the server
WRK = """
wrk.method = "POST"
wrk.path = "/v1/embeddings/images?encoding_format=base64"
wrk.headers["content-type"] = "image/jpeg"
local file = io.open("PICTURE", "rb")
wrk.body = file:read("*all")
done = function(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.errors.status, bad,
    latency:percentile(50), latency:percentile(99)))
end
"""


def picture(path: pathlib.Path) -> bytes:
    """A JPEG of 640×480 with the detail of a photograph."""
    noise = random.Random(0)
    small = Image.frombytes("RGB", (80, 60), bytes(noise.randrange(256) for _ in range(80 * 60 * 3)))
    small.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    return path.read_bytes()


class Server:
    """What the server says of itself."""

    def __init__(self, base: str, pid: int) -> None:
        self.base, self.pid = base, pid
        url = urllib.parse.urlsplit(base)
        self.host, self.port = url.hostname, url.port

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all series of that name with these labels."""
        text = urllib.request.urlopen(f"{self.base}/metrics", timeout=30).read().decode()
        total = 0.0
        for line in text.splitlines():
            found = re.match(rf"{name}(?:{{(.*)}})? (\S+)$", line)
            if found and all(f'{k}="{v}"' in (found[1] or "") for k, v in labels.items()):
                total += float(found[2])
        return total

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def settle(self, body: bytes) -> None:
        """Waits until nothing is computed any more: wrk leaves its last requests behind, the answer to one more comes after
        the batch that they are in."""
        asyncio.run(one(self, body))
        while self.metric("siglip_queue_depth"):
            time.sleep(0.1)

    def done(self) -> float:
        """Items embedded so far."""
        return self.metric("siglip_items_total", outcome="ok")


class Rate(threading.Thread):
    """Items a second between the first batch that ends while this runs and the last: a whole number of batches, however
    long they take."""

    def __init__(self, server: Server):
        super().__init__(daemon=True)
        self.server, self.ends, self.over = server, [], threading.Event()

    def run(self) -> None:
        before = self.server.done()
        while not self.over.wait(0.25):
            now = self.server.done()
            if now != before:
                self.ends.append((time.perf_counter(), now))
                before = now

    def stop(self) -> float:
        self.over.set()
        self.join()
        if len(self.ends) < 2:
            return 0.0
        (began, first), (ended, last) = self.ends[0], self.ends[-1]
        return (last - first) / (ended - began)


def throughput(server: Server, folder: pathlib.Path, connections: int, seconds: int) -> dict:
    script = folder / "wrk.lua"
    script.write_text(WRK.replace("PICTURE", str(folder / "picture.jpg")))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), server.base]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 120).stdout
    requests, micros, refused, broken, p50, p99 = map(int, re.search(r"RESULT (.*)", out)[1].split())
    return {"rate": requests / (micros / 1e6), "p50": p50 / 1e3, "p99": p99 / 1e3, "refused": refused, "broken": broken}


def head(body: bytes, close: bool = True) -> bytes:
    return (
        "POST /v1/embeddings/images?encoding_format=base64 HTTP/1.1\r\nhost: load\r\ncontent-type: image/jpeg\r\n"
        f"content-length: {len(body)}\r\nconnection: {'close' if close else 'keep-alive'}\r\n\r\n"
    ).encode()


async def one(server: Server, body: bytes) -> tuple[int, float]:
    """Status and seconds of one request; 0 if the connection broke."""
    began = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(head(body) + body)
        answer = await asyncio.wait_for(reader.read(), 180)
        writer.close()
        status = int(answer.split(b" ", 2)[1])
    except (OSError, IndexError, ValueError, TimeoutError):
        status = 0
    return status, time.perf_counter() - began


async def overload(server: Server, body: bytes, requests: int, clients: int) -> dict:
    todo = iter(range(requests))
    answers: list[tuple[int, float]] = []
    peak = server.memory()

    async def client() -> None:
        for _ in todo:
            answers.append(await one(server, body))

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, server.memory())
            await asyncio.sleep(0.1)

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(client() for _ in range(clients)))
    watcher.cancel()
    statuses = collections.Counter(status for status, _ in answers)
    admitted = sorted(seconds for status, seconds in answers if status == 200) or [0.0]
    return {
        "statuses": dict(statuses),
        "p50": statistics.median(admitted),
        "max": admitted[-1],
        "peak": peak,
    }


async def leave(server: Server, body: bytes, clients: int) -> None:
    """So many clients send a request and hang up without waiting for its answer."""

    async def client(i: int) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        # Some leave in the middle of their body, the others after it.
        cut = len(body) // 2 if i % 4 == 0 else len(body)
        writer.write(head(body, close=False) + body[:cut])
        await writer.drain()
        await asyncio.sleep(random.uniform(0.0, 0.1))
        writer.transport.abort()

    await asyncio.gather(*(client(i) for i in range(clients)))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--engine", required=True, help="the last line of siglip bench --batch 1 --json")
    parser.add_argument("--engine32", required=True, help="the same with --batch 32")
    arguments = parser.parse_args()
    server = Server(arguments.base, arguments.pid)
    body = picture(arguments.folder / "picture.jpg")
    engine = {b: json.loads(line)["items_per_second"] for b, line in ((1, arguments.engine), (32, arguments.engine32))}
    rows: list[tuple[str, str, str, bool]] = []

    throughput(server, arguments.folder, 1, 2)  # warm
    alone = throughput(server, arguments.folder, 1, arguments.seconds)
    above = alone["p50"] - 1e3 / engine[1]
    text = f"p50 {alone['p50']:.1f} ms, p99 {alone['p99']:.1f} ms, {above:+.1f} ms to the engine's {1e3 / engine[1]:.1f}"
    rows.append(("concurrency 1", text, "≤ 12 ms above", above <= 12 and not alone["broken"]))

    # At least five batches, how ever slow the machine is.
    rate = Rate(server)
    rate.start()
    many = throughput(server, arguments.folder, 32, max(arguments.seconds, math.ceil(5 * 32 / engine[32])))
    many["rate"] = rate.stop()
    share = many["rate"] / engine[32]
    text = f"{many['rate']:.1f} images/s, p50 {many['p50']:.0f} ms, p99 {many['p99']:.0f} ms, {share:.0%} of the engine's {engine[32]:.1f}"
    fine = share >= 0.85 and not many["broken"] and not many["refused"]
    rows.append(("concurrency 32", text, "≥ 85 % of the engine", fine))

    server.settle(body)
    before, memory = server.done(), server.memory()
    load = asyncio.run(overload(server, body, requests=20 * QUEUE, clients=10 * QUEUE))
    computed = server.done() - before
    statuses = load["statuses"]
    only = set(statuses) <= {200, 429}
    text = ", ".join(f"{n} × {status}" for status, n in sorted(statuses.items()))
    rows.append(("10 × overload", f"{text}; computed {computed:.0f}", "200 or 429, none lost", only and computed == statuses.get(200, 0)))
    bound = QUEUE / many["rate"] + 2
    rows.append(("  admitted", f"p50 {load['p50']:.2f} s, longest {load['max']:.2f} s", f"≤ {bound:.1f} s, the queue's bound", load["max"] <= bound))
    grown = load["peak"] - memory
    rows.append(("  memory", f"{memory:.0f} MiB before, {load['peak']:.0f} MiB at most", "≤ 512 MiB more", grown <= 512))

    server.settle(body)
    before = server.done()
    asyncio.run(leave(server, body, 200))
    began = time.perf_counter()
    while (left := server.metric("siglip_queue_depth")) + server.metric("siglip_inflight_requests") > 1 and time.perf_counter() - began < 30:
        time.sleep(0.05)
    took = time.perf_counter() - began
    computed = server.done() - before
    status, _ = asyncio.run(one(server, body))
    text = f"queue {left:.0f} after {took:.1f} s, {computed:.0f} of 200 computed, next answer {status}"
    rows.append(("200 clients leave", text, "queue 0 within 30 s", left == 0 and took < 30 and status == 200))

    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths)), " ok" if row[3] else " NOT KEPT")
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
