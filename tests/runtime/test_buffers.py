"""Buffers of the caller, arrays of other libraries, and projections."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccnet.runtime import Projection
from ccnet.runtime.io.arrays import as_frame
from tests.runtime.conftest import (
    open_camera,
    pixels,
    refusal,
)


def test_out_is_filled_and_returned(folder: Path) -> None:
    frame = pixels(113, 97)
    with open_camera(folder, tile=64) as reconstruct:
        out = np.full((31, 113, 97), np.nan, np.float32)
        assert reconstruct(frame, out=out) is out
        np.testing.assert_array_equal(out, reconstruct(frame))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((31, 40, 41), np.float32),
        np.empty((31, 40, 40)),
        [0.0],
        np.broadcast_to(np.float32(0), (31, 40, 40)),
    ],
    ids=["shape", "dtype", "list", "read-only"],
)
def test_an_out_that_does_not_fit_is_refused(folder: Path, out: Any) -> None:
    with open_camera(folder) as reconstruct:
        refusal(lambda: reconstruct(pixels(40, 40), out=out), "out is", "expected a writeable float32 (31, 40, 40)")


def test_nothing_as_large_as_a_frame_is_allocated_after_warm_up(folder: Path) -> None:
    frame, projection = pixels(640, 600), Projection.differences({"a": (700, 500)})
    cube, index = np.empty((31, 640, 600), np.float32), np.empty((1, 640, 600), np.float32)
    with open_camera(folder, tile=64, encode_pixels=64 * 64) as reconstruct:
        reconstruct(frame, out=cube)
        reconstruct.project(frame, projection, out=index)
        tracemalloc.start()
        try:
            reconstruct(frame, out=cube)
            reconstruct.project(frame, projection, out=index)
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert left < 100_000
    assert peak < frame.nbytes  # 1.2 MB; the cube has 48


@pytest.mark.parametrize("size", [(20, 30), (113, 97)])
def test_a_projection_is_that_of_the_cube(folder: Path, size: tuple[int, int]) -> None:
    frame, matrix = pixels(*size), np.random.default_rng(0).normal(size=(4, 31)).astype(np.float32)
    with open_camera(folder, tile=64) as reconstruct:
        cube = reconstruct(frame)
        bands = reconstruct.project(frame, Projection.bands(700, 400))
        np.testing.assert_array_equal(bands, cube[[30, 0]])
        difference = reconstruct.project(frame, Projection.linear(matrix)) - np.tensordot(matrix.astype(float), cube, 1)
        rounding = 31 * np.finfo(np.float32).eps * np.tensordot(np.abs(matrix), np.abs(cube), 1)  # of a sum of 31
        assert (np.abs(difference) <= rounding).all()
        index = reconstruct.project(frame, Projection.differences({"red": (700, 500), "blue": (400, 500)}))
        for found, band in zip(index, (cube[30], cube[0]), strict=True):
            np.testing.assert_allclose(found, (band - cube[10]) / (band + cube[10]), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_frames_come_through_dlpack(folder: Path, dtype: str) -> None:
    frame = pixels(50, 60, dtype)
    with open_camera(folder) as reconstruct:
        np.testing.assert_array_equal(reconstruct(torch.from_numpy(frame)), reconstruct(frame))
        shared = as_frame(torch.from_numpy(frame))
        assert np.shares_memory(shared, frame)
        assert torch.from_dlpack(reconstruct(frame)).shape == (31, 50, 60)


@pytest.mark.gpu
def test_frames_come_from_cuda(folder: Path) -> None:
    frame = pixels(50, 60)
    with open_camera(folder) as reconstruct:
        np.testing.assert_array_equal(reconstruct(torch.from_numpy(frame).cuda()), reconstruct(frame))


@pytest.mark.parametrize("frame", [[[1, 2, 3]], None, "photo.png", torch.zeros(4, 4, 3, requires_grad=True)])
def test_what_is_no_array_is_refused(folder: Path, frame: Any) -> None:
    with open_camera(folder) as reconstruct:
        for call in (reconstruct, reconstruct.encode, reconstruct.strips):
            refusal(lambda call=call: call(frame), "frame")  # type: ignore[misc]
