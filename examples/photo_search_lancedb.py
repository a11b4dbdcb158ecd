"""Photo search in LanceDB. Usage: photo_search_lancedb.py http://localhost:8080 FOLDER "red apple"

Needs lancedb and requests. LanceDB asks the service itself, and keeps the arguments of Siglip with the table. With them it keeps
the fingerprint of the embedding space, so that vectors of another model never meet these: the service would answer 412.
"""

import base64
import pathlib
import sys

import lancedb
import requests
from lancedb.embeddings import EmbeddingFunction, EmbeddingFunctionConfig, register

base, folder, query = sys.argv[1:]


@register("siglip-service")
class Siglip(EmbeddingFunction):
    url: str
    fingerprint: str
    dimensions: int

    def ndims(self) -> int:
        return self.dimensions

    def compute_query_embeddings(self, query: str | bytes, *_) -> list[list[float]]:
        return self.compute_source_embeddings([query])

    def compute_source_embeddings(self, column, *_) -> list[list[float]]:  # bytes are pictures, strings texts
        inputs = [{"image": base64.b64encode(i).decode()} if isinstance(i, bytes) else i for i in self.sanitize_input(column)]
        headers = {"x-siglip-expect-fingerprint": self.fingerprint}
        answer = requests.post(self.url, json={"input": inputs}, headers=headers, timeout=60)
        answer.raise_for_status()
        return [entry["embedding"] for entry in answer.json()["data"]]


model = requests.get(f"{base}/v1/models", timeout=60).json()["data"][0]
space = {"fingerprint": model["fingerprint"], "dimensions": model["dimensions"]}
siglip = Siglip.create(url=f"{base}/v1/embeddings", max_retries=2, **space)
embedding = EmbeddingFunctionConfig(vector_column="embedding", source_column="picture", function=siglip)
paths = sorted(path for path in pathlib.Path(folder).iterdir() if path.suffix in {".jpg", ".png", ".webp"})
rows = [{"path": str(path), "picture": path.read_bytes()} for path in paths]
photos = lancedb.connect("memory://").create_table("photos", rows, embedding_functions=[embedding])  # or a folder

for photo in photos.search(query).distance_type("cosine").limit(3).to_list():
    print(f"{1 - photo['_distance']:.3f} {photo['path']}")
