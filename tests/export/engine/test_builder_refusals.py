"""Graphs, shapes, options and paths that a builder refuses, each with a one-line error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from onnx import helper

from ccnet.contract import CCNetError
from ccnet.export.engine.builder import BuildOptions, build_engine
from ccnet.export.engine.report import Range
from ccnet.runtime.backends import trt_api as trt
from tests.requirements import needs_rtx

from .gated_model import FLOAT, HALF, PACKED, PLANAR, Build, model, refusal


@needs_rtx
def test_uint8_frame_transposed_first_is_refused_with_the_reason(build: Build, tmp_path: Path) -> None:
    line = refusal(build, model(packed=True, cast_first=False), PACKED, folder=tmp_path)
    assert "node 'planar' (Transpose)" in line
    assert "first input has type UInt8" in line
    assert "cudaError" not in line
    assert "/_src/" not in line


@needs_rtx
def test_types_are_never_converted_silently(build: Build, tmp_path: Path) -> None:
    mixed = model(HALF)
    next(node for node in mixed.graph.node if node.name == "typed_scale").attribute[0].i = FLOAT
    assert "same input types" in refusal(build, mixed, folder=tmp_path)


@needs_rtx
@pytest.mark.parametrize("domain", ["", "my.operators"])
def test_unknown_operator_is_named(build: Build, tmp_path: Path, domain: str) -> None:
    made = model()
    node = next(node for node in made.graph.node if node.name == "open")
    node.op_type, node.domain = "Det" if not domain else "Missing", domain
    if domain:
        made.opset_import.append(helper.make_opsetid(domain, 1))
    assert f"node 'open' ({node.op_type})" in refusal(build, made, folder=tmp_path)


@needs_rtx
@pytest.mark.parametrize("data", [b"", b"hello", bytes(range(256)) * 40], ids=["empty", "text", "binary"])
def test_bytes_that_are_not_onnx_are_refused(build: Build, tmp_path: Path, data: bytes) -> None:
    assert "no ONNX model" in refusal(build, data, folder=tmp_path)


@needs_rtx
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_file_is_refused(build: Build, tmp_path: Path, part: float) -> None:
    data = model().SerializeToString()
    assert "Failed to parse" in refusal(build, data[: int(len(data) * part)], folder=tmp_path)


@needs_rtx
def test_missing_file_is_refused(tmp_path: Path) -> None:
    paths = (tmp_path / "absent.onnx", tmp_path / "engine")
    line = refusal(build_engine, *paths, BuildOptions(backend="tensorrt_rtx", shapes={}), folder=tmp_path)
    assert "absent.onnx: cannot be read (No such file" in line


@needs_rtx
@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({}, "'rgb' has shape (1, 3, -1, -1) and no range"),
        ({**PLANAR, "rbg": PLANAR["rgb"]}, "'rbg', expected one of rgb, context"),
        ({"rgb": ((1, 3, 64, 64), (1, 3, 16, 16), (1, 3, 96, 96))}, "min <= opt <= max"),
        ({"rgb": ((1, 4, 16, 16), (1, 4, 16, 16), (1, 4, 16, 16))}, "min <= opt <= max"),
        ({"rgb": ((3, 16, 16), (3, 16, 16), (3, 16, 16))}, "min <= opt <= max"),
        ({**PLANAR, "context": ((1, 8), (1, 8), (1, 9))}, "'context' has shape (1, 8)"),
    ],
    ids=["none", "unknown", "order", "channels", "rank", "fixed"],
)
def test_invalid_shapes_are_refused(build: Build, tmp_path: Path, shapes: Mapping[str, Range], expected: str) -> None:
    assert expected in refusal(build, model(), shapes, folder=tmp_path)


@needs_rtx
@pytest.mark.parametrize(("limit", "expected"), [(1, "workspace limit"), (0, "0 bytes"), (-1, "-1 bytes")])
def test_workspace_that_is_too_small_is_refused(build: Build, tmp_path: Path, limit: int, expected: str) -> None:
    assert expected in refusal(build, model(), workspace_bytes=limit, folder=tmp_path)


@needs_rtx
@pytest.mark.parametrize("place", ["absent/engine", "model.onnx/engine", "."])
def test_output_that_cannot_be_written_is_refused_before_building(tmp_path: Path, place: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model().SerializeToString())

    def progress(*_: object) -> None:
        pytest.fail("it was built first")

    options = BuildOptions(backend="tensorrt_rtx", shapes=PLANAR)
    line = refusal(build_engine, path, tmp_path / place, options, progress=progress, folder=tmp_path)
    assert str(tmp_path) in line


@needs_rtx
def test_rtx_refuses_unsupported_options(build: Build, tmp_path: Path) -> None:
    assert "lean runtime" in refusal(build, model(), compatible=True, folder=tmp_path)
    if not trt.has_gpu():
        assert "only beside a GPU" in refusal(build, model(), strip=True, folder=tmp_path)


@needs_rtx
def test_rtx_refuses_a_timing_cache(build: Build, tmp_path: Path) -> None:
    assert "runtime_cache" in refusal(build, model(), timing_cache=tmp_path / "cache", folder=tmp_path)


def test_unknown_backend_is_refused(build: Build, tmp_path: Path) -> None:
    assert "'tensort', expected one of" in refusal(build, model(), backend="tensort", folder=tmp_path)


@pytest.mark.skipif("tensorrt" in trt.available(), reason="tensorrt is installed")
def test_missing_module_names_what_to_install(build: Build, tmp_path: Path) -> None:
    line = refusal(build, model(), backend="tensorrt", folder=tmp_path)
    assert '".[tensorrt]"' in line
    assert "JetPack" in line


def test_tensorrt_without_a_gpu_is_refused(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gpu(device: int) -> str:
        raise CCNetError("no CUDA driver")

    monkeypatch.setattr("ccnet.export.engine.builder.gpu", gpu)
    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="11.4.0"))
    line = refusal(build, model(), backend="tensorrt", folder=tmp_path)
    assert re.search(r"only on the GPU that will run it \(no CUDA driver\).*tensorrt_rtx", line)
