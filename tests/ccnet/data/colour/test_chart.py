"""Colour matrices from photographs of a chart: they are found, measured, fitted, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ccnet.contract import SHIPPED_WEIGHTS, CCNetError
from ccnet.data.camera import Camera
from ccnet.data.colour import chart_picture
from ccnet.data.colour.chart import PATCHES, chart_colours, fit_chart
from ccnet.data.colour.chart_picture import find_patches
from ccnet.data.colour.lights import find_light
from ccnet.data.colour.matrix import fit_matrix, smooth_reflectances
from ccnet.data.colour.target import read_target
from ccnet.data.datasets import open_source
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.baselines import fit_relative_regression
from ccnet.evaluation.cameras.study import through_matrices
from ccnet.evaluation.validation import score_method
from ccnet.runtime.io.sensor import Radiometry
from tests.ccnet.data.colour.chart_scene import passport, photograph

if not hasattr(cv2, "mcc"):
    pytest.skip("OpenCV before 5 has no detector of charts", allow_module_level=True)

TARGET = read_target(SHIPPED_WEIGHTS)
WANTED = chart_colours(TARGET, None)
MATRIX = np.array([[0.7, 0.2, 0.1], [0.3, 0.8, -0.1], [0.1, -0.3, 1.2]])
GAINS = (1.8, 1.0, 1.5)
SENSOR = np.clip(WANTED @ np.linalg.inv(MATRIX).T, 0, None) * 0.9 / GAINS
"""The chart's colours as a sensor sees them whose matrix and white balance are known."""


@pytest.mark.parametrize("angle", [0, 12, 95, 180])
def test_matrix_and_white_balance_are_recovered(angle: float) -> None:
    patches = find_patches(photograph(SENSOR, angle))
    fit = fit_chart(patches.colours, WANTED, patches.places)
    np.testing.assert_allclose(fit.matrix, MATRIX, atol=0.04)
    np.testing.assert_allclose(fit.matrix.sum(1), 1)
    np.testing.assert_allclose(fit.gains, GAINS, rtol=0.02)
    assert fit.residual < 0.01 and 0.8 < fit.falloff < 0.99


@pytest.mark.parametrize(("angle", "lean"), [(0, 0), (8, 0.1), (-20, 0.25), (97, 0.1), (180, 0.2)])
def test_classic_page_of_an_open_passport_is_found(angle: float, lean: float) -> None:
    patches = find_patches(passport(SENSOR, angle, lean=lean))
    fit = fit_chart(patches.colours, WANTED, patches.places)
    np.testing.assert_allclose(fit.matrix, MATRIX, atol=0.04)
    np.testing.assert_allclose(fit.gains, GAINS, rtol=0.02)
    assert fit.residual < 0.01


def test_small_passport_is_found_in_an_enlarged_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = passport(SENSOR, -20, fill=0.35)
    patches = find_patches(picture)
    np.testing.assert_allclose(fit_chart(patches.colours, WANTED, patches.places).matrix, MATRIX, atol=0.04)
    monkeypatch.setattr(chart_picture, "SEARCH_SIDES", (1000, 800))
    with pytest.raises(CCNetError):
        find_patches(picture)


def test_passport_without_its_classic_page_is_refused() -> None:
    picture = passport(SENSOR, 0)
    picture[300:] = 0.2
    with pytest.raises(CCNetError):
        patches = find_patches(picture)
        fit_chart(patches.colours, WANTED, patches.places)


def test_uneven_light_changes_nothing() -> None:
    even, uneven = (find_patches(photograph(SENSOR, 8, falloff, 0)) for falloff in (0, 0.6))
    matrices = [fit_chart(each.colours, WANTED, each.places).matrix for each in (even, uneven)]
    np.testing.assert_allclose(*matrices, atol=0.02)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.full((300, 400, 3), 0.3, np.float32), "no ColorChecker of 24 patches found"),
        (photograph(SENSOR * 2.2, falloff=0), "is clipped"),
        (photograph(SENSOR / 400, noise=0), "grey patches are dark"),
        (photograph(SENSOR, falloff=0, noise=0) ** np.float32(1 / 2.2), "do not have the chart's colours"),
        (photograph(np.roll(SENSOR, 7, axis=0), falloff=0, noise=0), ""),
        (photograph(SENSOR, noise=0.6), ""),
    ],
)
def test_bad_photographs_are_refused(picture: Any, words: str) -> None:
    with pytest.raises(CCNetError) as caught:
        patches = find_patches(picture)
        fit_chart(patches.colours, WANTED, patches.places)
    assert words in str(caught.value)


def test_command_reports_patches_and_writes_a_radiometry(tmp_path: Path, ccnet: Callable[..., Any]) -> None:
    picture = np.rint(photograph(SENSOR) * 65535).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "chart.png"), picture[..., ::-1])
    result = ccnet("camera", "chart", tmp_path / "chart.png", "-o", tmp_path / "mine.json", "--name", "mine")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert len(lines) == 25 and all(line.startswith(name) for line, name in zip(lines, PATCHES, strict=False))
    assert "of white off (RMS)" in lines[-1]
    radiometry = Radiometry.read(tmp_path / "mine.json")
    assert (radiometry.camera, radiometry.target) == ("mine", "cie_1964_w_gain")
    np.testing.assert_allclose(radiometry.matrix or 0, MATRIX, atol=0.04)
    np.testing.assert_allclose(radiometry.gains, GAINS, rtol=0.02)
    assert json.loads((tmp_path / "mine.json").read_text())["light"] == "the chart's light"


def test_photographs_with_a_tone_curve_are_refused(tmp_path: Path, ccnet: Callable[..., Any]) -> None:
    cv2.imwrite(str(tmp_path / "chart.jpg"), np.full((64, 64, 3), 99, np.uint8))
    result = ccnet("camera", "chart", tmp_path / "chart.jpg", "-o", tmp_path / "mine.json")
    assert result.code == 2 and "JPEG has a tone curve, expected a raw file" in result.err


def test_chart_of_other_weights_needs_its_spectra(tmp_path: Path) -> None:
    other = Camera(name="other", response=TARGET.response)
    with pytest.raises(CCNetError, match="the shipped chart is for the camera cie_1964_w_gain"):
        chart_colours(other, None)
    np.save(tmp_path / "patches.npy", np.full((24, 31), 0.5))
    np.testing.assert_allclose(chart_colours(other, tmp_path / "patches.npy"), 0.5, rtol=1e-5)
    np.save(tmp_path / "patches.npy", np.full((23, 31), 0.5))
    with pytest.raises(CCNetError, match="23 spectra, expected 24"):
        chart_colours(other, tmp_path / "patches.npy")


@pytest.mark.parametrize("model", ["Nikon_D700", "ARRI_D21"])
def test_chart_is_worth_the_response(shared: Path, model: str) -> None:
    """Cubes behind the chart's matrix are within 0.5 dB of those behind the response's own, in daylight."""
    file = np.load(shared / "spectra" / "reflectances.npz")
    surfaces = file["macbeth_chart"][np.arange(24).reshape(6, 4).T.ravel()].astype(np.float64)
    camera = Camera.read(shared / "cameras" / "camera" / f"{model}_380_780_5.json").under(find_light("daylight"))
    patches = find_patches(photograph(surfaces @ camera.response * (0.5, 0.9, 0.6), 15))
    from_chart = fit_chart(patches.colours, WANTED, patches.places).matrix
    scenes = SceneDataset(scenes=open_source(f"cave:{shared}/cave/val", "val")[:1], cameras=(TARGET,))
    frame, cube = scenes.pair(0)
    regression = fit_relative_regression([(frame[:, ::4, ::4], cube[:, ::4, ::4])])
    seen = SceneDataset(scenes=scenes.scenes, cameras=(camera.behind(from_chart),))
    from_response = through_matrices(
        SceneDataset(scenes=scenes.scenes, cameras=(camera,)), TARGET, smooth_reflectances()
    )
    assert score_method(regression, seen).psnr > score_method(regression, from_response).psnr - 0.5
    assert fit_matrix(camera, TARGET.response, smooth_reflectances()) == pytest.approx(from_chart, abs=0.2)
