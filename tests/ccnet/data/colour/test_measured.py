"""Measured cameras: their brands, and their matrices in the lights of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.data.camera import Camera
from ccnet.data.colour.lights import find_light
from ccnet.data.colour.matrix import fit_matrix, smooth_reflectances
from ccnet.data.colour.measured import behind_matrices, in_training_lights, split_by_brand, with_shifts


def test_brands_split_cameras_in_any_case_of_letters(camera: Camera) -> None:
    cameras = [replace(camera, name=name) for name in ("Nikon D1", "Canon A", "Nikonos V", "Nikon Z")]
    kept, held_out = split_by_brand(cameras, ["nikon"])
    assert [each.name for each in kept] == ["Canon A", "Nikonos V"]
    assert [each.name for each in held_out] == ["Nikon D1", "Nikon Z"]
    with pytest.raises(CCNetError, match="brand 'Leica' has no camera, expected one of Canon, Nikon, Nikonos"):
        split_by_brand(cameras, ["Nikon", "Leica"])


def test_each_camera_has_the_matrix_of_its_light(camera: Camera) -> None:
    other = replace(camera, name="other", response=np.roll(camera.response, 1, axis=0))
    daylight, tungsten = behind_matrices(in_training_lights([other]), camera, smooth_reflectances())
    assert (daylight.name, tungsten.name) == ("other under daylight", "other under tungsten")
    lit = other.under(find_light("tungsten"))
    np.testing.assert_array_equal(tungsten.response, lit.response)
    np.testing.assert_array_equal(tungsten.matrix, fit_matrix(lit, camera.response, smooth_reflectances()))
    assert daylight.matrix is not None and not np.array_equal(daylight.matrix, tungsten.matrix)


def test_each_camera_is_followed_by_itself_shifted_both_ways(camera: Camera) -> None:
    named = replace(camera, name="Nikon Z")
    own, shorter, longer = with_shifts([named], 10)
    assert own is named
    assert shorter.name == "Nikon Z shifted by -10 nm"
    for shifted, bands in ((shorter, slice(0, 30)), (longer, slice(1, 31))):
        moved = np.roll(camera.response, -1 if shifted is shorter else 1, axis=0)[bands]
        ratio = shifted.response[bands] / np.where(moved > 0, moved, np.nan)
        np.testing.assert_allclose(np.nanmax(ratio, 0), np.nanmin(ratio, 0), rtol=1e-4)
        np.testing.assert_allclose(shifted.response.sum(0), 1, rtol=1e-5)
    assert with_shifts([named], 0) == [named]
