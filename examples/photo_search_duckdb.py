"""Photo search in DuckDB. Usage: photo_search_duckdb.py http://localhost:8080 FOLDER "red apple"

Needs duckdb and requests. The fingerprint of the embedding space is kept beside the vectors and sent with each request, so
that vectors of another model never meet these: the service would answer 412.
"""

import base64
import pathlib
import sys

import duckdb
import requests

base, folder, query = sys.argv[1:]


def embed(inputs: list, expected: str | None = None) -> tuple[list[list[float]], str]:
    headers = {"x-siglip-expect-fingerprint": expected} if expected else {}
    answer = requests.post(f"{base}/v1/embeddings", json={"input": inputs}, headers=headers, timeout=60)
    answer.raise_for_status()
    return [entry["embedding"] for entry in answer.json()["data"]], answer.headers["x-siglip-fingerprint"]


paths = sorted(path for path in pathlib.Path(folder).iterdir() if path.suffix in {".jpg", ".png", ".webp"})
vectors, fingerprint = embed([{"image": base64.b64encode(path.read_bytes()).decode()} for path in paths])
width = len(vectors[0])

database = duckdb.connect()  # or a file
database.execute(f"CREATE TABLE photos (path TEXT, space TEXT, embedding FLOAT[{width}])")
rows = [(str(path), fingerprint, vector) for path, vector in zip(paths, vectors)]
database.executemany("INSERT INTO photos VALUES (?, ?, ?)", rows)

[text], _ = embed([query], expected=fingerprint)
nearest = f"SELECT path, array_inner_product(embedding, ?::FLOAT[{width}]) AS cosine FROM photos ORDER BY cosine DESC LIMIT 3"
for path, cosine in database.execute(nearest, [text]).fetchall():
    print(f"{cosine:.3f} {path}")
