"""``ccnet camera``: matrices as files, and cubes of another camera's frames through them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import SHIPPED_WEIGHTS, CCNetError, Manifest
from ccnet.data.camera import Camera
from ccnet.data.colour.lights import find_light
from ccnet.data.colour.target import read_target
from ccnet.runtime.io.sensor import Radiometry

Ccnet = Callable[..., Any]


def test_fitted_matrix_is_a_radiometry_with_the_response_in_the_light(
    tmp_path: Path, camera_file: Path, ccnet: Ccnet
) -> None:
    result = ccnet("camera", "fit", camera_file, "-o", tmp_path / "matrix.json", "--illuminant", "3200K")
    assert result.code == 0 and "camera in 3200K, to cie_1964_w_gain; colours differ by" in result.out
    assert (tmp_path / "matrix.json").read_text().endswith("\n}\n")
    radiometry = Radiometry.read(tmp_path / "matrix.json")
    assert (radiometry.camera, radiometry.light, radiometry.target) == ("camera", "3200K", "cie_1964_w_gain")
    np.testing.assert_allclose(np.sum(radiometry.matrix, axis=1), 1, atol=2e-6)  # type: ignore[arg-type]
    lit = Camera.read(camera_file).under(find_light("3200K"))
    np.testing.assert_allclose(radiometry.response, lit.response, atol=1e-6)  # type: ignore[arg-type]
    mixed = lit.behind(np.array(radiometry.matrix)).frame_response
    np.testing.assert_allclose(radiometry.frame_response, mixed, atol=1e-5)  # type: ignore[arg-type]


def test_errors_are_one_line(tmp_path: Path, camera_file: Path, ccnet: Ccnet) -> None:
    for arguments, words in (
        (("-o", tmp_path / "matrix.txt"), "expected a name that ends in .json"),
        (("-o", tmp_path / "matrix.json", "--illuminant", "moon"), "light 'moon' is not known"),
        (("-o", tmp_path / "matrix.json", "--weights", camera_file), "damaged, missing, truncated"),
        (("-o", tmp_path / "matrix.json", "--spectra", camera_file), "expected arrays (N, 31)"),
    ):
        result = ccnet("camera", "fit", camera_file, *arguments)
        assert result.code == 2 and result.err.count("\n") == 1 and words in result.err
    result = ccnet("camera", "fit", tmp_path, "-o", tmp_path / "matrix.json")
    assert result.code == 2 and f"{tmp_path}: is a folder, expected a camera response" in result.err


def test_known_cameras_are_listed_and_made(tmp_path: Path, camera_file: Path, ccnet: Ccnet) -> None:
    assert "Nikon D700: daylight, tungsten" in ccnet("camera", "list").out
    result = ccnet("camera", "known", tmp_path, "-o", tmp_path / "known.json", "--source", "here")
    assert result.code == 0 and "matrices and responses of 1 cameras" in result.out
    document = json.loads((tmp_path / "known.json").read_text())
    lights = document["cameras"]["camera"]
    assert document["source"] == "here" and lights.keys() == {"daylight", "tungsten"}
    for name, entry in lights.items():
        lit = Camera.read(camera_file).under(find_light(name))
        np.testing.assert_allclose(entry["response"], lit.response, atol=1e-6)


def test_shipped_matrices_and_responses_are_those_of_the_measured_cameras(shared: Path) -> None:
    """The matrices are of other reflectances than the default's, so that they are near and not equal."""
    from ccnet.data.colour.matrix import fit_matrix, smooth_reflectances
    from ccnet.runtime.io.cameras.matrices import find_camera

    target = read_target(SHIPPED_WEIGHTS)
    for file in sorted((shared / "cameras" / "camera").glob("Nikon*.json")):
        camera = Camera.read(file)
        known = find_camera(camera.name)
        assert known is not None
        for each in known.lights:
            light = find_light(each.light)
            lit = camera.under(light)
            expected = fit_matrix(lit, target.response, smooth_reflectances())
            np.testing.assert_allclose(each.matrix, expected, atol=0.25)
            np.testing.assert_allclose(each.response, lit.response, atol=1e-6)  # type: ignore[arg-type]
            np.testing.assert_allclose(each.neutral, camera.neutral(light), rtol=1e-4)


def test_target_is_the_camera_of_weights_or_artifacts(tmp_path: Path) -> None:
    weights = read_target(SHIPPED_WEIGHTS)
    about: dict[str, Any] = {"weights_sha256": "ab" * 32, "context_size": 3, "input": "float32", "tools": {}}
    Manifest(config={}, camera=weights.to_entry(), **about).write(tmp_path)
    assert read_target(tmp_path).name == weights.name == "cie_1964_w_gain"
    np.testing.assert_array_equal(weights.response, read_target(tmp_path).response)
    (tmp_path / "none.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(CCNetError, match="names no camera"):
        read_target(tmp_path / "none.safetensors")
