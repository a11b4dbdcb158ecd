"""huggingface_hub's InferenceClient: text-embeddings-inference and inference endpoints. Usage: huggingface_client.py BASE_URL"""

import pathlib
import sys

import numpy
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

import native
from pictures import RED

DEMO = pathlib.Path(__file__).parents[2] / "models" / "demo" / "examples"


def main(base: str) -> None:
    texts = ["a photo of a cat", "a photo of a dog"]
    for address in [f"{base}/embed", base, f"{base}/models/demo"]:
        client = InferenceClient(model=address)
        native.same(native.vectors(base, texts), client.feature_extraction(texts))
        native.same(native.vectors(base, texts[:1]), client.feature_extraction(texts[0], truncate=True))
        # What these clients have no word for: a picture as a data: URL.
        native.same(native.vectors(base, [RED]), client.feature_extraction(native.url(RED)))
        loose = client.feature_extraction(texts, normalize=False)
        native.same(native.vectors(base, texts), loose, length=False)
    a, b = (numpy.array(v) for v in native.vectors(base, texts))
    for address in [f"{base}/similarity", base]:
        scores = InferenceClient(model=address).sentence_similarity(texts[0], texts)
        assert abs(scores[0] - 1) < 1e-5 and abs(scores[1] - a @ b) < 1e-5, scores
    client = InferenceClient(model=base)
    for name, label in [("red-apple", "red apple"), ("guitar", "guitar"), ("red-car", "car")]:
        labels = ["cat", "guitar", "red apple", "car"]
        picture = (DEMO / f"{name}.png").read_bytes()
        found = client.zero_shot_image_classification(picture, labels)
        assert found[0].label == label and sorted(f.label for f in found) == sorted(labels), found
        assert all(x.score >= y.score for x, y in zip(found, found[1:]))
    labels = ["cat", "dog"]
    tei, one = InferenceClient(model=f"{base}/embed"), InferenceClient(model=f"{base}/models/owner/name")
    for call, part in [
        (lambda: tei.feature_extraction("a", dimensions=8), "cannot be shortened"),
        (lambda: tei.feature_extraction("a", prompt_name="query"), "no prompts"),
        (lambda: tei.feature_extraction("word " * 200, truncate=False), "longer than the model's context"),
        (lambda: one.feature_extraction("a"), "owner/name"),
        (lambda: client.zero_shot_image_classification(b"no picture", labels), "inputs"),
    ]:
        error = native.raises(HfHubHTTPError, call)
        assert part in error.response.text, (part, error.response.text)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
