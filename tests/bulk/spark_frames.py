"""Spark. Usage: spark_frames.py CORPUS"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
os.environ["PYSPARK_PYTHON"] = sys.executable

from pyspark.sql import SparkSession

import corpus
import flaky
import siglip_client
import siglip_client.spark

OPTIONS = {"model": "demo", "flags": ["--threads", "1"]}


def session(master: str) -> SparkSession:
    builder = SparkSession.builder.master(master).config("spark.ui.enabled", "false")
    for name in ("bindAddress", "host"):
        builder = builder.config(f"spark.driver.{name}", "127.0.0.1")
    spark = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "32").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


def run(spark: SparkSession, folder: pathlib.Path, function, **options) -> list[dict]:
    frame = spark.read.parquet(str(folder / "photos")).repartition(4)
    schema = siglip_client.spark.output_schema(frame.schema, **{**OPTIONS, **options})
    return [row.asDict() for row in frame.mapInArrow(function, schema).collect()]


def killed(state: str):
    """The function of `siglip_client.spark`, whose worker is killed in the second batch of one task."""
    inner = siglip_client.spark.embed(**OPTIONS)

    def function(batches):
        def watched():
            for at, batch in enumerate(batches):
                if at == 1 and flaky.first(pathlib.Path(state) / "killed"):
                    flaky.kill_at_work(siglip_client.shared(**OPTIONS).pid)
                yield batch

        return inner(watched())

    return function


def main(name: str) -> None:
    folder = pathlib.Path(name)
    binary = os.environ["SIGLIP_BIN"]
    spark = session("local[2]")
    print("vectors:", corpus.check(folder, run(spark, folder, siglip_client.spark.embed(**OPTIONS))), flush=True)

    with tempfile.TemporaryDirectory() as state:
        try:
            run(spark, folder, killed(state))
        except Exception as error:
            assert "was killed by signal 9 (SIGKILL); its last lines:" in str(error), error
        else:
            raise AssertionError("nothing was killed")
    spark.stop()
    corpus.none_left(binary)

    # Two tries a task.
    spark = session("local[2,2]")
    with tempfile.TemporaryDirectory() as state:
        rows = run(spark, folder, killed(state))
        assert (pathlib.Path(state) / "killed").exists()
    print("its worker killed:", corpus.check(folder, rows), flush=True)
    spark.stop()
    corpus.none_left(binary)


if __name__ == "__main__":
    main(sys.argv[1])
