"""Folders of small graphs and engines; those that may be changed are copies."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from PIL import Image

from ccnet.export.engine.plan import build
from ccnet.export.reference import GOLDEN, pack
from ccnet.runtime.backends import select as backend
from ccnet.runtime.backends import trt_api as trt

from .artifacts import BASE, GRAPHS, RTX, entry, graph, reference


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs, and golden outputs of one frame; never changed."""
    folder, artifacts = tmp_path_factory.mktemp("exported"), []
    for name, kind in GRAPHS.items():
        onnx.save(graph(kind), folder / name)
        artifacts.append(entry(folder, name, kind, "onnx", name.split(".")[1]))
    (folder / GOLDEN).write_bytes(pack([reference()]))
    artifacts.append(entry(folder, GOLDEN, "golden", "npz", "fp32"))
    replace(BASE, artifacts=tuple(artifacts)).write(folder)
    return folder


@pytest.fixture(scope="module")
def built(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs, golden outputs and engines; never changed."""
    if "tensorrt_rtx" not in trt.available():
        pytest.skip('tensorrt_rtx is not installed: pip install ".[rtx]"')
    folder = Path(shutil.copytree(exported, tmp_path_factory.mktemp("built") / "ccnet"))
    build(folder, RTX)
    return folder


@pytest.fixture
def work(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may be changed, where commands look for it, beside a photograph."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(reference().frame).save("photo.png")
    return Path(shutil.copytree(built, tmp_path / "build" / "ccnet"))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there are a GPU and TensorRT-RTX, and fail if this process opens an engine."""
    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="1.7.1.116"))
    monkeypatch.setattr(trt, "available", lambda: ["tensorrt_rtx"])
    monkeypatch.setattr(backend, "gpu", lambda device: "RTX 4090 (sm_89, 128 SM)")
    monkeypatch.setattr(backend, "has_gpu", lambda: True)
    monkeypatch.setattr(backend, "TensorRTBackend", lambda *_, **__: pytest.fail("opened before it was tried"))
