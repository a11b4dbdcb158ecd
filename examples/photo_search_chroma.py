"""Photo search in Chroma. Usage: photo_search_chroma.py http://localhost:8080 FOLDER "red apple"

Needs chromadb and requests. Chroma asks the service itself, and keeps the configuration of Siglip with the collection. With it
it keeps the fingerprint of the embedding space, so that vectors of another model never meet these: the answer would be 412.
"""

import base64
import pathlib
import sys

import chromadb
import requests
from chromadb.utils.embedding_functions import EmbeddingFunction, register_embedding_function

base, folder, query = sys.argv[1:]


@register_embedding_function
class Siglip(EmbeddingFunction):
    name = staticmethod(lambda: "siglip-service")
    build_from_config = staticmethod(lambda config: Siglip(**config))

    def __init__(self, url: str, fingerprint: str):
        self.url, self.fingerprint = url, fingerprint

    def get_config(self) -> dict:
        return vars(self)

    def __call__(self, input: list[str]) -> list[list[float]]:  # a data: URL is a picture
        headers = {"x-siglip-expect-fingerprint": self.fingerprint}
        answer = requests.post(self.url, json={"input": input}, headers=headers, timeout=60)
        answer.raise_for_status()
        return [entry["embedding"] for entry in answer.json()["data"]]


def load(uris: list[str]) -> list[str]:
    return [f"data:image/*;base64,{base64.b64encode(pathlib.Path(uri).read_bytes()).decode()}" for uri in uris]


fingerprint = requests.get(f"{base}/v1/models", timeout=60).json()["data"][0]["fingerprint"]
siglip = Siglip(f"{base}/v1/embeddings", fingerprint)
paths = sorted(str(path) for path in pathlib.Path(folder).iterdir() if path.suffix in {".jpg", ".png", ".webp"})
cosine = {"hnsw": {"space": "cosine"}}
client = chromadb.Client()  # or chromadb.PersistentClient("photos")
photos = client.create_collection("photos", configuration=cosine, embedding_function=siglip, data_loader=load)
photos.add(ids=paths, uris=paths)

nearest = photos.query(query_texts=[query], n_results=3)
for path, distance in zip(nearest["ids"][0], nearest["distances"][0]):
    print(f"{1 - distance:.3f} {path}")
