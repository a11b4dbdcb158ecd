"""`siglip embed` out of an object store: a local S3 server (moto), and a proxy before it that fails. Usage: object_store.py

SIGLIP_BIN is the program. Skipped, and says so, where it was built without the feature `object-store`.
"""

from __future__ import annotations

import glob
import http.client
import http.server
import io
import logging
import os
import pathlib
import subprocess
import tarfile
import tempfile
import threading
import time

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from moto.server import ThreadedMotoServer

import corpus

BUCKET = "pictures"
SECRETS = {"AWS_ACCESS_KEY_ID": "AKIDKEYOFTHETEST", "AWS_SECRET_ACCESS_KEY": "secretsecretofthetest"}


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on, but for those that `fails` says something about: a status, or "close"."""

    daemon_threads = True

    def __init__(self, to: tuple[str, int]) -> None:
        self.to, self.requests, self.largest, self.fails, self.lock = to, 0, 0, lambda number, path: None, threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests += 1
            number = self.server.requests
        failure = self.server.fails(number, self.path)
        if failure == "close":
            self.close_connection = True
            return
        if failure:
            code = "AccessDenied" if failure == 403 else "SlowDown"
            body = f"<Error><Code>{code}</Code><AWSAccessKeyId>{SECRETS['AWS_ACCESS_KEY_ID']}</AWSAccessKeyId></Error>".encode()
            self.send_response(failure)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            return
        connection = http.client.HTTPConnection(*self.server.to)
        connection.request(self.command, self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        body = answer.read()
        self.server.largest = max(self.server.largest, len(body))
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = answer.getheader("content-length") if self.command == "HEAD" else str(len(body))
        self.send_header("content-length", length or "0")
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def embed(endpoint: str, folder: pathlib.Path, *arguments: str, code: int = 0, settings: dict[str, str] | None = None) -> str:
    """What the program says."""
    environment = {"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    environment |= SECRETS | (settings or {})
    command = [os.environ["SIGLIP_BIN"], "embed", "--model", "demo", "--threads", "1", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = threading.Thread(target=memory, args=(process,), daemon=True)
    watch.start()
    _, told = process.communicate(timeout=300)
    watch.join()
    assert process.returncode == code, (process.returncode, told)
    for secret in SECRETS.values():
        assert secret not in told, told
    return told


#: The most that the last run held, in kB.
held = 0


def memory(process: subprocess.Popen) -> None:
    """Watches how much a process holds at most, until it ends."""
    global held
    held = 0
    while process.poll() is None:
        try:
            lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            return
        held = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), held)
        time.sleep(0.02)


def rows(index: pathlib.Path) -> dict[str, tuple]:
    """Every row by its name, each once."""
    found: dict[str, tuple] = {}
    for path in glob.glob(str(index / "*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["name"] not in found, row["name"]
            found[row["name"]] = (row["error"], row["sha256"], tuple(row["embedding"] or ()))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ran = subprocess.run([os.environ["SIGLIP_BIN"], "embed", "s3://x/y", "--model", "demo", "-o", "i"], cwd=folder,
                             env={"PATH": os.environ["PATH"], "AWS_SKIP_SIGNATURE": "true"}, capture_output=True, text=True)
        if "built without object stores" in ran.stderr:
            print("SKIPPED: the program was built without the feature object-store")
            return
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        proxy = Proxy(server.get_host_and_port())
        try:
            check(folder, proxy, f"http://127.0.0.1:{server.get_host_and_port()[1]}")
        finally:
            server.stop()


def check(folder: pathlib.Path, proxy: Proxy, endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    client.create_bucket(Bucket=BUCKET)
    pictures = corpus.pictures(40, 96, "png")
    (folder / "photos/sub").mkdir(parents=True)
    for at, (name, data) in enumerate(pictures.items()):
        place = f"sub/{name}" if at % 3 == 0 else name
        (folder / "photos" / place).write_bytes(data)
        client.put_object(Bucket=BUCKET, Key=f"set/photos/{place}", Body=data)
    for name in ("@eaDir/a.png", "._a.png", "notes.txt", "raw/b.png", "film.mp4"):
        client.put_object(Bucket=BUCKET, Key=f"set/photos/{name}", Body=b"x")
    client.put_object(Bucket=BUCKET, Key="set/photosandmore/c.png", Body=b"of another prefix")

    # The same rows as out of a folder.
    embed(proxy.url, folder, "photos", "-o", "local", "--shard-rows", "10")
    shards = ["--shard-rows", "10", "--exclude", "raw"]
    told = embed(proxy.url, folder, f"s3://{BUCKET}/set/photos", "-o", "index", *shards)
    for line in ("1 .txt, no picture by its name (notes.txt)", "1 videos in object stores (film.mp4)", "1 excluded", "1 folders of the system",
                 "1 files of the system (._a.png)"):
        assert f"not indexed: {line}" in told, told
    expected = rows(folder / "local")
    assert len(expected) == 40 and rows(folder / "index") == expected
    assert "0 rows in 0 new shards" in embed(proxy.url, folder, f"s3://{BUCKET}/set/photos/", "-o", "index", *shards)
    client.put_object(Bucket=BUCKET, Key="set/photos/00001.png", Body=pictures["00002.png"])
    assert "10 rows in 1 new shards" in embed(proxy.url, folder, f"s3://{BUCKET}/set/photos", "-o", "index", *shards)
    client.put_object(Bucket=BUCKET, Key="set/photos/00001.png", Body=pictures["00001.png"])
    print(f"{len(expected)} objects, as out of a folder")

    # Tars and tables, named and found, through a list, too.
    table = pa.table({"image": list(pictures.values())[:20], "id": list(pictures)[:20]})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=7)
    client.put_object(Bucket=BUCKET, Key="tables/t.parquet", Body=sink.getvalue())
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in list(pictures.items())[:20]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        # More than is kept of an object: it passes through.
        junk = tarfile.TarInfo("junk.bin")
        junk.size = 150 << 20
        archive.addfile(junk, io.BytesIO(bytes(junk.size)))
    client.put_object(Bucket=BUCKET, Key="tables/set.tar", Body=tar.getvalue())
    before = held
    embed(proxy.url, folder, f"s3://{BUCKET}/tables", "-o", "tables", "--name-column", "id")
    most = held
    assert 0 < most < before + (96 << 10), f"{most} kB for a tar of 150 MB, {before} kB without"
    assert proxy.largest <= 8 << 20, proxy.largest
    found = rows(folder / "tables")
    assert len(found) == 40 and found["set.tar/00003.png"] == found["00003.png"]
    (folder / "list.txt").write_text(f"s3://{BUCKET}/tables/t.parquet\ns3://{BUCKET}/set/photos/00001.png\n")
    embed(proxy.url, folder, "@list.txt", "-o", "listed")
    listed = rows(folder / "listed")
    assert len(listed) == 21 and listed[f"s3://{BUCKET}/set/photos/00001.png"] == expected["00001.png"], list(listed)
    print(f"tars and tables; {most - before} kB more for a tar of 150 MB")

    # A store that fails now and then.
    proxy.fails = lambda number, _: {0: 503, 1: "close"}.get(number % 5)
    embed(proxy.url, folder, f"s3://{BUCKET}/set/photos", "-o", "flaky", *shards)
    assert rows(folder / "flaky") == expected
    # One that is gone in the middle: what was done is kept.
    first = proxy.requests
    proxy.fails = lambda number, _: 503 if number > first + 25 else None
    told = embed(proxy.url, folder, f"s3://{BUCKET}/set/photos", "-o", "broken", *shards, code=75)
    assert "the store answers 503" in told, told
    done = len(rows(folder / "broken"))
    proxy.fails = lambda *_: None
    told = embed(proxy.url, folder, f"s3://{BUCKET}/set/photos", "-o", "broken", *shards)
    assert f"{40 - done} rows in " in told and rows(folder / "broken") == expected, told
    told = embed("http://127.0.0.1:9", folder, f"s3://{BUCKET}/set/photos", "-o", "nowhere", code=75)
    assert "refused" in told, told
    print(f"a store that fails: {done} rows were kept")

    # What no second try mends.
    proxy.fails = lambda *_: 403
    assert "access is denied" in embed(proxy.url, folder, f"s3://{BUCKET}/set", "-o", "no", code=1)
    proxy.fails = lambda *_: None
    assert "there is no such" in embed(proxy.url, folder, "s3://missing/set", "-o", "no", code=1)
    assert "there is no such object" in embed(proxy.url, folder, f"s3://{BUCKET}/none", "-o", "no", code=1)
    assert "locks" in embed(proxy.url, folder, "photos", "-o", f"s3://{BUCKET}/index", code=1)
    assert "not from URLs" in embed(proxy.url, folder, "s3://key:word@host/x", "-o", "no", code=1)
    told = embed(proxy.url, folder, f"s3://{BUCKET}/set", "-o", "no", settings={"AWS_ALLOW_HTTP": "false"}, code=1)
    assert "not https" in told, told
    # One picture that is gone between the list and its turn is a bad row.
    proxy.fails = lambda _, path: 404 if "00005.png" in path else None
    assert "bad: 00005.png" in embed(proxy.url, folder, f"s3://{BUCKET}/set/photos", "-o", "gone", *shards, code=3)
    print("what is denied, missing or wrong is told in one line")


if __name__ == "__main__":
    main()
