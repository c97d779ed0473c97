"""Artifact folders whose engines run in the driver double, and reconstructors of both paths."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccnet.contract import MANIFEST_NAME, Artifact, ArtifactFolder, Manifest
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.tiles.host_path import HostPath
from tests.runtime.conftest import manifest, model, write
from tests.runtime.gpu.driver_double import Driver, installed
from tests.runtime.gpu.engine_double import SCRATCH, installed_engines

SIDES = (48, 96)
"""Shortest and longest side of the engines, px."""


@pytest.fixture(scope="session", params=["float32", "uint8"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with graphs and with engines, whose content is that of the graphs."""
    return write_engines(tmp_path_factory.mktemp(request.param), manifest(input=request.param))


def write_engines(folder: Path, of: Manifest) -> Path:
    write(folder, of)
    (folder / "full.onnx").write_bytes(model("full", of).SerializeToString())
    graphs = Manifest.read(folder)
    details: dict[str, Any] = {"window": list(SIDES), "version": "10.3.0", "gpu": "Orin (sm_87, 16 SM)"}
    for kind in ("encode", "decode", "full"):
        name = f"{kind}.engine"
        data = (folder / f"{kind}.onnx").read_bytes()
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        graphs = graphs.with_artifact(
            Artifact(file=name, kind=kind, format="tensorrt", precision="fp32", sha256=digest, details=details)
        )
    (folder / MANIFEST_NAME).write_text(graphs.to_json())
    return folder


@contextlib.contextmanager
def gpu(seed: int, integrated: bool, has_sum: bool = True, encode_scratch: int = SCRATCH) -> Iterator[Driver]:
    """Put a driver double with engines in place of CUDA and TensorRT."""
    driver = Driver(seed)
    driver.attributes |= {18: int(integrated)}
    with installed(driver), installed_engines(driver, SIDES, has_sum, encode_scratch):
        yield driver


def resident(folder: Path, **options: Any) -> Reconstructor:
    return Reconstructor.open(folder, backend="tensorrt", input_space="camera", **options)


def on_host(folder: Path, **options: Any) -> Reconstructor:
    """Return a reconstructor for the host's path with the graphs, in the limits of the engines."""
    opened = ArtifactFolder.open(folder)
    encode, decode = (opened.manifest.find(kind, format="tensorrt") for kind in ("encode", "decode"))
    selection = Selection(folder=opened, backend="onnxruntime", encode=encode, decode=decode)
    graphs = [OnnxRuntimeBackend(folder / f"{kind}.onnx", threads=1) for kind in ("encode", "decode")]
    return Reconstructor(selection, HostPath(selection, *graphs, **options), "camera")
