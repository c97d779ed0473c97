"""The response by which a cube is corrected: that of the channels that the graphs take, or one clear line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError, Manifest
from ccnet.runtime.io.cameras.adjustment import Adjustment
from ccnet.runtime.io.cameras.preparation import FramePreparation
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.quality.correction import correct_by, known_response

RESPONSE = np.eye(31, 3, dtype=np.float32)
BASE = Manifest(config={}, weights_sha256="5a" * 32, context_size=3, input="float32", tools={})
MANIFEST = replace(BASE, camera={"name": "three bands", "response": RESPONSE.tolist()})


def prepared(**fields: Any) -> FramePreparation:
    return FramePreparation(MANIFEST, None, Radiometry(**fields))


def test_the_response_is_that_of_the_channels_that_the_graphs_take() -> None:
    matrix = ((0.9, 0.1, 0.0), (0.0, 1.0, 0.0), (0.0, 0.2, 0.8))
    rows = tuple((float(row[0]), float(row[1]), float(row[2])) for row in np.eye(31, 3)[::-1])
    own = known_response(prepared(matrix=matrix, response=rows))
    np.testing.assert_allclose(own, np.array(rows) @ np.array(matrix).T, atol=1e-6)
    np.testing.assert_array_equal(known_response(prepared(black=(1, 1, 1), bits=8)), RESPONSE)
    np.testing.assert_array_equal(known_response(FramePreparation(MANIFEST, "camera")), RESPONSE)


def test_saturation_is_found_in_the_sensors_channels_after_all_gains() -> None:
    matrix = ((0.8, 0.15, 0.05), (0.1, 0.8, 0.1), (0.0, 0.1, 0.9))
    rows = tuple((float(row[0]), float(row[1]), float(row[2])) for row in np.eye(31, 3))
    radiometry = Radiometry(bits=8, gains=(2.0, 0.5, 1.0), matrix=matrix, response=rows)
    prepare = FramePreparation(MANIFEST, None, radiometry, Adjustment(exposure=-1))
    samples = np.full((4, 4, 3), 60, np.uint8)
    samples[0, 0, 1] = samples[1, 1, 0] = 255  # red saturates at 128, too, after its gain
    samples[2, 2, 0] = 100
    frame = prepare(samples)
    assert prepare.white_level == (0.5, 0.25, 0.5)
    cube = np.full((31, 4, 4), 0.1, np.float32)
    correct_by(frame, prepare).write(0, cube)
    unchanged = (cube == np.float32(0.1)).all(axis=0)
    assert unchanged[0, 0] and unchanged[1, 1] and unchanged.sum() == 2


def test_unknown_responses_and_photographs_are_refused() -> None:
    matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    with pytest.raises(CCNetError, match="response of Box, and only its colour matrix is known"):
        known_response(prepared(matrix=matrix, camera="Box"))
    with pytest.raises(CCNetError, match="tone curve"):
        known_response(FramePreparation(MANIFEST, "srgb"))
    with pytest.raises(CCNetError, match="these artifacts do not name"):
        known_response(FramePreparation(BASE, "camera"))
