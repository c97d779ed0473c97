"""Photographs become what the weights' camera would give."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.contract import BANDS_NM, FRAME_SCALE
from ccnet.runtime.io.srgb import _TO_CIE, from_srgb
from ccnet.runtime.viz.render import reflectance_to_srgb, render


@pytest.mark.parametrize("dtype", sorted(FRAME_SCALE))
def test_black_grey_and_white_stay_neutral(dtype: str) -> None:
    greys = np.array([0, 0.5, 1])[:, None, None] * np.ones((3, 5, 3)) * FRAME_SCALE[dtype]
    linear = from_srgb(greys.astype(dtype))
    assert linear.dtype == np.float32
    np.testing.assert_allclose(linear, np.array([0, 0.214, 1])[:, None, None] * np.ones((3, 5, 3)), atol=3e-3)


def test_the_dtypes_agree() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 7, 3), np.uint8)
    expected = from_srgb(pixels)
    np.testing.assert_allclose(from_srgb(pixels.astype(np.uint16) * 257), expected, atol=1e-6)
    np.testing.assert_allclose(from_srgb(pixels.astype(np.float32) / np.float32(255)), expected, atol=1e-6)


def test_it_undoes_the_rendering_of_a_cube() -> None:
    """A smooth spectrum, rendered as a photograph, gives about what CIE's functions see of the spectrum itself."""
    nm = np.array(BANDS_NM, np.float32)
    cube = (0.3 + 0.25 * np.tanh((nm - 570) / 60))[:, None, None] * np.ones((1, 4, 4), np.float32)
    to_srgb = reflectance_to_srgb()
    seen = _TO_CIE @ (to_srgb / to_srgb.sum(axis=1, keepdims=True)) @ cube[:, 0, 0]
    np.testing.assert_allclose(from_srgb(render(cube.astype(np.float32)))[0, 0], seen, atol=5e-3)
