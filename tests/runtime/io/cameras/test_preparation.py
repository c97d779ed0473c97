"""The conversion of a user's frames to the weights' camera: radiometry, gains, colour matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError, Manifest
from ccnet.runtime.io.cameras.adjustment import Adjustment
from ccnet.runtime.io.cameras.matrices import require_camera
from ccnet.runtime.io.cameras.preparation import FramePreparation
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.io.srgb import from_srgb

ENTRY = {"name": "cie_1964_w_gain", "response": np.full((31, 3), 1 / 31).tolist()}
MATRIX = ((0.7, 0.2, 0.1), (0.3, 0.8, -0.1), (0.1, -0.3, 1.2))


def manifest(**changes: Any) -> Manifest:
    base: dict[str, Any] = {"weights_sha256": "ab" * 32, "context_size": 3, "input": "float32", "tools": {}}
    return Manifest(**{**base, "config": {}, "camera": ENTRY, **changes})


def frame(dtype: type = np.uint8) -> Any:
    values = np.random.default_rng(0).integers(40, 120, (20, 30, 3))
    return (values * {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("exposure", [None, "1"])
def test_matrix_acts_after_gains(dtype: type, exposure: str | None) -> None:
    camera = Radiometry(gains=(1.5, 1.0, 1.2), matrix=MATRIX)
    found = FramePreparation(manifest(), None, camera, Adjustment.parse(exposure, None))(frame(dtype))
    light = np.clip(frame() / 255 * (1.5, 1.0, 1.2) * (2 if exposure else 1), 0, 1)
    np.testing.assert_allclose(found, np.clip(light @ np.transpose(MATRIX), 0, 1), atol=1e-5)


def test_white_of_the_sensor_is_white_of_the_weights_camera() -> None:
    samples = frame()
    samples[:9, :9] = (100, 200, 60)
    prepare = FramePreparation(manifest(), None, Radiometry(matrix=MATRIX), Adjustment.parse(None, "4,4,0.9"))
    np.testing.assert_allclose(prepare(samples)[4, 4], 0.9, atol=1e-3)
    told = prepare.metadata()
    assert told["gains"] == "2.2950 1.1475 3.8250" and "x=4" in told["white"] and "radiometry matrix" in told


def test_exposure_of_a_photograph_acts_in_linear_light() -> None:
    found = FramePreparation(manifest(), "srgb", None, Adjustment.parse("-1", None))(frame())
    np.testing.assert_allclose(found, from_srgb(frame()) / 2, atol=1e-6)
    np.testing.assert_array_equal(FramePreparation(manifest(), None)(frame()), from_srgb(frame()))


def test_camera_frame_stays_itself_or_is_scaled() -> None:
    pixels = frame()
    assert np.shares_memory(FramePreparation(manifest(), "camera")(pixels), pixels)
    found = FramePreparation(manifest(), "camera", None, Adjustment.parse("1", None))(pixels)
    np.testing.assert_allclose(found, pixels / 127.5, atol=1e-6)


def test_stream_keeps_the_gains_of_its_first_frame() -> None:
    first, second = frame(), frame() // 2
    each, kept = (
        FramePreparation(manifest(), "camera", None, Adjustment.parse("auto", None), keep_gains=keep)
        for keep in (False, True)
    )
    np.testing.assert_array_equal(each(first), kept(first))
    assert each(second).mean() > 1.8 * kept(second).mean()


def test_matrix_for_other_weights_is_refused() -> None:
    known = Radiometry.find("nikon d700")
    assert known.camera == "Nikon D700" and known.light == "daylight" and known.matrix is not None
    assert known.response == require_camera("Nikon D700").in_light("daylight").response is not None
    FramePreparation(manifest(), None, known)
    FramePreparation(manifest(camera=None), None, known)
    with pytest.raises(CCNetError, match="leads to the camera cie_1964_w_gain, the weights are for mine"):
        FramePreparation(manifest(camera={**ENTRY, "name": "mine"}), None, known)


@pytest.mark.parametrize("arguments", [(None, Radiometry()), ("camera", None, Adjustment(exposure=1))])
def test_graphs_of_bytes_are_refused(arguments: Any) -> None:
    with pytest.raises(CCNetError, match="export with --input float32"):
        FramePreparation(manifest(input="uint8"), *arguments)
