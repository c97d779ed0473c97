"""Contexts of reduced frames and of other frames, and invalid contexts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.io.frames import block_mean
from ccnet.runtime.tiles.context_encoder import LEAST_PIXELS, REDUCED_PIXELS, block_side
from ccnet.runtime.tiles.host_path import ENCODE_PIXELS
from tests.runtime.conftest import (
    Array,
    Spy,
    fake,
    open_camera,
    pixels,
    refusal,
)


def test_passed_context_replaces_the_frames_own(folder: Path) -> None:
    first, second = pixels(40, 40, seed=1) // 4, pixels(40, 40, seed=2)
    with open_camera(folder) as reconstruct:
        context = reconstruct.encode(first)
        assert context.shape == (1, 3)
        own, borrowed = reconstruct(second), reconstruct(second, context)
        ratio = context / reconstruct.encode(second)
        np.testing.assert_allclose(reconstruct(second, context / ratio), own, atol=1e-6)
        assert np.abs(own - borrowed).max() > 0.01
        ((_, strip),) = reconstruct.strips(second, context)
        np.testing.assert_array_equal(strip, borrowed)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [(1, 1), (12, 18), (13, 17), (6, 40)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_block_mean_averages_each_block(dtype: str, size: tuple[int, int], factor: int) -> None:
    frame = pixels(*size, dtype)
    expected = [
        [frame[y : y + factor, x : x + factor].mean((0, 1), np.float64) for x in range(0, size[1], factor)]
        for y in range(0, size[0], factor)
    ]
    np.testing.assert_allclose(block_mean(frame, factor), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "limit", "reduced"),
    [
        ((32, 48), 32 * 48, (32, 48)),
        ((32, 48), 32 * 48 - 1, (16, 24)),
        ((33, 49), 17 * 25, (17, 25)),
        ((33, 49), 17 * 25 - 1, (11, 17)),
        ((1, 100), 10, (1, 10)),
        ((50, 50), 1, (1, 1)),
    ],
)
def test_encode_reduces_by_the_smallest_factor_within_its_limit(
    folder: Path, size: tuple[int, int], limit: int, reduced: tuple[int, int]
) -> None:
    seen = Spy(OnnxRuntimeBackend(folder / "encode.onnx"))
    with fake(seen, OnnxRuntimeBackend(folder / "decode.onnx"), encode_pixels=limit) as reconstruct:
        reconstruct.encode(pixels(*size))
    height, width = (-(-side // 16) * 16 for side in reduced)
    assert seen.shapes == [(1, 3, height, width)]


@pytest.mark.parametrize(
    ("size", "side"), [((482, 512), 1), ((512, 512), 1), ((513, 512), 3), ((1080, 1920), 6), ((3000, 4000), 14)]
)
def test_a_frame_beyond_the_default_is_reduced_to_few_blocks(size: tuple[int, int], side: int) -> None:
    """A frame is read as it is, or as at most 256² blocks: no size between has a context that costs more."""
    assert block_side(*size, ENCODE_PIXELS, 1 << 30) == side
    blocks = [-(-length // side) for length in size]
    assert side == 1 or blocks[0] * blocks[1] <= REDUCED_PIXELS


def test_reduced_frame_has_the_context_of_its_means(folder: Path) -> None:
    frame = pixels(64, 128)
    with open_camera(folder, encode_pixels=16 * 32) as reconstruct:
        np.testing.assert_allclose(reconstruct.encode(frame)[0], frame.mean((0, 1)) / 255, rtol=1e-6)


def test_uint8_graphs_encode_rounded_means(folder_uint8: Path) -> None:
    frame = np.full((32, 32, 3), 10, np.uint8)
    frame[:, ::2] = 13  # mean 11.5, to even 12
    with open_camera(folder_uint8, encode_pixels=256) as reconstruct:
        np.testing.assert_allclose(reconstruct.encode(frame)[0] * 255, 12, rtol=1e-6)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (np.ones((1, 4), np.float32), "context is float32 (1, 4), expected float32 (1, 3)"),
        (np.ones(3, np.float32), "context is float32 (3,)"),
        (np.ones((1, 3)), "context is float64"),
        (np.array([[1, np.nan, 1]], np.float32), "context holds NaN"),
    ],
)
def test_invalid_context_is_refused(folder: Path, context: Array, words: str) -> None:
    with open_camera(folder) as reconstruct:
        refusal(lambda: reconstruct(pixels(16, 16), context), words)
        refusal(lambda: reconstruct.strips(pixels(16, 16), context), words)


def test_blocks_grow_until_encode_fits_with_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pixels(200, 300)
    encoder = Spy(OnnxRuntimeBackend(folder / "encode.onnx"))
    encoder.most = 112 * 160
    with fake(encoder, OnnxRuntimeBackend(folder / "decode.onnx")) as reconstruct:
        cube = reconstruct(frame)
        # 60,000 pixels, then blocks of 2 px: 100×150, padded to 112×160
        assert [shape[2:] for shape in encoder.shapes] == [(112, 160)]
        (record,) = caplog.records
        assert record.getMessage() == (
            "std::bad_alloc; from now on encode reads means of at most 30000 blocks of a frame"
        )
        context = reconstruct.encode(pixels(100, 100))
        assert encoder.shapes[-1][2:] == (112, 112), "a frame that is small enough is read as it is"
        np.testing.assert_array_equal(reconstruct.encode(frame), reconstruct.encode(frame))
        assert len(caplog.records) == 1
        np.testing.assert_array_equal(cube, reconstruct(frame, reconstruct.encode(frame)))
    with open_camera(folder, encode_pixels=30_000) as reconstruct:
        np.testing.assert_array_equal(cube, reconstruct(frame))
        np.testing.assert_array_equal(context, reconstruct.encode(pixels(100, 100)))


def test_blocks_that_would_be_too_few_are_an_error(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = Spy(OnnxRuntimeBackend(folder / "encode.onnx"))
    encoder.most = LEAST_PIXELS - 1
    with fake(encoder, OnnxRuntimeBackend(folder / "decode.onnx")) as reconstruct:
        refusal(lambda: reconstruct(pixels(200, 300)), "std::bad_alloc")
        assert not caplog.records and not encoder.shapes
        encoder.most = 1 << 40
        reconstruct(pixels(200, 300))
        assert encoder.shapes[-1][2:] == (208, 304), "a failure without a remedy changes nothing"
