"""The official voyageai client. Usage: voyage_client.py BASE_URL"""

import io
import sys

import PIL.Image
import voyageai
from voyageai import error

import native
from pictures import RED


def main(base: str) -> None:
    client = voyageai.Client(api_key="none", base_url=f"{base}/v1")
    texts = ["a photo of a cat", "a photo of a dog"]
    # It sends pictures as lossless WebP.
    picture = PIL.Image.open(io.BytesIO(RED)).convert("RGB")

    def embed(inputs, model="demo", **arguments):
        return client.multimodal_embed(inputs, model=model, **arguments)

    answer = embed([[texts[0]], [picture], [texts[1]]], input_type="document")
    native.same(native.vectors(base, [texts[0], RED, texts[1]]), answer.embeddings)
    assert answer.image_pixels == 32 * 32 and answer.text_tokens > 0
    given = [{"content": [{"type": "image_url", "image_url": native.url(RED)}]}]
    native.same(native.vectors(base, [RED]), embed(given).embeddings)
    # Texts go to OpenAI's route with fields of Voyage's own.
    native.same(native.vectors(base, texts), client.embed(texts, model="demo").embeddings)

    for kind, part, arguments in [
        (error.APIError, "voyage-multimodal-3", {"inputs": [["a"]], "model": "voyage-multimodal-3"}),
        (error.MalformedRequestError, "output_dimension", {"inputs": [["a"]], "output_dimension": 256}),
        (error.MalformedRequestError, "inputs[0]", {"inputs": [["word " * 200]], "truncation": False}),
        (error.InvalidRequestError, "several together", {"inputs": [["a", picture]]}),
    ]:
        native.raises(kind, lambda: embed(**arguments), part)
    with native.full_once(base, lambda text: {"detail": text}) as full:
        client = voyageai.Client(api_key="none", base_url=f"{full}/v1", max_retries=2)
        native.same(native.vectors(base, texts[:1]), embed([texts[:1]]).embeddings)
    with native.full_once(base, lambda text: {"detail": text}) as full:
        client = voyageai.Client(api_key="none", base_url=f"{full}/v1", max_retries=1)
        native.raises(error.RateLimitError, lambda: embed([["a"]]), "full")
        embed([["a"]])


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
