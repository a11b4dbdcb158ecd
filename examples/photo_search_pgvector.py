"""Photo search in PostgreSQL with pgvector. Usage: photo_search_pgvector.py http://localhost:8080 FOLDER "red apple"

Needs pgvector, psycopg and requests; PGHOST, PGUSER and so on say which server. The fingerprint of the embedding space is kept
beside the vectors and sent with each request, so that vectors of another model never meet these: the answer would be 412.
"""

import base64
import pathlib
import sys

import numpy
import psycopg
import requests
from pgvector.psycopg import register_vector

base, folder, query = sys.argv[1:]


def embed(inputs: list, expected: str | None = None) -> tuple[list[numpy.ndarray], str]:
    headers = {"x-siglip-expect-fingerprint": expected} if expected else {}
    answer = requests.post(f"{base}/v1/embeddings", json={"input": inputs}, headers=headers, timeout=60)
    answer.raise_for_status()
    return [numpy.array(entry["embedding"]) for entry in answer.json()["data"]], answer.headers["x-siglip-fingerprint"]


paths = sorted(path for path in pathlib.Path(folder).iterdir() if path.suffix in {".jpg", ".png", ".webp"})
vectors, fingerprint = embed([{"image": base64.b64encode(path.read_bytes()).decode()} for path in paths])

with psycopg.connect() as database:
    database.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(database)
    database.execute(f"CREATE TEMPORARY TABLE photos (path text, space text, embedding vector({len(vectors[0])}))")
    rows = [(str(path), fingerprint, vector) for path, vector in zip(paths, vectors)]
    database.cursor().executemany("INSERT INTO photos VALUES (%s, %s, %s)", rows)
    database.execute("CREATE INDEX ON photos USING hnsw (embedding vector_cosine_ops)")

    [text], _ = embed([query], expected=fingerprint)
    nearest = "SELECT path, 1 - (embedding <=> %(text)s) FROM photos ORDER BY embedding <=> %(text)s LIMIT 3"
    for path, cosine in database.execute(nearest, {"text": text}):
        print(f"{cosine:.3f} {path}")
