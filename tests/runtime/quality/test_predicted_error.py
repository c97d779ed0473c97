"""The cube of half widths, part by part, and the number of the frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.contract import MANIFEST_NAME, Artifact, ArtifactFolder, CCNetError, Manifest, sha256
from ccnet.metrics.predicted_error import FEATURES, ErrorModel, relative_half_width
from ccnet.runtime.io.cubes import read_cube
from ccnet.runtime.quality.predicted_error import error_target, open_error_cube, read_error_model

Array = npt.NDArray[Any]
HEIGHT, WIDTH = 20, 30


@pytest.fixture(scope="module")
def model() -> ErrorModel:
    """A model of random numbers."""
    rng = np.random.default_rng(0)
    return ErrorModel(
        pixel_layers=(rng.normal(0, 0.3, (31, 3)).astype(np.float32),),
        mean=np.full(FEATURES, -3, np.float32),
        spread=np.full(FEATURES, 2, np.float32),
        coefficients=rng.normal(-1, 0.3, (1 + FEATURES, 31)).astype(np.float32),
        weights_sha256="5a" * 32,
    )


@pytest.fixture
def frame() -> Array:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def cube() -> Array:
    return np.random.default_rng(2).random((31, HEIGHT, WIDTH), np.float32)


@pytest.mark.parametrize("suffix", ["hdr", "mat", "npy", "tif", "nc"])
def test_parts_give_the_half_widths_of_the_whole(
    tmp_path: Path, model: ErrorModel, frame: Array, cube: Array, suffix: str
) -> None:
    if suffix in ("tif", "nc"):
        pytest.importorskip({"tif": "rasterio", "nc": "h5netcdf"}[suffix], reason='install ".[geo]"')
    target = tmp_path / f"cube.error.{suffix}"
    with open_error_cube(target, frame, model, {"source": "photo.png"}) as estimate:
        for top, bottom in ((0, 7), (7, HEIGHT)):
            for left, right in ((0, 13), (13, WIDTH)):
                estimate.write(top, cube[:, top:bottom, left:right], left)
    pixels, spectra = (frame.reshape(-1, 3).T / np.float32(255)), cube.reshape(31, -1)
    expected = model.half_width(pixels, spectra)
    np.testing.assert_allclose(read_cube(target), expected.reshape(cube.shape), rtol=1e-5)
    widths, means = expected.mean(axis=0), spectra.mean(axis=0)
    assert estimate.score == pytest.approx(float(relative_half_width(widths, means).mean()), rel=1e-5)
    assert f"± {widths.mean():.2g} reflectance on average" in estimate.describe()
    assert f"± {(widths / means).mean():.1%} of a spectrum's mean in the 100% of the pixels" in estimate.describe()
    if suffix == "hdr":
        header = target.read_text()
        assert f"predicted error = {estimate.score:.4f}" in header and "source = photo.png" in header
        assert "description = {predicted error: half width of the 90% interval, reflectance}" in header
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {target.name, *(["cube.error.img"] if suffix == "hdr" else [])}


def test_dark_pixels_do_not_count_in_per_cent(tmp_path: Path, model: ErrorModel, frame: Array, cube: Array) -> None:
    def describe(cube: Array) -> str:
        with open_error_cube(tmp_path / "a.npy", frame, model, {}) as estimate:
            estimate.write(0, cube)
        return estimate.describe().partition("; ")[2]

    half = cube.copy()
    half[:, :, 15:] = 0.001
    widths = model.half_width(frame[:, :15].reshape(-1, 3).T / np.float32(255), cube[:, :, :15].reshape(31, -1))
    relative = (widths.mean(axis=0) / cube[:, :, :15].reshape(31, -1).mean(axis=0)).mean()
    assert describe(half) == f"± {relative:.1%} of a spectrum's mean in the 50% of the pixels above 0.05"
    assert describe(np.zeros_like(cube)) == "no pixel is above 0.05"


def test_unfinished_cube_leaves_no_file(tmp_path: Path, model: ErrorModel, frame: Array, cube: Array) -> None:
    with (
        pytest.raises(CCNetError, match="never written"),
        open_error_cube(tmp_path / "a.npy", frame, model, {}) as estimate,
    ):
        estimate.write(0, cube[:, :5])
    assert not list(tmp_path.iterdir())
    with pytest.raises(CCNetError, match="unknown cube format"), open_error_cube(tmp_path / "a.xyz", frame, model, {}):
        pass


def test_error_cube_lies_beside_its_cube() -> None:
    assert error_target(Path("a/photo.v2.hdr")) == Path("a/photo.v2.error.hdr")


def folder_with(path: Path, data: bytes | None, digest: str = "5a" * 32) -> ArtifactFolder:
    manifest = Manifest(config={}, weights_sha256=digest, context_size=3, input="float32", tools={})
    if data is not None:
        file = path / "error.npz"
        file.write_bytes(data)
        entry = Artifact(file=file.name, kind="error", format="npz", precision="fp32", sha256=sha256(file))
        manifest = replace(manifest, artifacts=(entry,))
    (path / MANIFEST_NAME).write_text(manifest.to_json())
    return ArtifactFolder.open(path)


def test_model_of_a_folder_is_read(tmp_path: Path, model: ErrorModel) -> None:
    found = read_error_model(folder_with(tmp_path, model.to_bytes()))
    np.testing.assert_array_equal(found.coefficients, model.coefficients)


def test_folder_without_a_model_or_with_a_wrong_one_is_refused(tmp_path: Path, model: ErrorModel) -> None:
    with pytest.raises(CCNetError, match="has no predicted error"):
        read_error_model(folder_with(tmp_path, None))
    with pytest.raises(CCNetError, match=r"error\.npz: is of other weights"):
        read_error_model(folder_with(tmp_path, model.to_bytes(), digest="00" * 32))
    with pytest.raises(CCNetError, match=r"error\.npz: .*made by 'ccnet fit-error'"):
        read_error_model(folder_with(tmp_path, b"not a model"))
    folder = folder_with(tmp_path, model.to_bytes())
    (tmp_path / "error.npz").write_bytes(b"changed")
    with pytest.raises(CCNetError, match="SHA-256"):
        read_error_model(folder)
