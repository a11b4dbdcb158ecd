"""NumPy files, bare rows, MessagePack, element types and forms. Usage: arrays.py BASE_URL"""

import base64
import io
import sys

import msgpack
import numpy
import requests

from pictures import BLUE, RED


def main(base: str) -> None:
    session = requests.Session()

    def ask(path: str, accept: str = "application/json", **arguments) -> requests.Response:
        answer = session.post(f"{base}{path}", headers={"accept": accept}, timeout=60, **arguments)
        assert answer.ok, answer.text
        return answer

    request = {"input": ["a cat", {"image": base64.b64encode(RED).decode()}]}
    document = ask("/v1/embeddings", json=request).json()
    want = numpy.array([entry["embedding"] for entry in document["data"]], dtype="<f4")

    npy = numpy.load(io.BytesIO(ask("/v1/embeddings", "application/x-npy", json=request).content))
    assert npy.dtype == numpy.dtype("<f4") and npy.shape == want.shape
    assert numpy.abs(npy - want).max() < 1e-6

    rows = ask("/v1/embeddings", "application/octet-stream", json=request)
    shape = tuple(map(int, rows.headers["x-siglip-shape"].split(",")))
    bare = numpy.frombuffer(rows.content, dtype=rows.headers["x-siglip-dtype"]).reshape(shape)
    assert numpy.abs(bare - want).max() < 1e-6

    packed = ask("/v1/embeddings", "application/msgpack", json=request | {"encoding_format": "base64"}).content
    packed = msgpack.unpackb(packed)
    assert packed["model"] == document["model"]
    for entry, vector in zip(packed["data"], want):
        assert numpy.abs(numpy.frombuffer(entry["embedding"], dtype="<f4") - vector).max() < 1e-6

    def typed(kind: str) -> numpy.ndarray:
        answer = ask("/v1/embeddings", "application/x-npy", json=request | {"embedding_type": kind})
        return numpy.load(io.BytesIO(answer.content))

    # What is promised of the element types, computed by NumPy from the float vectors. Another request may share its
    # batch with other inputs, so that values at a boundary may fall to its other side.
    assert numpy.abs(typed("float16").astype("f4") - want).max() < 1e-3
    product = (want * numpy.float32(127)).astype("f8")
    int8 = numpy.clip(numpy.floor(numpy.abs(product) + 0.5) * numpy.sign(product), -127, 127)
    for kind, expected in [("int8", int8), ("uint8", int8 + 128)]:
        difference = numpy.abs(typed(kind).astype(int) - expected)
        assert difference.max() <= 1 and difference.mean() < 0.01, (kind, difference.max(), difference.mean())
    certain = numpy.abs(want) > 1e-5
    for kind, offset in [("ubinary", 0), ("binary", 128)]:
        bits = numpy.unpackbits((typed(kind).astype(int) + offset).astype("u1"), axis=1)[:, : want.shape[1]]
        assert (bits == (want > 0))[certain].all(), kind

    # Files: the whole body, and a form.
    one = ask("/v1/embeddings/images", data=RED, params={"encoding_format": "float"})
    vector = numpy.array(one.json()["data"][0]["embedding"], dtype="<f4")
    assert numpy.abs(vector - want[1]).max() < 1e-4
    files = [("image", ("red.png", RED, "image/png")), ("image", ("blue.png", BLUE, "image/png"))]
    form = ask("/v1/embeddings/images", "application/x-npy", files=files, data={"model": document["model"]})
    assert numpy.load(io.BytesIO(form.content)).shape == (2, want.shape[1])

    labels = ["red", "blue", "a cat"]
    classified = ask("/v1/classify", files=files, data={"labels": labels, "top_k": 2}).json()
    scored = ask(
        "/v1/score",
        json={
            "images": [base64.b64encode(p).decode() for p in (RED, BLUE)],
            "texts": [f"This is a photo of {label}." for label in labels],
        },
    ).json()
    for entry, probabilities in zip(classified["data"], scored["probability"]):
        best = int(numpy.argmax(probabilities))
        assert len(entry["predictions"]) == 2
        assert entry["prediction"] == labels[best], (entry, probabilities)
        assert abs(entry["score"] - probabilities[best]) < 1e-4


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
