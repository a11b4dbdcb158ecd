"""The official ollama client. Usage: ollama_client.py BASE_URL"""

import sys

import ollama

import native


def main(base: str) -> None:
    client = ollama.Client(host=base)
    texts = ["a photo of a cat", "a photo of a dog"]
    tag = client.list().models[0]
    assert tag.model == "demo:latest" and tag.digest and tag.size, tag
    for model in ["demo", tag.model]:
        answer = client.embed(model=model, input=texts)
        native.same(native.vectors(base, texts), answer.embeddings)
    assert answer.prompt_eval_count > 0 and answer.total_duration > 0
    native.same(native.vectors(base, texts[:1]), client.embed(model="demo", input=texts[0]).embeddings)
    native.same(native.vectors(base, texts[:1]), [client.embeddings(model="demo", prompt=texts[0]).embedding])
    for status, arguments in [
        (404, {"model": "nomic-embed-text", "input": "a"}),
        (422, {"model": "demo", "input": "word " * 200, "truncate": False}),
        (422, {"model": "demo", "input": "a", "dimensions": 8}),
        (400, {"model": "demo", "input": []}),
    ]:
        native.raises(ollama.ResponseError, lambda: client.embed(**arguments), status_code=status)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
