"""Engines: built for real with tensorrt_rtx, which needs no GPU, and every refusal in one line."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ccnet.contract import CCNetError
from ccnet.export.engine.builder import BuildOptions, build_engine
from ccnet.export.engine.report import EngineReport, Range
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.cuda import gpus
from ccnet.runtime.backends.tensorrt import TensorRTBackend

needs_rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in trt.available(), reason="tensorrt_rtx is not installed: pip install 'ccnet-hsi[rtx]'"
)

FLOAT, HALF, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
CONTEXT = 8
PLANAR: Mapping[str, Range] = {"rgb": ((1, 3, 16, 16), (1, 3, 64, 64), (1, 3, 128, 96))}
PACKED: Mapping[str, Range] = {"rgb": ((1, 16, 16, 3), (1, 64, 64, 3), (1, 128, 96, 3))}

Build = Callable[..., EngineReport]


def model(
    work: int = FLOAT, *, size: tuple[Any, Any] = ("H", "W"), packed: bool = False, cast_first: bool = True
) -> onnx.ModelProto:
    """(rgb, context) → cube, computed in type ``work``: a gated convolution scaled by what the context holds.

    packed: rgb is UINT8 (1, H, W, 3), Cast before it is transposed or after.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    number = np.float16 if work == HALF else np.float32
    rng = np.random.default_rng(0)

    def constant(name: str, value: Any, dtype: Any = number) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(name: str, operator: str, *inputs: str, outputs: tuple[str, ...] = (), **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, outputs or (name,), name=name, **attributes))
        return name

    x = "rgb"
    if packed and not cast_first:
        x = node("planar", "Transpose", x, perm=[0, 3, 1, 2])
    x = node("typed", "Cast", x, to=work)
    if packed and cast_first:
        x = node("planar", "Transpose", x, perm=[0, 3, 1, 2])
    if packed:
        x = node("scaled", "Div", x, constant("full", 255))
    x = node("embed", "Conv", x, constant("kernel", rng.normal(size=(8, 3, 3, 3))), pads=[1, 1, 1, 1])
    node("halves", "Split", x, outputs=("value", "gate"), axis=1, num_outputs=2)
    x = node("gated", "Mul", "value", node("open", "Sigmoid", "gate"))
    matrix = node("matrix", "Reshape", "context", constant("rows", [1, 4, 2, 1], np.int64))
    scale = node("scale", "ReduceMean", matrix, constant("axis", [2], np.int64), keepdims=1)
    x = node("applied", "Mul", x, node("typed_scale", "Cast", scale, to=work))
    node("cube", "Cast", x, to=FLOAT)
    rgb = (UINT8, [1, *size, 3]) if packed else (FLOAT, [1, 3, *size])
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("rgb", *rgb), helper.make_tensor_value_info("context", FLOAT, [1, CONTEXT])],
        [helper.make_tensor_value_info("cube", FLOAT, [1, 4, *size])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a model, or the bytes of what is not one, with tensorrt_rtx into ``tmp_path / 'engine'``."""

    def build(
        source: onnx.ModelProto | bytes, shapes: Mapping[str, Range] = PLANAR, *, progress: Any = None, **changes: Any
    ) -> EngineReport:
        path = tmp_path / "model.onnx"
        path.write_bytes(source if isinstance(source, bytes) else source.SerializeToString())
        options = BuildOptions(**{"backend": "tensorrt_rtx", "shapes": shapes, **changes})
        return build_engine(path, tmp_path / "engine", options, progress=progress)

    return build


def refusal(call: Callable[..., Any], *args: Any, folder: Path, **options: Any) -> str:
    """The one line of the CCNetError that the call must raise, having written nothing but the model."""
    with pytest.raises(CCNetError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    assert {path.name for path in folder.iterdir()} <= {"model.onnx"}
    return str(caught.value)


@needs_rtx
@pytest.mark.parametrize("work", [FLOAT, HALF], ids=["fp32", "fp16"])
@pytest.mark.parametrize("size", [("H", "W"), (64, 48)], ids=["dynamic", "static"])
def test_the_report_tells_what_was_built(build: Build, tmp_path: Path, work: int, size: tuple[Any, Any]) -> None:
    dynamic = size == ("H", "W")
    report = build(model(work, size=size), PLANAR if dynamic else {})
    rgb, context, cube = report.io
    height, width = (-1, -1) if dynamic else size
    assert (rgb.name, rgb.mode, rgb.dtype, rgb.shape) == ("rgb", "input", "float32", (1, 3, height, width))
    assert rgb.range == (PLANAR["rgb"] if dynamic else None)
    assert (context.name, context.mode, context.shape, context.range) == ("context", "input", (1, CONTEXT), None)
    assert (cube.name, cube.mode, cube.dtype, cube.shape) == ("cube", "output", "float32", (1, 4, height, width))
    assert report.backend == "tensorrt_rtx"
    assert report.version == trt.load("tensorrt_rtx").__version__
    assert report.layers >= 9
    assert report.bytes == (tmp_path / "engine").stat().st_size > 1000
    assert 0 < report.seconds < 60
    assert "not for Jetson" in report.purpose
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "engine"}


@needs_rtx
@pytest.mark.parametrize("work", [FLOAT, HALF], ids=["fp32", "fp16"])
def test_a_uint8_frame_is_cast_before_it_is_transposed(build: Build, work: int) -> None:
    rgb = build(model(work, packed=True), PACKED).io[0]
    assert (rgb.dtype, rgb.shape) == ("uint8", (1, -1, -1, 3))


@needs_rtx
def test_a_uint8_frame_transposed_first_is_refused_with_the_reason(build: Build, tmp_path: Path) -> None:
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
def test_an_unknown_operator_is_named(build: Build, tmp_path: Path, domain: str) -> None:
    made = model()
    node = next(node for node in made.graph.node if node.name == "open")
    node.op_type, node.domain = "Det" if not domain else "Missing", domain
    if domain:
        made.opset_import.append(helper.make_opsetid(domain, 1))
    assert f"node 'open' ({node.op_type})" in refusal(build, made, folder=tmp_path)


@needs_rtx
@pytest.mark.parametrize("data", [b"", b"hello", bytes(range(256)) * 40], ids=["empty", "text", "binary"])
def test_what_is_no_onnx_is_refused(build: Build, tmp_path: Path, data: bytes) -> None:
    assert "no ONNX model" in refusal(build, data, folder=tmp_path)


@needs_rtx
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_half_a_file_is_refused(build: Build, tmp_path: Path, part: float) -> None:
    data = model().SerializeToString()
    assert "Failed to parse" in refusal(build, data[: int(len(data) * part)], folder=tmp_path)


@needs_rtx
def test_a_missing_file_is_refused(tmp_path: Path) -> None:
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
def test_shapes_that_do_not_fit_are_refused(
    build: Build, tmp_path: Path, shapes: Mapping[str, Range], expected: str
) -> None:
    assert expected in refusal(build, model(), shapes, folder=tmp_path)


@needs_rtx
def test_a_fixed_input_may_be_given_its_own_shape(build: Build) -> None:
    assert build(model(), {**PLANAR, "context": ((1, 8), (1, 8), (1, 8))}).io[1].range is None


@needs_rtx
@pytest.mark.parametrize(("limit", "expected"), [(1, "workspace limit"), (0, "0 bytes"), (-1, "-1 bytes")])
def test_a_workspace_that_is_too_small_is_refused(build: Build, tmp_path: Path, limit: int, expected: str) -> None:
    assert expected in refusal(build, model(), workspace_bytes=limit, folder=tmp_path)


@needs_rtx
@pytest.mark.parametrize("place", ["absent/engine", "model.onnx/engine", "."])
def test_an_output_that_cannot_be_written_is_refused_before_building(tmp_path: Path, place: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model().SerializeToString())

    def progress(*_: object) -> None:
        pytest.fail("it was built first")

    options = BuildOptions(backend="tensorrt_rtx", shapes=PLANAR)
    line = refusal(build_engine, path, tmp_path / place, options, progress=progress, folder=tmp_path)
    assert str(tmp_path) in line


@needs_rtx
def test_progress_is_told(build: Build) -> None:
    told: list[tuple[str, int, int]] = []
    build(model(), progress=lambda *step: told.append(step))
    assert len(told) > 10
    assert all(phase and 0 <= done <= steps for phase, done, steps in told)
    phase, _, steps = told[0]
    assert told[-1] == (phase, steps, steps)


@needs_rtx
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_progress_raises_ends_the_build(build: Build, tmp_path: Path, error: type[BaseException]) -> None:
    def progress(*_: object) -> None:
        raise error("enough")

    with pytest.raises(error, match="enough"):
        build(model(), progress=progress)
    assert not (tmp_path / "engine").exists()


@needs_rtx
def test_an_interrupt_is_not_lost_in_a_callback(build: Build, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            build(model(), progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "engine").exists()


@needs_rtx
def test_a_failed_build_leaves_the_engine_before_it(build: Build, tmp_path: Path) -> None:
    build(model())
    before = (tmp_path / "engine").read_bytes()
    with pytest.raises(CCNetError):
        build(model(), workspace_bytes=1)
    assert (tmp_path / "engine").read_bytes() == before


@needs_rtx
def test_rtx_refuses_what_it_cannot_build(build: Build, tmp_path: Path) -> None:
    assert "lean runtime" in refusal(build, model(), compatible=True, folder=tmp_path)
    if not trt.has_gpu():
        assert "only beside a GPU" in refusal(build, model(), strip=True, folder=tmp_path)


@needs_rtx
def test_one_shape_makes_a_static_engine(build: Build) -> None:
    static = {"rgb": ((1, 3, 64, 48),) * 3}
    rgb, _, cube = build(model(HALF), static).io
    assert (rgb.shape, cube.shape, rgb.range) == ((1, 3, 64, 48), (1, 4, 64, 48), None)


@needs_rtx
@pytest.mark.parametrize(("work", "name"), [(FLOAT, "FLOAT"), (HALF, "HALF")])
def test_the_report_counts_the_types_of_layers(build: Build, work: int, name: str) -> None:
    report = build(model(work))
    assert sum(report.types.values()) == report.layers
    assert max(report.types, key=lambda one: report.types[one] * (one in ("FLOAT", "HALF"))) == name


@needs_rtx
def test_rtx_refuses_a_timing_cache(build: Build, tmp_path: Path) -> None:
    assert "runtime_cache" in refusal(build, model(), timing_cache=tmp_path / "cache", folder=tmp_path)


def test_an_unknown_backend_is_refused(build: Build, tmp_path: Path) -> None:
    assert "'tensort', expected one of" in refusal(build, model(), backend="tensort", folder=tmp_path)


@pytest.mark.skipif("tensorrt" in trt.available(), reason="tensorrt is installed")
def test_a_missing_module_names_what_to_install(build: Build, tmp_path: Path) -> None:
    line = refusal(build, model(), backend="tensorrt", folder=tmp_path)
    assert "ccnet-hsi[tensorrt]" in line
    assert "JetPack" in line


def test_tensorrt_without_a_gpu_says_so(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gpus() -> tuple[str, ...]:
        raise CCNetError("no CUDA driver")

    monkeypatch.setattr("ccnet.export.engine.builder.gpus", gpus)
    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="11.4.0"))
    line = refusal(build, model(), backend="tensorrt", folder=tmp_path)
    assert re.search(r"only on the GPU that will run it \(no CUDA driver\).*tensorrt_rtx", line)


@pytest.mark.gpu
@pytest.mark.skipif(not trt.has_gpu(), reason="there is no NVIDIA GPU")
@pytest.mark.skipif("tensorrt" not in trt.available(), reason="tensorrt is not installed")
def test_a_timing_cache_is_written_used_and_never_overwritten_by_mistake(build: Build, tmp_path: Path) -> None:
    cache = tmp_path / "timings"
    first = build(model(HALF), backend="tensorrt", timing_cache=cache)
    assert "another GPU" in first.purpose
    assert cache.stat().st_size > 0
    build(model(HALF), backend="tensorrt", timing_cache=cache)
    cache.write_bytes(b"not a cache")
    with pytest.raises(CCNetError, match="not a timing cache"):
        build(model(HALF), backend="tensorrt", timing_cache=cache)
    assert cache.read_bytes() == b"not a cache"


@pytest.mark.gpu
@pytest.mark.skipif(not trt.has_gpu(), reason="there is no NVIDIA GPU")
@pytest.mark.parametrize("packed", [False, True], ids=["planar", "packed"])
@pytest.mark.parametrize(("work", "tolerance"), [(FLOAT, 1e-2), (HALF, 5e-2)], ids=["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_an_engine_computes_what_onnxruntime_does(
    build: Build, tmp_path: Path, backend: trt.Name, work: int, tolerance: float, packed: bool
) -> None:
    if backend not in trt.available():
        pytest.skip(f"{backend} is not installed")
    if backend == "tensorrt_rtx" and not re.search(r"sm_(80|86|89|12\d)", gpus()[0]):
        pytest.skip(f"tensorrt_rtx has no kernels for {gpus()[0]}")
    reference = onnxruntime.InferenceSession(
        model(packed=packed).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    build(model(work, packed=packed), PACKED if packed else PLANAR, backend=backend)
    rng = np.random.default_rng(0)
    kept = []
    with TensorRTBackend((tmp_path / "engine").read_bytes(), backend=backend) as runner:
        for height, width in ((64, 64), (16, 32), (128, 96), (64, 64)):
            pixels = rng.integers(0, 256, (1, height, width, 3), np.uint8)
            rgb = pixels if packed else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / 255
            feeds = {"rgb": rgb, "context": rng.random((1, CONTEXT), np.float32)}
            kept.append((runner.run(feeds)["cube"], reference.run(["cube"], feeds)[0]))
    for cube, expected in kept:  # only now: an output is a copy that later calls leave alone
        np.testing.assert_allclose(cube, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not trt.has_gpu(), reason="there is no NVIDIA GPU")
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_what_is_no_engine_is_refused(backend: trt.Name) -> None:
    if backend not in trt.available():
        pytest.skip(f"{backend} is not installed")
    with pytest.raises(CCNetError, match="cannot load the engine") as caught:
        TensorRTBackend(b"not an engine", backend=backend)
    assert "\n" not in str(caught.value)
