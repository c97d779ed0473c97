"""The network's graphs are built to engines without a GPU; without a GPU the engines are refused at run time."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from ccnet.contract import HALO, SIZE_MULTIPLE, CCNetError, Manifest, sha256
from ccnet.export.engine.plan import EngineSet, build
from ccnet.model import CCNet
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends import trt_api as trt

TILE = 2 * HALO + SIZE_MULTIPLE
ENGINES = [("encode", "fp32"), ("decode", "fp16"), ("full", "fp16")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "tensorrt_rtx" not in trt.available(), reason='tensorrt_rtx is not installed: pip install ".[rtx]"'
    ),
]


@pytest.fixture(scope="module")
def built(artifacts: tuple[CCNet, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return a copy of the tiny network's folder with engines, and the purpose in each build report."""
    folder = tmp_path_factory.mktemp("built") / "ccnet"
    shutil.copytree(artifacts[1], folder)
    reports = build(folder, EngineSet(backend="tensorrt_rtx", tile=TILE))[1]
    return folder, [report.purpose for report in reports]


@pytest.mark.parametrize(("kind", "precision"), ENGINES)
def test_manifest_names_the_engine(built: tuple[Path, list[str]], kind: str, precision: str) -> None:
    folder, purposes = built
    engine = Manifest.read(folder).find(kind, format="tensorrt_rtx", precision=precision)
    assert engine.sha256 == sha256(folder / engine.file)
    graph = onnx.load(folder / f"{kind}.{precision}.onnx").graph
    assert engine.details["layers"] > len(graph.node) / 2
    least, most = engine.details["window"]
    assert least == 16
    assert most > TILE if kind == "encode" else most == TILE
    assert len(purposes) == len(ENGINES)


def test_build_keeps_the_graphs(built: tuple[Path, list[str]], artifacts: tuple[CCNet, Path]) -> None:
    before, after = (Manifest.read(folder).artifacts for folder in (artifacts[1], built[0]))
    assert {one.file for one in before} < {one.file for one in after}
    assert len(after) == len(before) + len(ENGINES)


def test_one_pass_has_half_the_kernels_of_two(built: tuple[Path, list[str]]) -> None:
    counts = [
        sum(kernels for kernels, _ in engine.details["kernels"].values())
        for engine in Manifest.read(built[0]).artifacts
        if engine.format == "tensorrt_rtx"
    ]
    encode, decode, full = counts
    assert full <= (encode + decode) / 2


@pytest.mark.skipif(trt.has_gpu(), reason="there is a GPU for the engine")
def test_without_a_gpu_the_engine_is_refused_and_the_graphs_run(built: tuple[Path, list[str]]) -> None:
    with pytest.raises(CCNetError, match=r"GPU|driver") as refusal:
        Reconstructor.open(built[0], backend="tensorrt-rtx")
    assert "\n" not in str(refusal.value)
    with Reconstructor.open(built[0], input_space="camera", tile=TILE) as reconstructor:
        assert reconstructor.describe()["backend"].startswith("onnxruntime")
