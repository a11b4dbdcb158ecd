"""Evaluate a model through this project's own command or server, as PROTOCOL.md says. No PyTorch.

    python evaluate.py --data DATA --model demo --siglip ../../../target/release/siglip
    python evaluate.py --data DATA --model demo --server http://127.0.0.1:8080

DATA is the folder that `train/fetch.py` and `train/prepare.py` filled. `--model` is what `siglip embed --model`
understands; temperature and bias are read from `--weights` (this folder's parent unless said). Photographs are
evaluated if `--photographs` names a folder that holds them (see README.md).

Run it before and after a change of the engine (bf16, int8, CUDA) and compare the figures, not only cosines.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from metrics import evaluate, show
from service import Server, parts

HERE = Path(__file__).resolve().parent


class Command:
    """Embeddings from `siglip embed`, which writes one row a picture or text as a .npy file."""

    TEXTS_PER_CALL = 500  # far below the limits of a command line

    def __init__(self, siglip: str, model: str):
        self.siglip, self.model = siglip, model

    def _run(self, *inputs: str) -> np.ndarray:
        """The one place that knows the command's arguments and that its rows are in the order of its inputs."""
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "vectors.npy"
            subprocess.run([self.siglip, "embed", "--model", self.model, *inputs, "--output", str(output)], check=True)
            return unit(np.load(output))

    def images(self, paths: list[Path]) -> np.ndarray:
        return np.concatenate([self._run(*map(str, part)) for part in parts(paths, self.TEXTS_PER_CALL)])

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.concatenate([
            self._run(*(word for text in part for word in ("--text", text)))
            for part in parts(texts, self.TEXTS_PER_CALL)
        ])


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, whether or not they already were."""
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--weights", type=Path, default=HERE.parent)
    parser.add_argument("--siglip", default="siglip", help="the binary")
    parser.add_argument("--server", help="the address of a running server, instead of the command")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    source = Server(arguments) if arguments.server else Command(arguments.siglip, arguments.model)
    report = evaluate(arguments.data, arguments.weights, source.images, source.texts, arguments.photographs)
    print(show(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
