"""Colour matrices: the shipped cameras, their names, and the light between two lights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.cameras.matrices import (
    CameraMatrices,
    LightMatrix,
    find_camera,
    known_cameras,
    require_camera,
    to_matrix,
    to_response,
)

EVEN, RISING = (to_response(rows / rows.sum(0)) for rows in (np.ones((31, 3)), np.mgrid[1:32, 0:3][0]))

TWO_LIGHTS = CameraMatrices(
    name="two",
    source="",
    target=None,
    lights=(
        LightMatrix(light="daylight", neutral=(0.5, 1.0, 0.5), matrix=to_matrix(np.eye(3)), response=EVEN),
        LightMatrix(light="tungsten", neutral=(2.0, 1.0, 0.5), matrix=to_matrix(3 * np.eye(3)), response=RISING),
    ),
)


def test_shipped_matrices_keep_white_and_have_responses_and_two_lights() -> None:
    assert len(known_cameras()) == 52
    for camera in known_cameras().values():
        assert [each.light for each in camera.lights] == ["daylight", "tungsten"]
        for each in camera.lights:
            np.testing.assert_allclose(np.sum(each.matrix, axis=1), 1, atol=2e-6)
            np.testing.assert_allclose(np.sum(each.response, axis=0), 1, atol=2e-5)  # type: ignore[arg-type]
        daylight, tungsten = (each.neutral for each in camera.lights)
        assert daylight and tungsten and daylight[0] / daylight[2] < tungsten[0] / tungsten[2]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("nikon d700", "Nikon D700"),
        ("NIKON CORPORATION NIKON D700", "Nikon D700"),
        ("Canon Canon EOS 5D Mark III", "Canon EOS 5D Mark III"),
        ("SONY ILCE-7M3", "Sony ILCE-7M3"),
    ],
)
def test_camera_is_found_by_the_name_in_its_files(name: str, known: str) -> None:
    found = find_camera(name)
    assert found is not None and found.name == known
    assert find_camera("Nikon D70") is not found


def test_unknown_camera_is_refused_with_similar_names() -> None:
    with pytest.raises(CCNetError, match=r"did you mean .*Nikon D7000.*ccnet camera list.*ccnet camera fit"):
        require_camera("Nikon D7001")
    with pytest.raises(CCNetError, match="no matrix for the light 'moon', expected daylight or tungsten"):
        require_camera("Nikon D700").in_light("moon")


@pytest.mark.parametrize(
    ("neutral", "factor"), [((1.0, 1, 1), 1), ((1.0, 1, 0.5), 2), ((4.0, 1, 1), 3), ((9, 1, 1), 3)]
)
def test_matrix_and_response_are_interpolated_between_two_lights(neutral: tuple[float, ...], factor: float) -> None:
    """On the scale of log(R / B), which is 0 in daylight and log 4 in tungsten light here."""
    found, share = TWO_LIGHTS.in_light_of(neutral), (factor - 1) / 2
    np.testing.assert_allclose(found.matrix, factor * np.eye(3), atol=1e-5)
    mixed = (1 - share) * np.array(EVEN) + share * np.array(RISING)
    np.testing.assert_allclose(found.response, mixed, atol=2e-6)  # type: ignore[arg-type]


def test_response_is_unknown_between_two_lights_if_one_has_none() -> None:
    first, last = TWO_LIGHTS.lights
    half_known = replace(TWO_LIGHTS, lights=(first, replace(last, response=None)))
    assert half_known.in_light_of((1.0, 1, 0.5)).response is None
