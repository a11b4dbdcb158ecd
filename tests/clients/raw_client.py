"""Requests of services without a light client of their own, byte by byte as theirs send them. Usage: raw_client.py BASE_URL"""

import base64
import http.client
import json
import sys
import urllib.parse

import native
from pictures import BLUE, RED


def main(base: str) -> None:
    place = urllib.parse.urlsplit(base)
    texts, encoded = ["a photo of a cat", "a photo of a dog"], base64.b64encode(RED).decode()

    def ask(method: str, path: str, body=None, headers=None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.putrequest(method, path, skip_accept_encoding=True)
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        for name, value in (headers or {"content-type": "application/json"}).items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def post(path: str, body, headers=None, status: int = 200) -> dict:
        got, answer = ask("POST", path, body, headers)
        assert got == status, (got, answer)
        return json.loads(answer)

    cat, red = native.vectors(base, [texts[0], RED])

    # Weaviate: Go's client as multi2vec-clip uses it sends no Content-Type; json.Marshal makes null of a nil slice.
    go = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
    both = b'{"texts":["a photo of a cat"],"images":["%s"]}' % encoded.encode()
    answer = post("/vectorize", both, go)
    native.same([cat], answer["textVectors"])
    native.same([red], answer["imageVectors"])
    native.same([cat], post("/vectorize", b'{"texts":["a photo of a cat"],"images":null}', go)["textVectors"])
    assert post("/vectorize", b'{"texts":null,"images":["AAAA"]}', go, 422)["error"].startswith("images[0]")
    assert "error" in post("/vectorize", b"[", go, 400) and "error" in post("/vectorize", b'{"texts":5}', go, 400)
    for path in ["/.well-known/live", "/.well-known/ready"]:
        assert ask("GET", path, headers=go) == (204, b""), path
    assert json.loads(ask("GET", "/meta", headers=go)[1])["dimensions"] == len(cat)

    # Vertex AI.
    models = "/v1/projects/p/locations/us-central1/publishers/google/models"
    instances = [{"text": texts[0], "image": {"bytesBase64Encoded": encoded}}]
    answer = post(f"{models}/demo:predict", {"instances": instances})["predictions"][0]
    native.same([cat, red], [answer["textEmbedding"], answer["imageEmbedding"]])
    for path, body, status, code in [
        ("multimodalembedding@001:predict", {"instances": instances}, 404, "NOT_FOUND"),
        ("demo:predict", {"instances": instances, "parameters": {"dimension": 128}}, 422, "INVALID_ARGUMENT"),
        ("demo:predict", {"instances": [{}]}, 422, "INVALID_ARGUMENT"),
    ]:
        assert post(f"{models}/{path}", body, status=status)["error"]["status"] == code

    # Roboflow.
    image = {"type": "base64", "value": encoded}
    native.same([red], post("/clip/embed_image?api_key=k", {"image": image, "api_key": "k"})["embeddings"])
    native.same(native.vectors(base, texts), post("/clip/embed_text", {"text": texts})["embeddings"])
    compared = {"subject": image, "subject_type": "image", "prompt": texts, "prompt_type": "text"}
    similarity = post("/clip/compare", compared)["similarity"]
    assert abs(similarity[0] - sum(x * y for x, y in zip(cat, red))) < 1e-5
    for body, status in [({"text": "a", "clip_version_id": "ViT-B-16"}, 404), ({"text": []}, 422), ({}, 400)]:
        assert post("/clip/embed_text", body, status=status)["message"]

    # clip-as-service.
    documents = {"data": [{"text": texts[0]}, {"uri": native.url(BLUE)}, {"blob": encoded}], "execEndpoint": "/"}
    answer = post("/post", documents)["data"]
    native.same(native.vectors(base, [texts[0], BLUE, RED]), [entry["embedding"] for entry in answer])
    for body, status in [({"data": [{}]}, 422), (documents | {"execEndpoint": "/rank"}, 422), ({}, 400)]:
        assert post("/post", body, status=status)["header"]["status"]["code"] == "ERROR"

    # text-embeddings-inference: tokens.
    tokens = post("/tokenize", {"inputs": texts})
    assert len(tokens) == 2 and tokens[0][-1]["special"] and any("cat" in token["text"] for token in tokens[0]), tokens
    assert post("/tokenize", {"inputs": texts[0], "add_special_tokens": False})[0] == tokens[0][:-1]

    # Jina: classification; infinity and Jina: pictures in OpenAI's request.
    labels = {"model": "demo", "input": [{"image": encoded}], "labels": texts}
    assert post("/v1/classify", labels)["data"][0]["prediction"] in texts
    for body in [
        {"model": "demo", "input": [native.url(RED)], "modality": "image", "encoding_format": "float"},
        {"model": "demo", "input": [{"image": encoded}], "normalized": True, "task": "retrieval.query"},
    ]:
        native.same([red], [post("/embeddings", body)["data"][0]["embedding"]])


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
