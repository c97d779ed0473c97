"""The subprocess that opens an artifact folder first, because opening may crash."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from ccnet.contract import CCNetError, Manifest, sha256
from ccnet.runtime.probe import check_exit, probe_in_subprocess


def test_folder_that_cannot_be_opened_gives_its_reason(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match=r"no manifest\.json"):
        probe_in_subprocess(tmp_path, "onnxruntime", "fp32")


def test_reason_is_reported_without_library_output(tmp_path: Path) -> None:
    code = "import sys; print('[E] noise', 'ccnet: the reason', '[W] more', sep='\\n', file=sys.stderr); sys.exit(2)"
    with pytest.raises(CCNetError, match=r"^the reason$"):
        check_exit(tmp_path, [sys.executable, "-c", code])


def test_probe_reconstructs_a_first_frame(artifacts: tuple[object, Path], tmp_path: Path) -> None:
    """Some damage shows only when a graph runs: here every weight is infinite."""
    folder = Path(shutil.copytree(artifacts[1], tmp_path / "copy"))
    for path in folder.glob("decode.fp32.*"):  # either variant, depending on the machine
        model = onnx.load(path)
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT:
                weight.raw_data = np.full(len(weight.raw_data) // 4, np.inf, np.float32).tobytes()
        onnx.save(model, path)
        manifest = Manifest.read(folder)
        artifact = next(one for one in manifest.artifacts if one.file == path.name)
        manifest.with_artifact(dataclasses.replace(artifact, sha256=sha256(path))).write(folder)
    with pytest.raises(CCNetError, match="NaN or infinite"):
        probe_in_subprocess(folder, "onnxruntime", "fp32")


def test_intact_folder_passes_the_probe(artifacts: tuple[object, Path]) -> None:
    probe_in_subprocess(artifacts[1], "onnxruntime", "fp16")


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("raise SystemExit(3)", "exit code 3"),
        ("raise SystemExit(2)", "exit code 2"),  # a refusal gives its reason
    ],
)
def test_crash_is_one_line(tmp_path: Path, code: str, how: str) -> None:
    with pytest.raises(CCNetError, match=how) as caught:
        check_exit(tmp_path, [sys.executable, "-c", code])
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
