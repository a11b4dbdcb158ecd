"""Photo search with LangChain, in Chroma. Usage: photo_search_langchain.py http://localhost:8080 FOLDER "red apple"

Needs langchain-chroma and requests. With embed_image, LangChain's stores take pictures. The name of the collection has the
fingerprint of the embedding space, so that vectors of two models never meet; should the model change later, the answer is 412.
"""

import base64
import pathlib
import sys

import requests
from langchain_chroma import Chroma
from langchain_core.embeddings import Embeddings

base, folder, query = sys.argv[1:]


class Siglip(Embeddings):
    def __init__(self, url: str, fingerprint: str):
        self.url, self.headers = url, {"x-siglip-expect-fingerprint": fingerprint}

    def embed(self, inputs: list) -> list[list[float]]:
        answer = requests.post(self.url, json={"input": inputs}, headers=self.headers, timeout=60)
        answer.raise_for_status()
        return [entry["embedding"] for entry in answer.json()["data"]]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed([{"text": text} for text in texts])

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def embed_image(self, uris: list[str]) -> list[list[float]]:
        return self.embed([{"image": base64.b64encode(pathlib.Path(uri).read_bytes()).decode()} for uri in uris])


fingerprint = requests.get(f"{base}/v1/models", timeout=60).json()["data"][0]["fingerprint"]
siglip = Siglip(f"{base}/v1/embeddings", fingerprint)
paths = sorted(str(path) for path in pathlib.Path(folder).iterdir() if path.suffix in {".jpg", ".png", ".webp"})
store = Chroma(f"photos-{fingerprint[:16]}", siglip, collection_configuration={"hnsw": {"space": "cosine"}})
store.add_images(paths, metadatas=[{"path": path} for path in paths])  # in memory; persist_directory="photos" keeps them

for document in store.as_retriever(search_kwargs={"k": 3}).invoke(query):  # page_content is the picture in base64
    print(document.metadata["path"])
