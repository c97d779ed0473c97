"""Exposure and white balance of a frame."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.cameras.adjustment import AUTO_LEVEL, Adjustment, Array

LIGHT = np.array([0.5, 0.4, 0.2])


def scene() -> Array:
    """Grey surfaces of every reflectance in yellowish light; the pixel at x = 20, y = 10 reflects 0.8."""
    rng = np.random.default_rng(0)
    grey = rng.uniform(0.05, 0.9, (40, 60, 1))
    grey[6:15, 16:25] = 0.8
    return (grey * LIGHT).astype(np.float32)


@pytest.mark.parametrize(
    ("exposure", "white", "gains"),
    [
        (None, None, (1, 1, 1)),
        ("1", None, (2, 2, 2)),
        ("-0.5", None, (0.70711,) * 3),
        (None, "20,10", 0.4 / LIGHT),
        (None, "20,10,0.8", 1 / LIGHT),
        ("-1", "20,10,0.8", 0.5 / LIGHT),
        (None, "auto", 0.4 / LIGHT),
    ],
)
def test_gains(exposure: str | None, white: str | None, gains: object) -> None:
    adjustment = Adjustment.parse(exposure, white)
    np.testing.assert_allclose(adjustment.gains(scene()), gains, rtol=1e-4)
    assert adjustment.changes_nothing == (exposure is white is None)


def test_auto_exposure_brings_bright_pixels_to_a_level() -> None:
    adjusted = scene() * Adjustment.parse("auto", "auto").gains(scene())
    assert np.percentile(adjusted.mean(2), 99.9) == pytest.approx(AUTO_LEVEL, rel=1e-3)


@pytest.mark.parametrize(
    ("exposure", "white", "words"),
    [
        ("bright", None, "--exposure is 'bright', expected EV from -10 to 10, or auto"),
        ("nan", None, "--exposure is 'nan'"),
        ("11", None, "--exposure is '11'"),
        (None, "1", "--white is '1', expected X,Y in px"),
        (None, "1,2,3", "--white is '1,2,3'"),
        (None, "1,2,.5,1", "--white is"),
        (None, "-1,2", "--white is"),
        ("auto", "1,2,0.5", "leave --exposure auto out"),
    ],
)
def test_texts_that_mean_nothing_are_refused(exposure: str | None, white: str | None, words: str) -> None:
    with pytest.raises(CCNetError) as caught:
        Adjustment.parse(exposure, white)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("white", "exposure", "factor", "words"),
    [
        ("60,0", None, 1, "--white is 60,0, expected a pixel of the 60×40 px frame"),
        ("20,10", None, 5, "choose a surface that is neither clipped nor dark"),
        ("20,10", None, 0.01, "choose a surface that is neither clipped nor dark"),
        ("auto", None, 0, "too little light"),
        (None, "auto", 0, "black frame"),
    ],
)
def test_frames_without_the_light_are_refused(
    white: str | None, exposure: str | None, factor: float, words: str
) -> None:
    frame = np.clip(scene() * np.float32(factor), 0, 1)
    with pytest.raises(CCNetError) as caught:
        Adjustment.parse(exposure, white).gains(frame)
    assert words in str(caught.value)
