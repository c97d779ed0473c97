"""Damaged graphs that TensorRT parses: each becomes an engine or one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from onnx import TensorProto

from ccnet.runtime.io.artifact_lock import LOCK_NAME
from tests.requirements import needs_rtx

from .artifacts import ENGINES, GAIN, SHAPES, Ccnet, damaged, graph, vouch

MANY = """
import sys
from pathlib import Path
from ccnet.contract import CCNetError
from ccnet.export.engine.builder import BuildOptions, build_engine
for path in map(Path, sys.argv[2:]):
    try:
        build_engine(path, Path(sys.argv[1]), BuildOptions(backend="tensorrt_rtx", shapes=SHAPES))
        said = "built"
    except CCNetError as error:
        said = "refused" if len(str(error).splitlines()) == 1 else "refused in many lines"
    except BaseException as error:
        said = repr(error)
    print("\\n@", path.name, said, flush=True)
"""


def outcomes(paths: list[Path], engine: Path) -> dict[str, str]:
    """Return the outcome of each build; a process builds graphs until one kills it, because each start takes time."""
    found: dict[str, str] = {}
    while len(found) < len(paths):
        left = paths[len(found) :]
        code = MANY.replace("SHAPES", repr(SHAPES))
        child = subprocess.run([sys.executable, "-c", code, engine, *left], capture_output=True, check=False)
        lines = [line.split(" ", 2) for line in child.stdout.decode(errors="replace").splitlines() if line[:2] == "@ "]
        found |= {name: said for _, name, said in lines}
        if len(lines) < len(left):
            found[left[len(lines)].name] = f"ended by {child.returncode}"
    return found


@pytest.mark.slow
@needs_rtx
@pytest.mark.parametrize("name", ["encode.fp32.onnx", "decode.fp16.onnx"])
def test_hundred_damaged_graphs_become_engines_or_one_line(
    exported: Path, tmp_path: Path, ccnet: Ccnet, name: str
) -> None:
    """The command, which builds in a subprocess, gets a few graphs of each outcome and all that kill the process."""
    paths = [tmp_path / f"{seed}.onnx" for seed in range(100)]
    for seed, path in enumerate(paths):
        path.write_bytes(damaged((exported / name).read_bytes(), seed))
    found = outcomes(paths, tmp_path / "engine")
    kinds = {what: [file for file, said in found.items() if said == what] for what in set(found.values())}
    odd = {file: said for file, said in found.items() if said not in ("built", "refused") and "ended" not in said}
    assert not odd
    assert len(kinds["refused"]) >= 50 and len(kinds["built"]) >= 3, Counter(found.values())
    tried = [file for files in kinds.values() for file in files[:3]]
    for file in dict.fromkeys([*tried, *(one for one in found if "ended" in found[one])]):
        folder = Path(shutil.copytree(exported, tmp_path / "folders" / file))
        (folder / name).write_bytes((tmp_path / file).read_bytes())
        vouch(folder)
        before = sorted(folder.iterdir())
        result = ccnet("build", folder, "--backend", "tensorrt-rtx", "--tile", 64)
        if found[file] == "built":
            assert result.code == 0, result.err
            continue
        assert result.code == 2 and "Traceback" not in result.err
        assert result.err.splitlines()[-1].startswith("ccnet: ") and name in result.err.splitlines()[-1]
        left = {path.name for path in folder.iterdir()} - {path.name for path in before} - {LOCK_NAME}
        assert left <= {ENGINES[0]} - {f"{name.rsplit('.', 1)[0]}.tensorrt_rtx.engine"}, "encode's is whole"


@needs_rtx
@pytest.mark.parametrize("location", ["/etc/passwd", "../outside.bin", "weights.bin"])
@pytest.mark.parametrize("command", ["build", "inspect"])
def test_weights_in_other_files_are_never_read(
    exported: Path, tmp_path: Path, ccnet: Ccnet, monkeypatch: pytest.MonkeyPatch, location: str, command: str
) -> None:
    """TensorRT and ONNX Runtime would load weights from files beside the graph, whose hashes nobody checks."""
    folder = Path(shutil.copytree(exported, tmp_path / "folder"))
    monkeypatch.chdir(folder)
    for path in (folder / "weights.bin", tmp_path / "outside.bin"):
        path.write_bytes(bytes(GAIN.nbytes))
    model = graph("decode")
    gain = next(one for one in model.graph.initializer if one.name == "gain")
    gain.ClearField("raw_data")
    gain.data_location = TensorProto.EXTERNAL
    gain.external_data.add(key="location", value=location)
    (folder / "decode.fp16.onnx").write_bytes(model.SerializeToString())
    vouch(folder)
    asked = [folder, "--backend", "tensorrt-rtx", "--tile", 64] if command == "build" else ["decode.fp16.onnx"]
    result = ccnet(command, *asked)
    assert result.code == 2 and "decode.fp16.onnx: keeps tensors in another file" in result.err.splitlines()[-1]
    assert not (folder / ENGINES[1]).exists()
