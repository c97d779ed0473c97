"""Every command line of the documents about engines is run, on a small network, with real builds.

Where a document names TensorRT and there is none for this machine, TensorRT-RTX builds in its place. ``--dry-run`` is
left out, so that what it announces is built. Commands that read weights get the small network's: an ablation without
the recurrence, whose graphs build in seconds. Each command runs in a folder of its own, where those before it have run.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.export import device
from ccnet.export.cli.bundle import bundle
from ccnet.export.cli.export import export
from ccnet.model import CCNet
from ccnet.model.checkpoint import save_checkpoint
from ccnet.model.config import CCNetConfig
from ccnet.runtime.backends import trt_api as trt
from tests.conftest import randomised
from tests.requirements import needs_rtx
from tests.test_docs import calls_in_blocks

COMMANDS = ("export", "build", "check", "bundle", "inspect")
DEVICE = "-m ccnet.export.device "

pytestmark = [pytest.mark.slow, needs_rtx]


def command_lines() -> Iterator[str]:
    """Yield each documented call of a command about engines."""
    calls = sorted({arguments for _, arguments in calls_in_blocks("ccnet")})
    for command in COMMANDS:
        yield from (call for call in calls if call.split()[:1] == [command])


def device_lines() -> list[str]:
    """Return the arguments of each documented call of ``python -m ccnet.export.device``."""
    return sorted({call.removeprefix(DEVICE) for _, call in calls_in_blocks("python") if call.startswith(DEVICE)})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the documents name: frames, and weights of a small network."""
    folder = tmp_path_factory.mktemp("documents")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    (folder / "DATA/frames").mkdir(parents=True)
    for name in ("photo.jpg", "DATA/frames/first.png"):
        Image.fromarray(pixels).save(folder / name)
    torch.manual_seed(0)
    save_checkpoint(folder / "tiny.safetensors", randomised(CCNet(CCNetConfig(units=1, continuity="none"))))
    return folder


@pytest.fixture(scope="module")
def exported(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same files, the small network's graphs and their bundle."""
    folder = Path(shutil.copytree(files, tmp_path_factory.mktemp("exported"), dirs_exist_ok=True))
    graphs, weights = folder / "build/ccnet", folder / "tiny.safetensors"
    export(graphs, weights=weights)
    bundle(graphs, frames=[folder / "photo.jpg"], out=folder / "build/ccnet-bundle.zip", weights=weights)
    return folder


def prepared(call: str) -> list[str]:
    """Return a call as a test can run it, see the top of this file."""
    words = [word for word in shlex.split(call) if word != "--dry-run"]
    if "tensorrt" in words and not ("tensorrt" in trt.available() and trt.has_gpu()):
        words[words.index("tensorrt")] = "tensorrt-rtx"
    reads_weights = words[0] == "export" or "--frames" in words
    return [*words, "--weights", "tiny.safetensors"] if reads_weights else words


def test_documents_have_command_lines_about_engines() -> None:
    calls = list(command_lines())
    assert {call.split()[0] for call in calls} == set(COMMANDS)
    assert any("--memory 400" in call for call in calls)
    assert len(device_lines()) >= 2


@pytest.mark.parametrize("call", list(command_lines()))
def test_documented_command_runs(
    call: str, tmp_path: Path, ccnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    shutil.copytree(request.getfixturevalue("files" if call.startswith("export") else "exported"), tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    result = ccnet(*prepared(call))
    assert result.code == 0, result.err
    if call.startswith("build"):
        assert len(list(Path("build/ccnet").glob("*.engine"))) == 3


@pytest.mark.parametrize("call", device_lines())
def test_documented_command_of_a_device_runs(
    call: str, exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copy(exported / "build/ccnet-bundle.zip", tmp_path / "ccnet-bundle.zip")
    monkeypatch.chdir(tmp_path)
    assert device.main(shlex.split(call)) == 0
    assert len(list(tmp_path.glob("build/ccnet/*.engine"))) == 3
