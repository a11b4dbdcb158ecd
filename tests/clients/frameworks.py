"""Embeddings through LangChain, LlamaIndex, Haystack and litellm: equal to the native ones, and their errors. Usage: frameworks.py BASE_URL PICTURE"""

import base64
import sys
import warnings

import numpy as np
import requests

warnings.simplefilter("ignore")
BASE, PICTURE = sys.argv[1].rstrip("/"), sys.argv[2]
TEXTS = ["a red apple", "ein Hund", "x " * 300]


def native(inputs):
    answer = requests.post(f"{BASE}/v1/embeddings", json={"input": inputs}, timeout=60)
    answer.raise_for_status()
    return np.array([entry["embedding"] for entry in answer.json()["data"]])


def same(found, wanted, name):
    found = np.array(found, dtype=np.float64)
    assert found.shape == wanted.shape, (name, found.shape, wanted.shape)
    cosines = (found * wanted).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(wanted, axis=-1)
    assert cosines.min() >= 0.999999, (name, cosines)
    print(name, "cosine", cosines.min())


def raises(kind, words, call):
    try:
        call()
    except kind as error:
        assert words in str(error), f"{words!r} is not in {error}"
    else:
        raise AssertionError(f"no {kind.__name__} with {words!r}")


texts = native(TEXTS)
picture = native([{"image": base64.b64encode(open(PICTURE, "rb").read()).decode()}])


def haystack():
    from haystack import Document
    from haystack_integrations.components.embedders.huggingface_api import (
        HuggingFaceAPIDocumentEmbedder, HuggingFaceAPITextEmbedder)

    where = {"api_type": "text_embeddings_inference", "api_params": {"url": BASE}}
    one = HuggingFaceAPITextEmbedder(**where)
    same([one.run(text)["embedding"] for text in TEXTS], texts, "haystack, a text")
    many = HuggingFaceAPIDocumentEmbedder(**where, batch_size=2)
    documents = many.run([Document(content=text) for text in TEXTS])["documents"]
    same([document.embedding for document in documents], texts, "haystack, documents")
    from huggingface_hub.errors import HfHubHTTPError
    strict = HuggingFaceAPITextEmbedder(**where, truncate=False)
    raises(HfHubHTTPError, "422", lambda: strict.run(TEXTS[2]))


def llamaindex():
    from llama_index.embeddings.jinaai import JinaEmbedding
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    tei = TextEmbeddingsInference(model_name="demo", base_url=BASE)
    same(tei.get_text_embedding_batch(TEXTS), texts, "llama-index, TEI")
    jina = JinaEmbedding(api_key="any", model="demo")
    # It has no option for the address.
    jina._api.api_url = f"{BASE}/v1/embeddings"
    same(jina.get_text_embedding_batch(TEXTS), texts, "llama-index, Jina, texts")
    same([jina.get_image_embedding(PICTURE)], picture, "llama-index, Jina, a picture")
    jina._api.model = "jina-clip-v2"
    raises(RuntimeError, "jina-clip-v2", lambda: jina.get_text_embedding("a"))


def langchain():
    import openai
    from langchain_openai import OpenAIEmbeddings

    def embeddings(model):
        return OpenAIEmbeddings(model=model, base_url=f"{BASE}/v1", api_key="any", check_embedding_ctx_length=False,
                                max_retries=0)

    same(embeddings("demo").embed_documents(TEXTS), texts, "langchain, OpenAI")
    raises(openai.NotFoundError, "text-embedding-3-small", lambda: embeddings("text-embedding-3-small").embed_query("a"))


def litellm():
    import litellm as lite

    def embed(**options):
        return lite.embedding(model="openai/demo", input=TEXTS, api_base=f"{BASE}/v1", api_key="any", **options)

    same([entry["embedding"] for entry in embed().data], texts, "litellm")
    raises(lite.exceptions.NotFoundError, "other", lambda: lite.embedding(
        model="openai/other", input=["a"], api_base=f"{BASE}/v1", api_key="any", num_retries=0))


def infinity():
    from infinity_client import Client
    from infinity_client.api.default import embeddings as api
    from infinity_client.models import OpenAIEmbeddingInputText

    # It sends `dimensions: 0`, and reads the errors of 422 as FastAPI writes them.
    body = OpenAIEmbeddingInputText(input_=TEXTS, model="demo")
    answer = api.sync(client=Client(base_url=BASE), body=body)
    same([entry.embedding for entry in answer.data], texts, "infinity_client")
    refused = api.sync(client=Client(base_url=BASE), body=OpenAIEmbeddingInputText(input_=TEXTS, model="demo", dimensions=7))
    assert "dimensions" in refused.detail[0].msg, refused


for client in (haystack, llamaindex, langchain, litellm, infinity):
    client()
