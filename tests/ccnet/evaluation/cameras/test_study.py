"""``ccnet evaluate-cameras`` and ``ccnet evaluate --colour-matrix``: other cameras' frames, and photographs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import SHIPPED_WEIGHTS
from ccnet.data.camera import Array, Camera, Imaging
from ccnet.data.colour.matrix import smooth_reflectances
from ccnet.data.colour.target import read_target
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.cameras import study
from ccnet.evaluation.cameras.photographs import PHOTOGRAPHS, study_photographs
from ccnet.evaluation.cameras.study import (
    AS_IT_IS,
    CORRECTED,
    OWN_REGRESSION,
    REGRESSION,
    THROUGH_MATRIX,
    study_cameras,
    summarise,
    thin,
    through_matrices,
)
from ccnet.evaluation.validation import ValidationScore
from ccnet.model.checkpoint import save_checkpoint

MIXTURE = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.2, 0.7]])


@pytest.fixture
def mixed(camera: Camera) -> Camera:
    """A camera whose channels are mixtures of the weights' camera's, so that a matrix makes it the same camera."""
    return Camera(name="mixed", response=(camera.response @ MIXTURE.T).astype(np.float32))


def repeat_green(frame: Array) -> Array:
    """Return a cube without a network: every band is the green channel."""
    return np.repeat(frame[1:2], 31, axis=0)


def test_matrix_makes_a_mixture_the_weights_camera(
    camera: Camera, mixed: Camera, make_cube: Callable[..., Array], make_scenes: Callable[..., SceneDataset]
) -> None:
    scenes = make_scenes(camera, make_cube(seed=1))
    behind = through_matrices(make_scenes(mixed, make_cube(seed=1)), camera, smooth_reflectances())
    np.testing.assert_allclose(behind.pair(0)[0], scenes.pair(0)[0], atol=1e-5)
    np.testing.assert_allclose(behind.cameras[0].frame_response, camera.response, atol=1e-6)


def test_study_judges_frames_with_and_without_the_matrix(
    camera: Camera, mixed: Camera, make_cube: Callable[..., Array], make_scenes: Callable[..., SceneDataset]
) -> None:
    held_out, training = make_scenes(camera, make_cube(seed=1)), make_scenes(camera, make_cube(64, 64, 2))
    (first, benchmark), (second, scores) = study_cameras(
        repeat_green, camera, [mixed], held_out, training, smooth_reflectances()
    )
    assert (first, second) == ("test", "mixed") and benchmark.keys() == {THROUGH_MATRIX, CORRECTED, REGRESSION}
    assert scores[THROUGH_MATRIX].psnr == pytest.approx(benchmark[THROUGH_MATRIX].psnr, abs=1e-3)
    assert scores[CORRECTED].psnr == pytest.approx(benchmark[CORRECTED].psnr, abs=1e-2)
    assert scores[CORRECTED].mrae < scores[THROUGH_MATRIX].mrae
    assert scores[REGRESSION].psnr == pytest.approx(benchmark[REGRESSION].psnr, abs=1e-3)
    assert abs(scores[AS_IT_IS].psnr - scores[THROUGH_MATRIX].psnr) > 0.1
    assert scores[OWN_REGRESSION].psnr > scores[AS_IT_IS].psnr


def test_frames_without_the_matrix_are_judged_for_some_cameras_only(
    camera: Camera, mixed: Camera, make_cube: Callable[..., Array], make_scenes: Callable[..., SceneDataset]
) -> None:
    scenes = make_scenes(camera, make_cube(seed=1))
    cameras = [mixed, replace(mixed, name="other")]
    _, first, second = study_cameras(repeat_green, camera, cameras, scenes, scenes, smooth_reflectances(), ["mixed"])
    assert AS_IT_IS in first[1] and AS_IT_IS not in second[1]
    assert second[1].items() <= first[1].items()


def test_summary_has_the_mean_and_the_worst_of_each_common_column() -> None:
    good = ValidationScore(mrae=0.1, rmse=0.03, psnr=30, sam=9)
    bad = ValidationScore(mrae=0.2, rmse=0.05, psnr=26, sam=19)
    mean, worst = summarise(
        [{AS_IT_IS: bad, THROUGH_MATRIX: good, REGRESSION: bad}, {THROUGH_MATRIX: bad, REGRESSION: good}]
    )
    assert worst == {THROUGH_MATRIX: bad, REGRESSION: bad}
    assert mean.keys() == worst.keys() and mean[THROUGH_MATRIX].psnr == 28


def test_thin_scenes_have_every_fourth_pixel(
    camera: Camera, make_cube: Callable[..., Array], make_scenes: Callable[..., SceneDataset]
) -> None:
    scenes = make_scenes(camera, make_cube(9, 13))
    frame, cube = thin(scenes).pair(0)
    np.testing.assert_array_equal(cube, make_cube(9, 13)[:, [0, 4, 8]][:, :, [0, 4, 8, 12]])
    np.testing.assert_array_equal(frame, camera.frame(cube))
    assert scenes.pair(0)[1].shape == (31, 9, 13)


def test_regressions_of_jpegs_are_fitted_on_pixels_of_whole_frames(
    camera: Camera, make_cube: Callable[..., Array], make_scenes: Callable[..., SceneDataset], monkeypatch: Any
) -> None:
    scenes = replace(make_scenes(camera, make_cube(32, 32)), imaging=Imaging(eight_bit=True, jpeg=50))
    fitted: list[Any] = []

    def fit(pairs: Any) -> Any:
        fitted.extend(pairs)
        return repeat_green

    monkeypatch.setattr(study, "fit_relative_regression", fit)
    list(study_cameras(repeat_green, camera, [], scenes, scenes, smooth_reflectances()))
    frame, cube = scenes.pair(0)
    np.testing.assert_array_equal(fitted[0][0], frame[:, ::4, ::4])
    np.testing.assert_array_equal(fitted[0][1], cube[:, ::4, ::4])


def test_photographs_are_judged_with_and_without_the_best_factor(
    camera: Camera, make_cube: Callable[..., Array], make_scenes: Callable[..., SceneDataset]
) -> None:
    scenes = make_scenes(camera, make_cube(48, 48, 3) * np.float32(0.4))
    rows = {name: (score, scaled) for name, score, scaled in study_photographs(repeat_green, camera, scenes)}
    assert list(rows) == [photograph.name for photograph in PHOTOGRAPHS]
    right, bright, corrected = (
        rows[name]
        for name in (
            "right exposure and white balance", "one EV too bright", "one EV too bright, read with `--exposure -1`",
        )
    )  # fmt: skip
    assert bright[0].psnr < right[0].psnr - 2
    assert corrected[0].psnr == pytest.approx(right[0].psnr, abs=0.3)
    assert all(scaled.psnr >= score.psnr - 1e-6 for score, scaled in rows.values())


def test_commands(tmp_path: Path, write_cave: Callable[..., Path], camera_file: Path, make_cube: Callable[..., Array],
                  network: Any, ccnet: Callable[..., Any]) -> None:  # fmt: skip
    weights = tmp_path / "tiny.safetensors"
    save_checkpoint(weights, network, camera=read_target(SHIPPED_WEIGHTS).to_entry())
    write_cave(tmp_path / "cave" / "scene_ms", make_cube(32, 32, 1))
    data = ("--data", f"cave:{tmp_path / 'cave'}", "--train", f"cave:{tmp_path / 'cave'}", "--weights", weights)
    out = tmp_path / "study.json"
    result = ccnet(
        "evaluate-cameras", *data, "--camera", camera_file, "--json", out, "--device", "cpu", "--threads", "1"
    )
    assert result.code == 0, result.err
    assert "| camera under daylight |" in result.out and "| tone curve and saturation |" in result.out
    document = json.loads(out.read_text())
    assert set(document["cameras"]) == {"cie_1964_w_gain", "camera under daylight"}
    assert document["held out"] == [] and set(document["summary"]) == {"mean of 1 cameras", "lowest PSNR of 1 cameras"}
    folder = tmp_path / "cameras"
    folder.mkdir()
    for name in ("Nikon", "Canon"):
        shutil.copy(camera_file, folder / f"{name}.npz")
    result = ccnet("evaluate-cameras", *data, "--camera", folder, "--held-out-brand", "nikon", "--no-photographs",
                   "--json", out, "--device", "cpu", "--threads", "1")  # fmt: skip
    assert result.code == 0, result.err
    assert "| Nikon under daylight |" in result.out and "| Canon under daylight |" not in result.out
    document = json.loads(out.read_text())
    assert document["held out"] == ["Nikon under daylight"] and "Canon under daylight" in document["cameras"]
    columns = {THROUGH_MATRIX, CORRECTED, REGRESSION, OWN_REGRESSION}
    assert document["summary"]["mean of 2 cameras"].keys() == columns
    brands = ("--held-out-brand", "nikon", "--held-out-brand", "canon")
    result = ccnet("evaluate-cameras", *data, "--camera", folder, *brands, "--no-photographs", "--json", out,
                   "--device", "cpu", "--threads", "1")  # fmt: skip
    assert result.code == 0, result.err
    assert sorted(json.loads(out.read_text())["held out"]) == ["Canon under daylight", "Nikon under daylight"]
    behind = ccnet("evaluate", *data, "--camera", camera_file, "--colour-matrix", "--device", "cpu", "--threads", "1")
    assert behind.code == 0 and "its weights are for the camera" not in behind.err
