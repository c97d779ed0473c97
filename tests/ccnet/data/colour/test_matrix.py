"""Colour matrices fitted from responses, and the lights that they are fitted in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.data.camera import Camera
from ccnet.data.colour.lights import find_light
from ccnet.data.colour.matrix import fit_colours, fit_matrix, matrix_error, read_reflectances, smooth_reflectances


def other(camera: Camera) -> Camera:
    """A camera whose channels are mixtures of another camera's."""
    mixture = camera.response @ np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.2, 0.7]]).T
    return Camera(name="mixture", response=(mixture / mixture.sum(0)).astype(np.float32))


def test_mixtures_of_the_target_are_undone(camera: Camera) -> None:
    mixed = other(camera)
    matrix = fit_matrix(mixed, camera.response, smooth_reflectances())
    np.testing.assert_allclose(mixed.response @ matrix.T, camera.response, atol=1e-6)
    assert matrix_error(mixed, camera.response, smooth_reflectances(), matrix) < 1e-5


def test_white_is_kept_and_no_other_matrix_with_white_is_better(camera: Camera) -> None:
    shifted = Camera(name="shifted", response=np.roll(camera.response, 1, axis=0))
    moments = smooth_reflectances()
    matrix = fit_matrix(shifted, camera.response, moments)
    np.testing.assert_allclose(matrix.sum(1), 1)
    best = matrix_error(shifted, camera.response, moments, matrix)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.normal(size=(3, 3)) * 0.01
        assert matrix_error(shifted, camera.response, moments, matrix + step - step.mean(1, keepdims=True)) > best


def test_colours_give_the_matrix_that_made_them() -> None:
    rng = np.random.default_rng(0)
    matrix = np.array([[0.7, 0.2, 0.1], [0.3, 0.8, -0.1], [0.1, -0.3, 1.2]])
    measured = rng.uniform(0, 1, (24, 3))
    np.testing.assert_allclose(fit_colours(measured, measured @ matrix.T), matrix)


@pytest.mark.parametrize("suffix", ["npz", "npy", "csv"])
def test_reflectances_are_read_from_files(tmp_path: Path, suffix: str) -> None:
    path, values = tmp_path / f"spectra.{suffix}", np.random.default_rng(0).uniform(0.1, 1, (5, 31))
    values /= values.max(1, keepdims=True)
    if suffix == "csv":
        rows = [",".join(map(repr, [nm, *column.tolist()])) for nm, column in zip(BANDS_NM, values.T, strict=True)]
        path.write_text("\n".join(["nm,a,b,c,d,e", *rows]))
    else:
        np.savez(path, one=values[:2], two=values[2:], nm=np.array(BANDS_NM)) if suffix == "npz" else np.save(
            path, values
        )
    np.testing.assert_allclose(read_reflectances(path), values.T @ values / 5, rtol=1e-6)


@pytest.mark.parametrize("array", [np.ones((4, 30)), np.full((4, 31), np.nan), np.ones((0, 31)), np.array(["x"])])
def test_files_without_reflectances_are_refused(tmp_path: Path, array: np.ndarray) -> None:  # type: ignore[type-arg]
    np.save(tmp_path / "spectra.npy", array)
    with pytest.raises(CCNetError, match=r"expected arrays \(N, 31\)"):
        read_reflectances(tmp_path / "spectra.npy")


def test_lights_by_name_are_those_of_cie() -> None:
    """CIE's tables of D65 and A, relative to 560 nm, at 400, 450, 500, 600 and 700 nm."""
    at = [0, 5, 10, 20, 30]
    daylight, tungsten = (find_light(name).power for name in ("daylight", "tungsten"))
    np.testing.assert_allclose(daylight[at] / daylight[16] * 100, [82.75, 117.01, 109.35, 90.01, 71.61], rtol=2e-3)
    np.testing.assert_allclose(tungsten[at] / tungsten[16] * 100, [14.71, 33.09, 59.86, 129.04, 198.26], rtol=2e-3)
    np.testing.assert_allclose(find_light("2856K").power, tungsten)
    assert find_light("equal").power.tolist() == [1] * 31
    assert [find_light(text).name for text in ("daylight", "equal", "4000", "4000K")] == [
        "daylight",
        "equal energy",
        "4000K",
        "4000K",
    ]


def test_light_of_a_file_and_unknown_lights(tmp_path: Path) -> None:
    np.savez(tmp_path / "lamp.npz", power=np.linspace(0.1, 1, 31))
    np.testing.assert_allclose(find_light(str(tmp_path / "lamp.npz")).power, np.linspace(0.1, 1, 31))
    for text, words in (
        ("moon", "light 'moon' is not known, expected daylight, tungsten"),
        ("100K", "1500K to 25000K"),
    ):
        with pytest.raises(CCNetError) as caught:
            find_light(text)
        assert words in str(caught.value)


def test_neutral_is_what_the_sensor_sees_of_white(tmp_path: Path, camera: Camera) -> None:
    np.savez(tmp_path / "sensor.npz", filters=camera.response * (0.5, 1.0, 0.25))
    sensor = Camera.read(tmp_path / "sensor.npz")
    np.testing.assert_allclose(sensor.neutral(find_light("equal")), (0.5, 1, 0.25), rtol=1e-5)
