"""Photo search in Qdrant, in local mode. Usage: photo_search_qdrant.py http://localhost:8080 FOLDER "red apple"

Needs openai and qdrant-client: the official OpenAI client embeds pictures, too.
"""

import base64
import pathlib
import sys

import openai
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

base, folder, query = sys.argv[1:]
client = openai.OpenAI(base_url=f"{base}/v1", api_key="none")
model = client.models.list().data[0].id


def embed(inputs: list[str]) -> list[list[float]]:
    return [entry.embedding for entry in client.embeddings.create(model=model, input=inputs).data]


def url(path: pathlib.Path) -> str:
    return f"data:image/*;base64,{base64.b64encode(path.read_bytes()).decode()}"


paths = sorted(path for path in pathlib.Path(folder).iterdir() if path.suffix in {".jpg", ".png", ".webp"})
vectors = embed([url(path) for path in paths])

database = QdrantClient(":memory:")  # or path="photos"
database.create_collection("photos", VectorParams(size=len(vectors[0]), distance=Distance.COSINE))
points = [PointStruct(id=i, vector=v, payload={"path": str(p)}) for i, (p, v) in enumerate(zip(paths, vectors))]
database.upsert("photos", points)

for point in database.query_points("photos", embed([query])[0], limit=3).points:
    print(f"{point.score:.3f} {point.payload['path']}")
