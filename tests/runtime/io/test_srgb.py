"""The input colour space: photographs become frames of the weights' camera, in every method of a Reconstructor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ccnet.contract import BANDS_NM, FRAME_SCALE
from ccnet.runtime import AsyncReconstructor, Projection, Reconstructor
from ccnet.runtime.io import camera_frame
from ccnet.runtime.io.srgb import TO_CIE, InputSpace, from_srgb
from ccnet.runtime.viz.render import reflectance_to_srgb, render
from tests.runtime.conftest import Array, open_camera, pixels, refusal


@pytest.mark.parametrize("dtype", sorted(FRAME_SCALE))
def test_black_grey_and_white_stay_neutral(dtype: str) -> None:
    greys = np.array([0, 0.5, 1])[:, None, None] * np.ones((3, 5, 3)) * FRAME_SCALE[dtype]
    linear = from_srgb(greys.astype(dtype))
    assert linear.dtype == np.float32
    np.testing.assert_allclose(linear, np.array([0, 0.214, 1])[:, None, None] * np.ones((3, 5, 3)), atol=3e-3)


def test_all_dtypes_give_the_same_light() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 7, 3), np.uint8)
    expected = from_srgb(frame)
    np.testing.assert_allclose(from_srgb(frame.astype(np.uint16) * 257), expected, atol=1e-6)
    np.testing.assert_allclose(from_srgb(frame.astype(np.float32) / np.float32(255)), expected, atol=1e-6)


def test_from_srgb_undoes_the_rendering_of_a_cube() -> None:
    """A smooth spectrum, rendered to sRGB and converted back, has nearly the CIE response of the spectrum."""
    nm = np.array(BANDS_NM, np.float32)
    cube = (0.3 + 0.25 * np.tanh((nm - 570) / 60))[:, None, None] * np.ones((1, 4, 4), np.float32)
    to_srgb = reflectance_to_srgb()
    seen = TO_CIE @ (to_srgb / to_srgb.sum(axis=1, keepdims=True)) @ cube[:, 0, 0]
    np.testing.assert_allclose(from_srgb(render(cube.astype(np.float32)))[0, 0], seen, atol=5e-3)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((16, 16), np.uint8), "frame is uint8 with shape (16, 16), expected (H, W, 3)"),
        (np.zeros((16, 16, 4), np.uint8), "shape (16, 16, 4)"),
        (np.zeros((3, 16, 16), np.uint8), "shape (3, 16, 16)"),
        (np.zeros((0, 16, 3), np.uint8), "shape (0, 16, 3)"),
        (np.zeros((16, 16, 3)), "frame is float64"),
        (np.zeros((16, 16, 3), np.int16), "frame is int16"),
        (np.full((16, 16, 3), np.nan, np.float32), "frame holds nan to nan"),
        (np.full((16, 16, 3), np.inf, np.float32), "frame holds inf to inf"),
        (np.full((16, 16, 3), -0.1, np.float32), "frame holds -0.1 to -0.1, expected float32 in [0, 1]"),
        (np.full((16, 16, 3), 255, np.float32), "frame holds 255 to 255"),
    ],
)
def test_invalid_frame_is_refused(folder: Path, tmp_path: Path, frame: Array, words: str) -> None:
    with open_camera(folder) as reconstruct:
        refusal(lambda: reconstruct(frame), words)
        refusal(lambda: reconstruct.encode(frame), words)
        refusal(lambda: reconstruct.strips(frame), words)
        refusal(lambda: reconstruct.save(frame, tmp_path / "cube.npy"), words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_uint8_graphs_refuse_other_frames(folder_uint8: Path, dtype: str) -> None:
    with open_camera(folder_uint8) as reconstruct:
        refusal(lambda: reconstruct(pixels(16, 16, dtype)), f"frame is {dtype}", "expected (H, W, 3) in uint8")


@pytest.fixture
def assumed() -> Iterator[None]:
    """Reset the once-only warning about an assumed input colour space before and after the test."""
    camera_frame._warn_of_assumed_space.cache_clear()
    yield
    camera_frame._warn_of_assumed_space.cache_clear()


def results(reconstruct: Reconstructor, frame: Array, path: Path) -> list[Array]:
    """Return the result of each method of a reconstructor for a frame."""
    reconstruct.save(frame, path)
    with AsyncReconstructor(reconstruct) as slots:
        future = slots.submit(frame)
    return [
        reconstruct(frame),
        reconstruct.encode(frame),
        np.concatenate([strip.copy() for _, strip in reconstruct.strips(frame)], axis=1),
        reconstruct.project(frame, Projection.bands(550)),
        np.load(path),
        future.result(60),
        reconstruct(reconstruct.camera_frame(frame)),
    ]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_method_converts_photographs_once(folder: Path, tmp_path: Path, dtype: str) -> None:
    frame = pixels(70, 50, dtype)
    with Reconstructor.open(folder, input_space="srgb", tile=64) as reconstruct:
        found = results(reconstruct, frame, tmp_path / "srgb.npy")
        assert reconstruct.describe()["input space"] == reconstruct.input_space == "srgb"
        linear = reconstruct.camera_frame(frame)
    np.testing.assert_array_equal(linear, from_srgb(frame))
    with Reconstructor.open(folder, input_space="camera", tile=64) as reconstruct:
        expected = results(reconstruct, from_srgb(frame), tmp_path / "camera.npy")
        unconverted = reconstruct(frame)
        assert reconstruct.describe()["input space"] == "camera"
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(found[0] - unconverted).max() > 0.01, "or the test would prove nothing"


def test_camera_frame_is_not_converted_again(folder: Path) -> None:
    frame = pixels(20, 20)
    with Reconstructor.open(folder, input_space="srgb") as reconstruct:
        converted = reconstruct.camera_frame(frame)
        assert reconstruct.camera_frame(converted) is converted
        np.testing.assert_array_equal(reconstruct.camera_frame(converted[:10]), converted[:10])
    with Reconstructor.open(folder, input_space="camera") as reconstruct:
        assert np.shares_memory(reconstruct.camera_frame(frame), frame)
        refusal(lambda: reconstruct(converted[..., 0]), "frame is float32 with shape (20, 20)")


def test_integer_frames_without_an_input_space_warn_once(folder: Path, assumed: None) -> None:
    with Reconstructor.open(folder) as reconstruct:
        assert reconstruct.describe()["input space"] == "camera (assumed: no input_space was passed)"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reconstruct(pixels(20, 20, "float32"))
        with pytest.warns(UserWarning, match="pass input_space=") as caught:
            cube = reconstruct(pixels(20, 20, "uint16"))
            for method in (reconstruct, reconstruct.encode, reconstruct.strips):
                method(pixels(20, 20))
        assert len(caught) == 1 and "\n" not in str(caught[0].message)
        assert caught[0].filename == __file__
    with open_camera(folder) as reconstruct:
        np.testing.assert_array_equal(cube, reconstruct(pixels(20, 20, "uint16")))


def test_no_warning_with_an_input_space(folder: Path, assumed: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for space in get_args(InputSpace):
            with Reconstructor.open(folder, input_space=space) as reconstruct:
                reconstruct(pixels(20, 20))


def test_invalid_input_space_is_refused(folder: Path, folder_uint8: Path) -> None:
    unknown: Any = "rgb"
    refusal(lambda: Reconstructor.open(folder, input_space=unknown), "input_space is 'rgb', expected srgb or camera")
    refusal(lambda: Reconstructor.open(folder_uint8, input_space="srgb"), "uint8 frames", "--input-space camera")
