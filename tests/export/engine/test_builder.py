"""Engines that are built for real with tensorrt_rtx, which needs no GPU, and what their reports tell."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends import trt_api as trt
from tests.requirements import needs_rtx

from .gated_model import CONTEXT, FLOAT, HALF, PACKED, PLANAR, Build, model


@needs_rtx
@pytest.mark.parametrize("work", [FLOAT, HALF], ids=["fp32", "fp16"])
@pytest.mark.parametrize("size", [("H", "W"), (64, 48)], ids=["dynamic", "static"])
def test_report_describes_the_built_engine(build: Build, tmp_path: Path, work: int, size: tuple[Any, Any]) -> None:
    dynamic = size == ("H", "W")
    report = build(model(work, size=size), PLANAR if dynamic else {})
    rgb, context, cube, _ = report.io
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
def test_uint8_frame_is_cast_before_it_is_transposed(build: Build, work: int) -> None:
    rgb = build(model(work, packed=True), PACKED).io[0]
    assert (rgb.dtype, rgb.shape) == ("uint8", (1, -1, -1, 3))


@needs_rtx
def test_fixed_input_accepts_its_own_shape(build: Build) -> None:
    assert build(model(), {**PLANAR, "context": ((1, 8), (1, 8), (1, 8))}).io[1].range is None


@needs_rtx
def test_progress_is_reported_to_the_end(build: Build) -> None:
    told: list[tuple[str, int, int]] = []
    build(model(), progress=lambda *step: told.append(step))
    assert len(told) > 10
    assert all(phase and 0 <= done <= steps for phase, done, steps in told)
    phase, _, steps = told[0]
    assert told[-1] == (phase, steps, steps)


@needs_rtx
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_in_progress_ends_the_build(build: Build, tmp_path: Path, error: type[BaseException]) -> None:
    def progress(*_: object) -> None:
        raise error("enough")

    with pytest.raises(error, match="enough"):
        build(model(), progress=progress)
    assert not (tmp_path / "engine").exists()


@needs_rtx
def test_interrupt_is_not_lost_in_a_callback(build: Build, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            build(model(), progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "engine").exists()


@needs_rtx
def test_failed_build_keeps_the_previous_engine(build: Build, tmp_path: Path) -> None:
    build(model())
    before = (tmp_path / "engine").read_bytes()
    with pytest.raises(CCNetError):
        build(model(), workspace_bytes=1)
    assert (tmp_path / "engine").read_bytes() == before


@needs_rtx
def test_one_shape_makes_a_static_engine(build: Build) -> None:
    static = {"rgb": ((1, 3, 64, 48),) * 3}
    rgb, _, cube, _ = build(model(HALF), static).io
    assert (rgb.shape, cube.shape, rgb.range) == ((1, 3, 64, 48), (1, 4, 64, 48), None)


@needs_rtx
@pytest.mark.parametrize(("work", "name"), [(FLOAT, "FLOAT"), (HALF, "HALF")])
def test_report_counts_the_types_of_layers(build: Build, work: int, name: str) -> None:
    report = build(model(work))
    assert sum(report.types.values()) == report.layers
    assert max(report.types, key=lambda one: report.types[one] * (one in ("FLOAT", "HALF"))) == name


@needs_rtx
@pytest.mark.parametrize("work", [FLOAT, HALF], ids=["fp32", "fp16"])
def test_tf32_is_cleared_before_the_builder_reads_its_configuration(
    build: Build, monkeypatch: pytest.MonkeyPatch, work: int
) -> None:
    module = trt.load("tensorrt_rtx")
    flags: list[bool] = []
    original = module.Builder.build_serialized_network

    def record(builder: Any, network: Any, config: Any) -> Any:
        assert builder.create_builder_config().get_flag(module.BuilderFlag.TF32), "it is on by default"
        flags.append(config.get_flag(module.BuilderFlag.TF32))
        return original(builder, network, config)

    monkeypatch.setattr(module.Builder, "build_serialized_network", record)
    build(model(work))
    assert flags == [False]


@needs_rtx
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (12, 1)])
def test_an_engine_is_built_for_an_architecture_that_is_named(
    build: Build, tmp_path: Path, capability: tuple[int, int]
) -> None:
    build(model())
    portable = (tmp_path / "engine").read_bytes()
    build(model(), capability=capability)
    assert (tmp_path / "engine").read_bytes() != portable
