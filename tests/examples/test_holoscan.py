"""The Holoscan graph on a CPU, where an interpreter with holoscan-cu13 is at hand."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccnet.runtime import Reconstructor, read_cube

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def python() -> str:
    """Return an interpreter with holoscan; it is 430 MB, so its environment may be another than the tests'."""
    if chosen := os.environ.get("CCNET_HOLOSCAN_PYTHON"):
        return chosen
    if importlib.util.find_spec("holoscan") is None:
        pytest.skip("needs holoscan-cu13: name an interpreter that has it and onnxruntime in CCNET_HOLOSCAN_PYTHON")
    return sys.executable


def run(python: str, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the documents in a child process: its libraries and those of the tests do not meet."""
    command = [python, str(REPOSITORY / command[1]), *command[2:]]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=folder
    )


@pytest.fixture
def command() -> list[str]:
    """Return the command of docs/stream.md: the example, its folder of pictures and its folder of cubes."""
    section = (REPOSITORY / "docs/stream.md").read_text(encoding="utf-8").partition("## Holoscan\n")[2]
    return shlex.split(section.partition("```\n")[2].partition("\n")[0])


def test_command_of_the_documents_writes_the_cubes_of_the_api(
    python: str, command: list[str], artifacts: Any, tmp_path: Path
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    (tmp_path / "pictures").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"pictures/{number}.png")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/ccnet").symlink_to(artifacts[1], target_is_directory=True)
    result = run(python, command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "cubes").glob("*.hdr"))) == 3
    with Reconstructor.open(artifacts[1], input_space="srgb") as reconstruct:
        for number, frame in enumerate(frames):
            cube = read_cube(tmp_path / f"cubes/{number:08}.hdr")
            np.testing.assert_allclose(cube, reconstruct(frame), atol=1e-6)


def test_missing_artifacts_end_the_graph_with_the_reason(python: str, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "pictures/black.png")
    result = run(python, [*command, "nowhere"], tmp_path)
    assert result.returncode != 0 and "nowhere: no manifest.json" in result.stderr
