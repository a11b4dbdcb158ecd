"""Photo search with LlamaIndex, in Qdrant. Usage: photo_search_llamaindex.py http://localhost:8080 FOLDER "red apple"

Needs llama-index-vector-stores-qdrant and requests. The name of the collection has the fingerprint of the embedding space.
"""

import asyncio
import base64
import pathlib
import sys

import requests
from llama_index.core import StorageContext
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.schema import ImageNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

base, folder, query = sys.argv[1:]


class Siglip(MultiModalEmbedding):
    def embed(self, inputs: list) -> list[list[float]]:
        answer = requests.post(f"{base}/v1/embeddings", json={"input": inputs}, timeout=60)
        answer.raise_for_status()
        return [entry["embedding"] for entry in answer.json()["data"]]

    def _get_image_embeddings(self, paths: list[str]) -> list[list[float]]:
        return self.embed([{"image": base64.b64encode(pathlib.Path(path).read_bytes()).decode()} for path in paths])

    def _get_image_embedding(self, path: str) -> list[float]:
        return self._get_image_embeddings([path])[0]

    async def _aget_image_embedding(self, path: str) -> list[float]:
        return await asyncio.to_thread(self._get_image_embedding, path)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.embed([{"text": text}])[0]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)


fingerprint = requests.get(f"{base}/v1/models", timeout=60).json()["data"][0]["fingerprint"]
photos = QdrantVectorStore(f"photos-{fingerprint}", QdrantClient(":memory:"))  # or path="photos"
paths = sorted(str(path) for path in pathlib.Path(folder).iterdir() if path.suffix in {".jpg", ".png", ".webp"})
nodes = [ImageNode(image_path=path, metadata={"path": path}) for path in paths]  # a node without text needs metadata
stores = StorageContext.from_defaults(image_store=photos)
index = MultiModalVectorStoreIndex(nodes, embed_model=Siglip(), image_embed_model=Siglip(), storage_context=stores)

for found in index.as_retriever(image_similarity_top_k=3).text_to_image_retrieve(query):
    print(f"{found.score:.3f} {found.node.metadata['path']}")
