"""Pictures a second over HTTP with JPEGs of 640 × 480, beside the engine alone, on a GPU: whether decoding on the processor
keeps the GPU busy. Starts `siglip serve`, sends from several processes over connections that are kept, and prints one row.
Needs Pillow or torchvision, to write a JPEG, and transformers for a checkpoint; says so and ends without them.
"""
import argparse, http.client, io, json, multiprocessing, os, random, re, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

BOUNDARY = "picture-boundary"


def jpeg():
    """640 × 480 with the detail of a photograph."""
    noise = random.Random(0)
    small = bytes(noise.randrange(256) for _ in range(80 * 60 * 3))
    try:
        from PIL import Image
        file = io.BytesIO()
        picture = Image.frombytes("RGB", (80, 60), small).resize((640, 480), Image.Resampling.BICUBIC)
        picture.save(file, "JPEG", quality=90)
        return file.getvalue()
    except ImportError:
        import torch, torchvision
        picture = torch.frombuffer(bytearray(small), dtype=torch.uint8).reshape(60, 80, 3).permute(2, 0, 1)
        large = torch.nn.functional.interpolate(picture[None].float(), (480, 640), mode="bicubic")[0]
        return torchvision.io.encode_jpeg(large.clamp(0, 255).byte(), 90).numpy().tobytes()


def form(picture, count):
    """A form of `count` files."""
    part = f"--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\ncontent-type: image/jpeg\r\n\r\n"
    return (part.encode() + picture + b"\r\n") * count + f"--{BOUNDARY}--\r\n".encode()


def client(port, body, begin, end, answered):
    """Sends the body again and again until the time is up; counts answers within it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    while time.time() < end:
        connection.request("POST", "/v1/embeddings/images?encoding_format=base64", body, headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 429:
            time.sleep(0.05)
        elif answer.status != 200:
            raise SystemExit(f"HTTP {answer.status}")
        elif begin <= time.time() <= end:
            with answered.get_lock():
                answered.value += 1


def engine(siglip, model, device, batch, seconds, *options):
    command = [siglip, "bench", "--model", model, "--device", device, "--batch", batch, "--seconds", seconds, "--json", *options]
    out = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])["items_per_second"]


def serve(siglip, model, device, log):
    # The clients are one address; nothing of the queue is kept from them.
    command = [siglip, "serve", "--model", model, "--device", device, "--port", "0", "--max-queue-items", "4096", "--log-format", "json"]
    server = subprocess.Popen(list(map(str, command)), stderr=open(log, "w"))
    for _ in range(1200):
        if server.poll() is not None:
            break
        found = re.search(r"listening on (http://[0-9.:]+)", Path(log).read_text())
        try:
            if found and urllib.request.urlopen(found[1] + "/health/ready", timeout=5).status == 200:
                return server, int(found[1].rsplit(":", 1)[1])
        except OSError:
            pass
        time.sleep(0.25)
    server.kill()
    raise SystemExit(f"the service did not start:\n{Path(log).read_text()[-2000:]}")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--siglip", required=True)
    a.add_argument("--model", help="a checkpoint; without it base/16-224 with random weights is made")
    a.add_argument("--device", default="cuda")
    a.add_argument("--seconds", type=float, default=10)
    a.add_argument("--clients", type=int, default=max(4, (os.cpu_count() or 4) // 2))
    a.add_argument("--pictures", type=int, default=32, help="of one request")
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = o.model
        try:
            picture = jpeg()
            if model is None:
                import transformers  # noqa: F401
                model = f"{folder}/base-16-224"
                make = Path(__file__).resolve().parent.parent / "parity" / "make_checkpoint.py"
                subprocess.run([sys.executable, make, model, "--family", "siglip", "--size", "base"], check=True)
        except ImportError as error:
            print(f"not done, HTTP: {error}")
            return 0
        file = Path(folder) / "picture.jpg"
        file.write_bytes(picture)
        alone = engine(o.siglip, model, o.device, 256, o.seconds)
        command = [o.siglip, "bench", "--model", model, "--device", "cpu", "--prepare", file, "--seconds", "3", "--json"]
        out = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
        decoding = json.loads(out.strip().splitlines()[-1])["items_per_second"]
        server, port = serve(o.siglip, model, o.device, f"{folder}/log")
        try:
            answered, begin = multiprocessing.Value("q", 0), time.time() + 3
            arguments = (port, form(picture, o.pictures), begin, begin + o.seconds, answered)
            clients = [multiprocessing.Process(target=client, args=arguments) for _ in range(o.clients)]
            for process in clients:
                process.start()
            for process in clients:
                process.join()
            failed = any(process.exitcode for process in clients)
        finally:
            server.terminate()
            ended = server.wait(60)
    rate, cores = answered.value * o.pictures / o.seconds, os.cpu_count() or 1
    print("| pictures/s | engine alone, batch 256 | over HTTP | share | decoding, one thread | cores |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    print(f"| {Path(model).name}, JPEG 640 × 480 | {alone:.0f} | {rate:.0f} | {rate / alone:.0%} | {decoding:.0f} | {cores} |")
    # The clients share the cores with the server.
    if rate < 0.8 * alone:
        limit = "decoding" if decoding * cores < alone else "the service or its clients"
        print(f"The limit is {limit}: {decoding * cores:.0f} pictures/s could be decoded by all cores.")
    return 1 if failed or ended or not answered.value else 0


if __name__ == "__main__":
    sys.exit(main())
