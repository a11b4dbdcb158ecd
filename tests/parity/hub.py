"""The program and huggingface_hub share one cache: what either downloads, the other finds.

    python tests/parity/hub.py --siglip target/debug/siglip

A server in this process answers as the hub does. No network is used. Needs: huggingface_hub, torch, transformers.
"""
import argparse, hashlib, json, os, subprocess, sys, tempfile, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL, COMMIT = "owner/tiny", "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    folder, requests = None, []
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in ({"content_length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        Hub.requests.append((self.command, self.path))
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{MODEL}"):
            siblings = [{"rfilename": file.name} for file in sorted(Hub.folder.iterdir())]
            return self.answer(200, json.dumps(dict(id=MODEL, modelId=MODEL, sha=COMMIT, siblings=siblings, private=False, downloads=0, likes=0, tags=[])).encode(), content_type="application/json")
        file = Hub.folder / path.split("/")[-1]
        if not file.is_file():
            return self.answer(404, x_error_code="EntryNotFound", x_repo_commit=COMMIT)
        body = file.read_bytes()
        large = file.suffix == ".safetensors"
        digest = hashlib.sha256(body).hexdigest()
        if large and not path.startswith("/storage/"):
            return self.answer(302, location=f"http://{self.headers['Host']}/storage/{file.name}", x_repo_commit=COMMIT, x_linked_etag=f'"{digest}"', x_linked_size=len(body))
        git = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()  # what the hub calls a file that is not in LFS
        headers = dict(etag=f'"{digest if large else git}"', x_repo_commit=COMMIT, accept_ranges="bytes")
        wanted = self.headers.get("Range")
        if wanted and self.command == "GET":
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            return self.answer(206, body[start:], content_range=f"bytes {start}-{len(body) - 1}/{len(body)}", **headers)
        self.answer(200, body, **headers)

    do_HEAD = do_GET


def tree(cache):
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if "snapshots" in p.parts and p.is_symlink() or "blobs" in p.parts and p.is_file() or p.parent.name == "refs")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--siglip", required=True)
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        Hub.folder = temporary / "model"
        make = [sys.executable, str(Path(__file__).parent / "make_checkpoint.py"), str(Hub.folder), "--family", "siglip", "--size", "tiny"]
        subprocess.run(make, check=True, capture_output=True)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | dict(HF_ENDPOINT=endpoint, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")

        def siglip(cache, **more):
            run = subprocess.run([o.siglip, "inspect", "--model", MODEL], env=clean | dict(HF_HUB_CACHE=str(cache)) | more, capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
            return next(line for line in run.stdout.splitlines() if line.startswith("fingerprint"))

        def python(cache, **more):
            names = [file.name for file in sorted(Hub.folder.iterdir())]
            code = f"from huggingface_hub import hf_hub_download as get; print([get({MODEL!r}, n, local_files_only={bool(more)}) for n in {names}][-1])"
            run = subprocess.run([sys.executable, "-c", code], env=clean | dict(HF_HUB_CACHE=str(cache)) | more, capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
            return Path(run.stdout.strip()).parent

        ours, theirs = temporary / "ours", temporary / "theirs"
        first = siglip(ours)
        python(theirs)
        assert tree(ours) == tree(theirs), f"{tree(ours)}\n{tree(theirs)}"
        count = len(Hub.requests)
        assert siglip(theirs, HF_HUB_OFFLINE="1") == first, "the program reads huggingface_hub's cache"
        found = python(ours, HF_HUB_OFFLINE="1")
        assert (found / "model.safetensors").stat().st_size == (Hub.folder / "model.safetensors").stat().st_size
        assert len(Hub.requests) == count, "offline asks nothing"
        print(f"ok    one cache of {len(tree(ours))} entries for the program and huggingface_hub; offline both ask nothing")


if __name__ == "__main__":
    main()
