"""Engines on a real GPU: their results, timing caches, and bytes that are not an engine."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.tensorrt import TensorRTBackend
from ccnet.runtime.gpu.cuda import gpus
from ccnet.runtime.quality.tolerances import TOLERANCES

from .gated_model import CONTEXT, FLOAT, HALF, PACKED, PLANAR, Build, model

FP32_TOLERANCE = TOLERANCES["fp32"].max_abs
"""No TF32: the builder clears its flag."""


@pytest.mark.gpu
@pytest.mark.skipif(not trt.has_gpu(), reason="there is no NVIDIA GPU")
@pytest.mark.skipif("tensorrt" not in trt.available(), reason="tensorrt is not installed")
def test_timing_cache_is_written_and_used_and_other_files_are_kept(build: Build, tmp_path: Path) -> None:
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
@pytest.mark.parametrize(("work", "tolerance"), [(FLOAT, FP32_TOLERANCE), (HALF, 5e-2)], ids=["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_engine_computes_what_onnxruntime_does(
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
def test_bytes_that_are_not_an_engine_are_refused(backend: trt.Name) -> None:
    if backend not in trt.available():
        pytest.skip(f"{backend} is not installed")
    with pytest.raises(CCNetError, match="cannot load the engine") as caught:
        TensorRTBackend(b"not an engine", backend=backend)
    assert "\n" not in str(caught.value)
