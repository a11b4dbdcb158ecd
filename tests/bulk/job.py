"""Runs the command line of the Job as its pods would. Usage: job.py BINARY BUILT_YAML"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import yaml

SHARDS = 5
EXAMPLES = pathlib.Path(__file__).parents[2] / "models/demo/examples"


def main(binary: str, built: str) -> None:
    with open(built) as file:
        job = next(thing for thing in yaml.safe_load_all(file) if thing["kind"] == "Job")
    [container] = job["spec"]["template"]["spec"]["containers"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        exit_codes(container, folder)
        terminated(container, folder)
        shards(container, folder, binary)


def pod(container: dict, folder: pathlib.Path, program: str, index: int) -> subprocess.Popen:
    """The container's command with this program, its mounts in `folder`."""
    path = folder / "bin"
    path.mkdir(exist_ok=True)
    (path / "siglip").unlink(missing_ok=True)
    if program.startswith("#!"):
        (path / "siglip").write_text(program)
        (path / "siglip").chmod(0o755)
    else:
        (path / "siglip").symlink_to(program)
    [script] = container["args"]
    for mount in ("/pictures", "/vectors"):
        assert f" {mount} " in script
        script = script.replace(f" {mount} ", f" {folder}{mount} ")
    environment = {
        "PATH": f"{path}:/usr/bin:/bin",
        **{entry["name"]: entry["value"] for entry in container["env"]},
        "JOB_COMPLETION_INDEX": str(index),
        "SHARDS": str(SHARDS),
        "SIGLIP_MODEL": "demo",
    }
    return subprocess.Popen(
        [*container["command"], script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def exit_codes(container: dict, folder: pathlib.Path) -> None:
    # 137: killed for its memory.
    for code, seen in [(0, 0), (1, 1), (2, 2), (3, 0), (4, 4), (75, 75), (137, 137)]:
        process = pod(container, folder, f"#!/bin/sh\nexit {code}\n", 0)
        process.communicate(timeout=10)
        assert process.returncode == seen, (code, process.returncode)


def terminated(container: dict, folder: pathlib.Path) -> None:
    """The pod's signal reaches the program, and the pod ends with the program's code and not before it."""
    done = folder / "done"
    program = f"""#!/bin/sh
trap 'sleep 0.3; touch {done}; exit 75' TERM
echo started
while :; do sleep 0.05; done
"""
    process = pod(container, folder, program, 0)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 75 and done.exists(), process.returncode


def shards(container: dict, folder: pathlib.Path, binary: str) -> None:
    """All indexes together embed each picture once; a second run of an index computes nothing."""
    pictures = folder / "pictures"
    pictures.mkdir()
    names = set()
    for copy in range(10):
        for source in sorted(EXAMPLES.glob("*.png")):
            (pictures / f"{copy}").mkdir(exist_ok=True)
            shutil.copy(source, pictures / f"{copy}" / source.name)
            names.add(f"{copy}/{source.name}")
    (pictures / "bad.png").write_bytes(b"not a picture")
    names.add("bad.png")
    (folder / "vectors").mkdir()

    for _ in range(2):
        for index in range(SHARDS):
            process = pod(container, folder, binary, index)
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, (index, process.returncode, output)
        outputs = sorted((folder / "vectors").rglob("*.parquet"))
        seen = [name for path in outputs for name in rows(path)]
        assert sorted(seen) == sorted(names), (len(seen), len(names))
        before = {path: path.stat().st_mtime_ns for path in outputs}
        time.sleep(0.01)
    assert before == {path: path.stat().st_mtime_ns for path in sorted((folder / "vectors").rglob("*.parquet"))}
    print(f"{len(names)} pictures in {SHARDS} shards, {len(before)} files")


def rows(path: pathlib.Path) -> list[str]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=["name"])["name"].to_pylist()


if __name__ == "__main__":
    if os.name != "posix":
        sys.exit("needs a shell")
    main(*sys.argv[1:])
