"""The official cohere client, version 2 of its API. Usage: cohere_client.py BASE_URL"""

import sys

import cohere

import native
from pictures import BLUE, RED


def main(base: str) -> None:
    client = cohere.ClientV2(api_key="none", base_url=base)
    texts = ["a photo of a cat", "a photo of a dog"]

    def embed(**arguments):
        return client.embed(**({"model": "demo", "input_type": "search_document"} | arguments))

    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    answer = embed(texts=texts, embedding_types=types)
    native.same(native.vectors(base, texts), answer.embeddings.float_)
    assert answer.response_type == "embeddings_by_type" and answer.meta.billed_units.input_tokens > 0
    for kind, least, most in [("int8", -127, 127), ("uint8", 1, 255), ("binary", -128, 127), ("ubinary", 0, 255)]:
        rows = getattr(answer.embeddings, kind)
        assert len(rows) == 2 and all(least <= x <= most for row in rows for x in row), kind
    assert len(answer.embeddings.base64) == 2

    pictures = [native.url(RED), native.url(BLUE)]
    native.same(native.vectors(base, [RED, BLUE]), embed(images=pictures, input_type="image").embeddings.float_)
    mixed = [
        {"content": [{"type": "image_url", "image_url": {"url": pictures[0]}}]},
        {"content": [{"type": "text", "text": texts[0]}]},
    ]
    native.same(native.vectors(base, [RED, texts[0]]), embed(inputs=mixed).embeddings.float_)
    many = [f"text {i}" for i in range(300)]
    native.same(native.vectors(base, many[-2:]), embed(texts=many).embeddings.float_[-2:])

    once = {"request_options": {"max_retries": 0}}
    for kind, part, arguments in [
        (cohere.NotFoundError, "embed-v4.0", {"model": "embed-v4.0", "texts": texts}),
        (cohere.UnprocessableEntityError, "output_dimension", {"texts": texts, "output_dimension": 256}),
        (cohere.UnprocessableEntityError, "images[0]", {"images": ["data:image/png;base64,AAAA"]}),
        (cohere.UnprocessableEntityError, "texts[1]", {"texts": ["a", "word " * 200], "truncate": "NONE"}),
        (cohere.BadRequestError, "missing field", {}),
    ]:
        native.raises(kind, lambda: embed(**arguments, **once), part)
    with native.full_once(base, lambda text: {"message": text}) as full:
        client = cohere.ClientV2(api_key="none", base_url=full)
        native.same(native.vectors(base, texts), embed(texts=texts).embeddings.float_)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
