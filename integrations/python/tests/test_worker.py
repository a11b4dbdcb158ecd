from __future__ import annotations

import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from siglip_client import FingerprintError, InputError, Worker, WorkerError, connect, shared

from .common import PICTURES, alive, children, gone, table

BAD = [None, b"", b"no picture", PICTURES[0][:200]]


class WorkerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.assertEqual(children(), [], "a worker is left over")

    tearDown = setUp


class Tables(WorkerTest):
    def test_rows_keep_their_order_and_their_columns(self) -> None:
        data = table([*PICTURES, *BAD, *PICTURES])
        with Worker("demo") as worker:
            out = worker.embed(data)
            self.assertEqual(out.schema, worker.output_schema(data.schema))
            self.assertEqual(out.column_names, ["id", "tags", "embedding", "error"])
            self.assertEqual(out.select(["id", "tags"]), data.select(["id", "tags"]))
            self.assertEqual(out.schema.metadata[b"siglip.fingerprint"].decode(), worker.fingerprint)
            self.assertEqual((worker.dimensions, worker.model), (192, "demo"))
            vectors = out["embedding"].to_pylist()
            good = [*range(6), *range(10, 16)]
            self.assertEqual([at for at, vector in enumerate(vectors) if vector], good)
            self.assertEqual([at for at, error in enumerate(out["error"].to_pylist()) if error is None], good)
            self.assertEqual(out["error"][6].as_py(), "null")
            self.assertAlmostEqual(sum(x * x for x in vectors[0]), 1.0, places=5)
            for one, other in zip(vectors[:6], vectors[10:]):
                self.assertLess(max(abs(x - y) for x, y in zip(one, other)), 1e-6)

            [batch] = data.to_batches()
            self.assertEqual(pa.Table.from_batches([worker.embed(batch)]).column_names, out.column_names)
            empty = worker.embed(data.slice(0, 0))
            self.assertEqual((empty.num_rows, empty.schema), (0, out.schema))
            with self.assertRaises(InputError):
                worker.embed(data.drop(["image"]))

    def test_a_stream_has_the_batches_of_its_source(self) -> None:
        batches = [table(PICTURES[:n]).to_batches()[0] for n in (1, 6, 3)] * 5
        with Worker("demo") as worker:
            out = list(worker.stream(iter(batches)))
            self.assertEqual([batch.num_rows for batch in out], [batch.num_rows for batch in batches])
            self.assertEqual([b.column("id") for b in out], [b.column("id") for b in batches])
            # One that is left in the middle harms nothing.
            stream = worker.stream(batches)
            next(stream)
            stream.close()
            self.assertEqual(worker.embed(table()).num_rows, 6)

    def test_texts_names_and_numbers(self) -> None:
        data = pa.table({"caption": pa.array(["a cat", None, ""]), "n": [1, 2, 3]})
        options = {"kind": "text", "column": "caption", "keep_input": True, "embedding_dtype": "f16"}
        with connect("demo", **options) as worker:
            out = worker.embed(data)
        self.assertEqual(out.column_names, ["caption", "n", "embedding", "error"])
        self.assertEqual(out.schema.field("embedding").type.value_type, pa.float16())
        self.assertEqual(out["error"].to_pylist()[:2], [None, "null"])

    def test_labels(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(["guitar", "red apple"], file)
            file.flush()
            with Worker("demo", label_set=file.name) as worker:
                out = worker.embed(table([*PICTURES, b"bad"]))
        self.assertEqual(out.column_names[-4:], ["embedding", "error", "label", "score"])
        self.assertEqual(out["label"].to_pylist()[2:4], ["guitar", "red apple"])
        self.assertEqual(out["label"].to_pylist()[6], None)

    def test_threads_share_it(self) -> None:
        with Worker("demo") as worker, ThreadPoolExecutor(8) as threads:
            one = worker.embed(table())["embedding"].to_pylist()
            # Each thread finds its own rows in its answer.
            orders = [[(shift + at) % 6 for at in range(6)] for shift in range(6)] * 2
            outs = threads.map(lambda order: worker.embed(table([PICTURES[at] for at in order])), orders)
            for order, out in zip(orders, outs):
                for at, vector in zip(order, out["embedding"].to_pylist()):
                    self.assertLess(max(abs(x - y) for x, y in zip(one[at], vector)), 1e-5)

    def test_much_more_than_the_pipes_hold(self) -> None:
        # 64 MB; what is no picture takes no time.
        rows = [b"no picture" * 2000] * 3200
        rows[::800] = PICTURES[:4]
        with Worker("demo") as worker:
            out = worker.embed(table(rows))
        self.assertEqual(out["embedding"].is_valid().to_pylist(), [at % 800 == 0 for at in range(3200)])


class Failures(WorkerTest):
    def test_a_killed_child_is_an_error_for_all_that_waits_and_comes(self) -> None:
        worker = Worker("demo")
        threading.Timer(0.3, os.kill, (worker.pid, signal.SIGKILL)).start()
        with self.assertRaises(WorkerError) as raised:
            for _ in worker.stream([table(PICTURES * 20)] * 100):
                pass
        self.assertIn("was killed by signal 9 (SIGKILL); its last lines:\n  ", str(raised.exception))
        self.assertIn("ready", str(raised.exception))
        self.assertEqual(raised.exception.exit_code, -9)
        self.assertFalse(worker.usable)
        with self.assertRaisesRegex(WorkerError, "SIGKILL"):
            worker.embed(table())
        worker.close()
        worker.close()

    def test_what_the_program_says_is_in_the_error(self) -> None:
        for options, words in [
            ({"model": "demo", "flags": ["--zork"]}, "--zork"),
            ({"model": "/there/is/none"}, "/there/is/none"),
            ({"model": "demo", "label_set": "none.json"}, "none.json"),
        ]:
            with self.assertRaises(WorkerError) as raised:
                Worker(**options)
            self.assertIn(words, str(raised.exception))
            self.assertGreater(raised.exception.exit_code or 0, 0)

    def test_programs_that_are_none(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            def program(script: str) -> str:
                path = pathlib.Path(folder, f"p{len(os.listdir(folder))}")
                path.write_text(f"#!/bin/sh\n{script}\n")
                path.chmod(0o755)
                return str(path)

            file = pathlib.Path(folder, "file")
            file.write_text("")
            for binary, words in [
                (f"{folder}/none", "is not there"),
                (str(file), "cannot be run"),
                (program("echo no such model >&2; exit 70"), "ended with exit code 70; its last lines:\n  no such model"),
                (program("exit 0"), "ended with exit code 0; it said nothing"),
                (program(r"printf '\377\377\377\377\010\000\000\000garbage!'; exec sleep 60"), "writes what is not an answer"),
                (program("head -c 100000 /dev/zero; exec sleep 60"), "siglip worker"),
                (program("yes | head -c 3000000 >&2; exit 1"), "exit code 1"),
            ]:
                with self.assertRaises(WorkerError) as raised:
                    Worker("demo", binary=binary, start_timeout=60)
                self.assertIn(words, str(raised.exception))
                self.assertLess(len(str(raised.exception)), 70_000)
            with self.assertRaisesRegex(WorkerError, "not ready after 0.5 s"):
                Worker("demo", binary=program("exec sleep 60"), start_timeout=0.5)
            # Deaf to everything: killed all the same.
            started = time.monotonic()
            with self.assertRaises(WorkerError):
                Worker("demo", binary=program("trap '' TERM INT; while :; do sleep 0.1; done"), start_timeout=0.5)
            self.assertLess(time.monotonic() - started, 10)

    def test_no_program(self) -> None:
        saved = {name: os.environ.pop(name, None) for name in ("SIGLIP_BIN", "PATH")}
        try:
            os.environ["PATH"] = "/nowhere"
            with self.assertRaisesRegex(WorkerError, "no program `siglip` on PATH; name it with binary= or"):
                Worker("demo")
            os.environ["SIGLIP_BIN"] = "/nowhere/siglip"
            with self.assertRaisesRegex(WorkerError, r"/nowhere/siglip \(SIGLIP_BIN\) is not there"):
                Worker("demo")
        finally:
            os.environ.pop("SIGLIP_BIN", None)
            os.environ.update({name: value for name, value in saved.items() if value is not None})

    def test_another_embedding_space(self) -> None:
        with self.assertRaisesRegex(FingerprintError, "demo gives vectors of the embedding space .*, not of 5f2a"):
            Worker("demo", fingerprint="5f2a")
        with Worker("demo") as worker, Worker("demo", fingerprint=worker.fingerprint) as same:
            self.assertEqual(same.fingerprint, worker.fingerprint)

    def test_closing_while_it_works(self) -> None:
        worker = Worker("demo")
        futures = []

        def work() -> None:
            try:
                worker.embed(table(PICTURES * 200))
                futures.append("done")
            except WorkerError as error:
                futures.append(str(error))

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)
        worker.close()
        thread.join(30)
        self.assertEqual(len(futures), 1)
        with self.assertRaisesRegex(WorkerError, "closed"):
            worker.embed(table())


class Processes(WorkerTest):
    def test_it_ends_in_order_and_with_its_owner(self) -> None:
        worker = Worker("demo")
        pid = worker.pid
        self.assertTrue(alive(pid))
        worker.close()
        self.assertFalse(alive(pid))
        worker = Worker("demo")
        pid = worker.pid
        del worker
        gc.collect()
        self.assertTrue(gone(pid))

    def script(self, code: str) -> subprocess.Popen[str]:
        path = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": path}
        code = f"import os, sys, signal, threading\nfrom siglip_client import *\n{code}"
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)

    def test_it_ends_with_the_interpreter_however_that_ends(self) -> None:
        for end in ["", "sys.exit(3)", "raise ValueError", "os._exit(1)", "os.kill(os.getpid(), 9)"]:
            process = self.script(f"w = Worker('demo')\nprint(w.pid, flush=True)\n{end}")
            pid = int(process.communicate(timeout=60)[0])
            self.assertTrue(gone(pid), end)

    def test_a_copy_of_the_pipes_in_another_process_does_not_keep_it(self) -> None:
        process = self.script(
            "w = Worker('demo')\nchild = os.fork()\nif child == 0:\n    signal.pause()\n"
            "print(w.pid, child, flush=True)\nos._exit(0)"
        )
        pid, child = map(int, process.stdout.readline().split())  # type: ignore[union-attr]
        try:
            self.assertTrue(gone(pid))
        finally:
            os.kill(child, signal.SIGKILL)
            process.stdout.close()  # type: ignore[union-attr]
            process.wait()

    def test_a_forked_process_leaves_it_alone(self) -> None:
        code = (
            "import pyarrow as pa\nw = Worker('demo')\nchild = os.fork()\nif child == 0:\n"
            "    try: w.embed(pa.table({'image': pa.array([b''])}))\n"
            "    except WorkerError as error: print(error, flush=True)\n    w.close()\n    os._exit(0)\n"
            "os.waitpid(child, 0)\nprint(w.embed(pa.table({'image': pa.array([b''])})).num_rows)\nw.close()"
        )
        out, _ = self.script(code).communicate(timeout=60)
        self.assertIn("belongs to the process that this one was forked from", out)
        self.assertTrue(out.endswith("\n1\n"), out)

    def test_it_outlives_the_thread_that_made_it(self) -> None:
        made: list[Worker] = []
        thread = threading.Thread(target=lambda: made.append(Worker("demo")))
        thread.start()
        thread.join()
        time.sleep(0.5)
        self.assertEqual(made[0].embed(table()).num_rows, 6)
        made[0].close()

    def test_one_is_shared_and_replaced_when_it_died(self) -> None:
        first = shared("demo")
        self.assertIs(shared("demo"), first)
        self.assertIsNot(shared("demo", kind="text"), first)
        assert isinstance(first, Worker)
        os.kill(first.pid, signal.SIGKILL)
        with self.assertRaises(WorkerError):
            first.embed(table())
        second = shared("demo")
        self.assertEqual(second.embed(table()).num_rows, 6)
        second.close()
        shared("demo", kind="text").close()


if __name__ == "__main__":
    unittest.main()
