"""Camera responses and the frames made with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.camera import Array, Camera
from ccnet.contract import CCNetError

MakeCube = Callable[..., Array]
WriteCave = Callable[[Path, Array], Path]


def test_a_camera_is_read_and_normalised(camera: Camera, camera_file: Path) -> None:
    assert Camera.read(camera_file).name == "camera"
    np.testing.assert_allclose(Camera.read(camera_file).response, camera.response, rtol=1e-6)
    np.savez(camera_file, filters=camera.response * 7)  # a gain, and no bands
    np.testing.assert_allclose(Camera.read(camera_file).response, camera.response, rtol=1e-6)


GOOD = np.ones((31, 3))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"response": GOOD}, "not a camera response"),
        ({"filters": GOOD.T}, r"filters are \(3, 31\), expected \(31, 3\)"),
        ({"filters": np.ones((33, 3)), "bands": np.arange(400, 721, 10)}, r"filters are \(33, 3\)"),
        ({"filters": GOOD, "bands": np.arange(700, 399, -10)}, "on 400, 410"),
        ({"filters": GOOD, "bands": np.arange(400, 555, 5)}, "on 400, 410"),
        ({"filters": GOOD * np.nan}, "negative or non-finite"),
        ({"filters": GOOD - 2}, "negative or non-finite"),
        ({"filters": GOOD * [1, 0, 1]}, "an all-zero channel"),
        ({"filters": np.full((31, 3), "x")}, "not a camera response"),
        ({"filters": np.array([{}], object)}, "not a camera response"),
    ],
)
def test_a_bad_camera_is_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    path = tmp_path / "camera.npz"
    np.savez(path, **arrays)
    camera_refusal(path, words)


def test_what_is_no_camera_file_is_refused(tmp_path: Path, camera_file: Path) -> None:
    camera_refusal(tmp_path / "nowhere.npz", "no such file, expected a camera response")
    whole = camera_file.read_bytes()
    np.save(tmp_path / "array.npy", GOOD)
    for data in (b"", b"PK\x03\x04", b"text", whole[: len(whole) // 2], (tmp_path / "array.npy").read_bytes()):
        camera_file.write_bytes(data)
        camera_refusal(camera_file, "not a camera response")


def camera_refusal(path: Path, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        Camera.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_frame_is_eq_2(camera: Camera, make_cube: MakeCube) -> None:
    cube = make_cube(3, 5)
    frame = camera.frame(cube)
    assert frame.dtype == np.float32
    for channel in range(3):
        expected = sum(camera.response[band, channel] * cube[band] for band in range(31))
        np.testing.assert_allclose(frame[channel], expected, rtol=1e-5)


def test_a_flat_spectrum_is_grey_and_nothing_leaves_the_range(camera: Camera) -> None:
    np.testing.assert_allclose(camera.frame(np.full((31, 1, 1), 0.3, np.float32)), 0.3, rtol=1e-5)
    assert camera.frame(np.full((31, 1, 1), 2, np.float32)).max() == 1
    assert camera.frame(np.full((31, 1, 1), -1, np.float32)).min() == 0
