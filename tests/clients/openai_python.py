"""The official openai client for Python, as its users call it. Usage: openai_python.py BASE_URL"""

import base64
import math
import sys

import openai

import native
from pictures import BLUE, RED


def main(base: str) -> None:
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
    models = client.models.list().data
    name = models[0].id
    width = models[0].model_dump()["dimensions"]
    assert client.models.retrieve(name).id == name

    texts = ["a photo of a cat", "a photo of a dog"]
    # The client asks for base64 by itself and decodes it.
    packed = client.embeddings.create(model=name, input=texts)
    plain = client.embeddings.create(model=name, input=texts, encoding_format="float")
    assert [e.index for e in packed.data] == [0, 1]
    assert packed.model == name and packed.usage.prompt_tokens > 0
    for a, b in zip(packed.data, plain.data):
        assert len(a.embedding) == width, len(a.embedding)
        assert max(abs(x - y) for x, y in zip(a.embedding, b.embedding)) < 1e-6
        assert abs(math.fsum(x * x for x in a.embedding) - 1) < 1e-4

    single = client.embeddings.create(model=name, input=texts[0], dimensions=width, user="someone")
    distance = max(abs(x - y) for x, y in zip(single.data[0].embedding, packed.data[0].embedding))
    assert distance < 1e-4, distance

    # Pictures as data: URLs, mixed with a text.
    urls = [f"data:image/png;base64,{base64.b64encode(p).decode()}" for p in (RED, BLUE)]
    mixed = client.embeddings.create(model=name, input=[urls[0], texts[0], urls[1], urls[0]])
    red, _, blue, again = (e.embedding for e in mixed.data)
    assert max(abs(x - y) for x, y in zip(red, again)) < 1e-4
    assert max(abs(x - y) for x, y in zip(red, blue)) > 1e-3

    # A picture as vLLM's clients send it.
    content = [{"type": "image_url", "image_url": {"url": urls[0]}}]
    body = {"model": name, "messages": [{"role": "user", "content": content}], "encoding_format": "float"}
    seen = client.post("/embeddings", cast_to=openai.types.CreateEmbeddingResponse, body=body)
    native.same([red], [seen.data[0].embedding])
    with native.full_once(base, lambda text: {"error": {"message": text, "type": "rate_limit_error"}}) as full:
        again = openai.OpenAI(base_url=f"{full}/v1", api_key="none", max_retries=1)
        native.same([packed.data[0].embedding], [again.embeddings.create(model=name, input=texts[0]).data[0].embedding])

    for arguments, kind in [
        ({"model": "no-such-model", "input": "a"}, openai.NotFoundError),
        ({"model": name, "input": "a", "dimensions": width + 1}, openai.UnprocessableEntityError),
        ({"model": name, "input": ["data:image/png;base64,AAAA"]}, openai.UnprocessableEntityError),
        ({"model": name, "input": {"no": "input"}}, openai.BadRequestError),
    ]:
        try:
            client.embeddings.create(**arguments)
        except kind as error:
            assert error.body["message"] and error.body["code"], error.body
        else:
            raise AssertionError(f"{arguments} passed")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
