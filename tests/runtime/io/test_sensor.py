"""Radiometry: raw samples of a sensor become linear light."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.sensor import BAYER, BITS, Radiometry

RNG = np.random.default_rng(0)


def raw(bits: int, shape: tuple[int, ...] = (300, 20, 3)) -> Any:
    return RNG.integers(0, 1 << bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("bits", BITS)
def test_full_scale_becomes_one(bits: int) -> None:
    samples = raw(bits)
    samples[0, 0] = (1 << bits) - 1
    frame = Radiometry(bits=bits)(samples)
    assert frame.dtype == np.float32 and frame[0, 0].tolist() == [1, 1, 1]
    np.testing.assert_allclose(frame, samples / ((1 << bits) - 1), atol=1e-7)


def test_black_curve_and_gains_are_applied_in_order() -> None:
    samples = raw(12)
    black, gains = (64.0, 60.0, 70.0), (1.5, 1.0, 0.5)
    found = Radiometry(bits=12, black=black, gains=gains, transfer=2.2)(samples)
    light = np.clip((samples - np.array(black)) / (4095 - np.array(black)), 0, 1) ** 2.2
    np.testing.assert_allclose(found, np.clip(light * gains, 0, 1), atol=1e-5)


def test_srgb_transfer_is_undone() -> None:
    frame = Radiometry(transfer="srgb")(np.full((2, 2, 3), 188, np.uint8))
    np.testing.assert_allclose(frame, 0.5029, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("bayer", BAYER)
def test_flat_colour_is_recovered_from_every_bayer_pattern(bayer: str, bits: int) -> None:
    colour = dict(zip("RGB", (0.8, 0.4, 0.1), strict=True))
    levels = [round(colour[letter] * ((1 << bits) - 1)) for letter in bayer]
    mosaic = np.tile(np.array(levels).reshape(2, 2), (10, 12)).astype(np.uint8 if bits == 8 else np.uint16)
    frame = Radiometry(bits=bits, bayer=bayer)(mosaic)
    assert frame.shape == (20, 24, 3)
    np.testing.assert_allclose(frame[2:-2, 2:-2], np.broadcast_to(tuple(colour.values()), (16, 20, 3)), atol=0.004)


def test_shading_is_stretched_from_corner_to_corner(tmp_path: Path) -> None:
    np.save(tmp_path / "shading.npy", np.array([[1.0, 2.0], [2.0, 3.0]]))
    frame = Radiometry(shading=tmp_path / "shading.npy")(np.full((601, 41, 3), 51, np.uint8))
    y, x = np.mgrid[0:1:601j, 0:1:41j]
    np.testing.assert_allclose(frame, np.repeat((0.2 * (1 + x + y))[..., None], 3, axis=2), rtol=1e-4)


def test_buffer_is_filled_and_returned() -> None:
    out = np.empty((300, 20, 3), np.float32)
    samples = raw(8)
    assert Radiometry()(samples, out=out) is out
    np.testing.assert_array_equal(out, Radiometry()(samples))
    with pytest.raises(CCNetError, match="out is float32"):
        Radiometry()(samples, out=out[1:])


def test_radiometry_is_read_from_json_and_recorded_in_metadata(tmp_path: Path) -> None:
    np.save(tmp_path / "shading.npy", np.ones((4, 4), np.float32))
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"bits": 12, "bayer": "GBRG", "black": [64, 64, 64], "shading": "shading.npy"}))
    told = Radiometry.read(path).metadata()
    assert told["radiometry bits"] == "12" and told["radiometry black"] == "(64, 64, 64)"
    assert len(told["radiometry shading"]) == 16
    np.save(tmp_path / "shading.npy", np.full((4, 4), 2, np.float32))
    assert Radiometry.read(path).metadata()["radiometry shading"] != told["radiometry shading"]


def test_response_is_read_and_mixed_by_the_matrix(tmp_path: Path) -> None:
    table = RNG.random((31, 3))
    table /= table.sum(0)
    matrix = np.array([[0.8, 0.2, 0.0], [0.1, 1.0, -0.1], [0.0, -0.4, 1.4]])
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"response": table.tolist(), "matrix": matrix.tolist()}))
    mixed = Radiometry.read(path).frame_response
    assert mixed is not None and mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, table @ matrix.T, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(0), 1, atol=1e-5)
    path.write_text(json.dumps({"response": table.tolist()}))
    np.testing.assert_allclose(Radiometry.read(path).frame_response, table, atol=1e-7)  # type: ignore[arg-type]
    assert Radiometry(matrix=((1, 0, 0), (0, 1, 0), (0, 0, 1))).frame_response is None


def test_response_is_in_the_metadata_as_a_hash() -> None:
    first, last = ((1.0, 1.0, 1.0),), ((0.0, 0.0, 0.0),) * 30
    told = [Radiometry(response=rows).metadata()["radiometry response"] for rows in (first + last, last + first)]
    assert told[0] != told[1] and [len(each) for each in told] == [16, 16]
    assert Radiometry().metadata()["radiometry response"] == "none"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bits": 9}, "bits is 9, expected one of 8, 10, 12, 16"),
        ({"bits": "8"}, "bits is '8'"),
        ({"bits": 12.0}, "bits is 12.0, expected one of 8, 10, 12, 16"),
        ({"bayer": "RGBG"}, "bayer is 'RGBG', expected one of RGGB"),
        ({"black": [1, 2]}, "black is (1, 2), expected three in [0, 255)"),
        ({"black": [0, 0, 255]}, "black is"),
        ({"gains": [1, 1, 0]}, "gains is"),
        ({"gains": [1, 1, float("nan")]}, "gains is"),
        ({"gains": 2}, "gains is 2"),
        ({"transfer": "gamma"}, "transfer is 'gamma'"),
        ({"transfer": 0}, "transfer is 0"),
        ({"shading": "none.npy"}, "none.npy"),
        ({"gamma": 2}, "some of bayer, bits, black, camera, gains, light, matrix, response, shading, target, transfer"),
        ({"matrix": [[1, 0, 0], [0, 1, 0]]}, "matrix is ((1, 0, 0), (0, 1, 0)), expected 3 rows of 3"),
        ({"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, float("inf")]]}, "matrix is"),
        ({"response": [[1, 0, 0], [0, 1, 0]]}, "response is int64 (2, 3), expected 31 rows of 3 numbers"),
        ({"response": [[1, 2], [3]]}, "rows of different lengths"),
        ({"response": "flat"}, "expected 31 rows of 3 numbers"),
        ({"response": [[0.1, 0.1, 0.1]] * 31}, "columns that do not sum to 1"),
        ({"response": [[-1, 1, 1], [2, 0, 0], *[[0, 0, 0]] * 29]}, "response is negative"),
        ({"response": [[float("nan"), 1, 1], *[[0, 0, 0]] * 30]}, "not finite"),
        ({"camera": 5}, "camera is 5, expected text"),
        ({"camera": "Nikon D7001"}, "did you mean"),
        ({"camera": "Nikon D700", "light": "moon"}, "no matrix for the light 'moon'"),
        ([], "expected a JSON object"),
    ],
)
def test_invalid_fields_are_refused(tmp_path: Path, fields: Any, words: str) -> None:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(CCNetError) as caught:
        Radiometry.read(path)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shading", [np.zeros((2, 2)), np.full((2, 2), np.inf), np.ones(4), np.ones((2, 2, 4))])
def test_invalid_shading_is_refused(tmp_path: Path, shading: Any) -> None:
    np.save(tmp_path / "shading.npy", shading)
    with pytest.raises(CCNetError, match=r"shading\.npy"):
        Radiometry(shading=tmp_path / "shading.npy")


@pytest.mark.parametrize(
    ("camera", "frame", "words"),
    [
        (Radiometry(bits=8), raw(12), "raw frame is uint16 (300, 20, 3), expected uint8 (H, W, 3)"),
        (Radiometry(bits=12), raw(8), "expected uint16"),
        (Radiometry(black=(9, 9, 9)), np.ones((4, 4, 3), np.float32), "expected less than the full float32 frame"),
        (Radiometry(bits=12), raw(16), "expected 12 bits, 4095 at most"),
        (Radiometry(bits=8, bayer="RGGB"), raw(8), "expected uint8 (H, W)"),
        (Radiometry(), raw(8, (4, 4)), "expected uint8, uint16, float32 (H, W, 3)"),
        (Radiometry(bits=8), raw(8, (4, 4)), "expected uint8 (H, W, 3)"),
        (Radiometry(bayer="RGGB"), raw(8, (1, 4)), "at least 2×2 px"),
    ],
)
def test_invalid_raw_frames_are_refused(camera: Radiometry, frame: Any, words: str) -> None:
    with pytest.raises(CCNetError) as caught:
        camera(frame)
    assert words in str(caught.value)
