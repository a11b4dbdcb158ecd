"""Runs an example of a photo search and checks what it finds. Usage: photo_search.py BASE FOLDER QUERY EXAMPLE.py

The query is the name of a picture in the folder ("red apple" for red-apple.png), which must come first. The others must follow
in the order of /v1/score, which no database has a part in; cosines, if the example prints them, must be the same.
"""

import base64
import pathlib
import subprocess
import sys

import requests

base, folder, query, example = sys.argv[1:]

paths = sorted(pathlib.Path(folder).glob("*.png"))
images = [base64.b64encode(path.read_bytes()).decode() for path in paths]
answer = requests.post(f"{base}/v1/score", json={"images": images, "texts": [query]}, timeout=60)
answer.raise_for_status()
expected = sorted(((row[0], path.name) for row, path in zip(answer.json()["cosine"], paths)), reverse=True)[:3]
assert expected[0][1] == query.replace(" ", "-") + ".png", expected

search = subprocess.run([sys.executable, example, base, folder, query], stdout=subprocess.PIPE, text=True, timeout=300)
print(search.stdout)
assert search.returncode == 0, f"{example} ended with {search.returncode}"
found = [line.split(maxsplit=1) if line[0] in "-01" else [None, line] for line in search.stdout.splitlines()]
assert len(found) == len(expected), found
for (cosine, path), (wanted, name) in zip(found, expected):
    assert pathlib.Path(path).name == name, f"found {path}, expected {name}"
    assert cosine is None or abs(float(cosine) - wanted) < 0.002, f"{path}: {cosine}, expected {wanted:.4f}"
