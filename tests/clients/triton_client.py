"""tritonclient over HTTP. Usage: triton_client.py BASE_URL"""

import base64
import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

import native
from pictures import BLUE, RED


def main(base: str) -> None:
    client = triton.InferenceServerClient(base.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("demo")
    assert not client.is_model_ready("no-such-model")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("demo", "1")
    width = metadata["outputs"][0]["shape"][1]

    def infer(name, elements, binary=True, model="demo", shape=None, outputs=None, **options):
        array = numpy.array(elements, dtype=numpy.object_).reshape(shape or [len(elements)])
        tensor = triton.InferInput(name, list(array.shape), "BYTES")
        tensor.set_data_from_numpy(array, binary_data=binary)
        answer = client.infer(model, [tensor], outputs=outputs, **options)
        return answer, answer.as_numpy("embedding")

    texts = ["a photo of a cat", "a photo of a dog"]
    output = [triton.InferRequestedOutput("embedding", binary_data=False)]
    for options in [{}, {"binary": False}, {"outputs": output}, {"binary": False, "outputs": output}]:
        answer, rows = infer("text", texts, request_id="17", **options)
        assert rows.shape == (2, width) and rows.dtype == numpy.float32
        assert answer.get_response()["id"] == "17"
        native.same(native.vectors(base, texts), rows)
    wanted = native.vectors(base, [RED, BLUE])
    native.same(wanted, infer("image", [RED, BLUE], shape=[2, 1])[1])
    encoded = [base64.b64encode(picture).decode() for picture in (RED, BLUE)]
    native.same(wanted, infer("image", encoded, binary=False, model_version="1")[1])
    for part, call in [
        ("no-such-model", lambda: infer("text", texts, model="no-such-model")),
        ("not \"pixels\"", lambda: infer("pixels", texts)),
        ("image[1]", lambda: infer("image", [RED, b"no picture"])),
        ("the output embedding", lambda: infer("text", texts, outputs=[triton.InferRequestedOutput("x")])),
        ("compressed", lambda: infer("text", texts, request_compression_algorithm="gzip")),
    ]:
        native.raises(InferenceServerException, call, part)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
