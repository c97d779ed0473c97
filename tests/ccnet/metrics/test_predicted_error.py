"""The model of predicted errors: half widths of pixels, and its file."""

from __future__ import annotations

import io
import itertools
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.metrics.predicted_error import (
    FEATURES,
    Array,
    ErrorModel,
    error_file,
    error_scale,
    features,
    relative_half_width,
)

PATH = Path("w.error.npz")


@pytest.fixture(scope="module")
def model() -> ErrorModel:
    """A model whose half width is a tenth of the scale, and larger where cube and pixel network disagree."""
    rng = np.random.default_rng(0)
    layers = [rng.normal(0, 0.3, shape).astype(np.float16).astype(np.float32) for shape in ((8, 3), (31, 8))]
    coefficients = np.zeros((1 + FEATURES, 31), np.float32)
    coefficients[0], coefficients[5:] = np.log(0.1), 0.2
    return ErrorModel(
        pixel_layers=tuple(layers),
        mean=np.full(FEATURES, -3, np.float32),
        spread=np.full(FEATURES, 2, np.float32),
        coefficients=coefficients,
        weights_sha256="5a" * 32,
    )


@pytest.fixture(scope="module")
def pixels() -> tuple[Array, Array]:
    """A frame (3, N) and spectra (31, N), more than a block of them."""
    rng = np.random.default_rng(1)
    return rng.random((3, 40_000), np.float32), rng.random((31, 40_000), np.float32)


def files(model: ErrorModel) -> dict[str, Array]:
    with np.load(io.BytesIO(model.to_bytes())) as file:
        return dict(file)


def packed(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def test_half_width_grows_with_the_disagreement(model: ErrorModel, pixels: tuple[Array, Array]) -> None:
    frame, _ = pixels
    expected = model.pixel_spectra(frame)
    widths = [model.half_width(frame, expected + np.float32(step)) for step in (0, 0.01, 0.1, 0.3)]
    assert all((larger > smaller).all() for smaller, larger in itertools.pairwise(widths))
    constant = replace(model, coefficients=np.where(np.arange(10)[:, None] == 0, model.coefficients, 0))
    np.testing.assert_allclose(constant.half_width(frame, expected), 0.1 * np.tile(error_scale(frame), (31, 1)), 1e-5)


def test_parts_give_the_half_widths_of_the_whole(model: ErrorModel, pixels: tuple[Array, Array]) -> None:
    frame, spectra = pixels
    whole = model.half_width(frame, spectra)
    cuts = [np.split(array, [13, 17_000, 30_000], axis=1) for array in pixels]
    parts = [model.half_width(*part) for part in zip(*cuts, strict=True)]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5)


def test_features_are_finite_for_black_and_white(model: ErrorModel) -> None:
    frame = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 1]], np.float32)
    spectra = model.pixel_spectra(frame)
    found = features(frame, spectra, spectra)
    assert found.shape == (FEATURES, 3) and np.isfinite(found).all()
    np.testing.assert_allclose(found[4:], np.log(1e-3), rtol=1e-5)  # both agree
    assert np.isfinite(model.half_width(frame, spectra)).all()


def test_relative_half_width_is_of_the_mean_spectrum() -> None:
    widths, means = np.float32([0.1, 0.1]), np.float32([0.48, -1])
    np.testing.assert_allclose(relative_half_width(widths, means), [0.2, 5], 1e-5)


def test_file_keeps_the_model(model: ErrorModel, pixels: tuple[Array, Array]) -> None:
    read = ErrorModel.from_bytes(PATH, model.to_bytes())
    assert read.weights_sha256 == model.weights_sha256
    np.testing.assert_array_equal(read.half_width(*pixels), model.half_width(*pixels))
    assert error_file(Path("a/ccnet.v2.safetensors")) == Path("a/ccnet.v2.error.npz")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": np.zeros(3, np.float32)}, "mean is float32"),
        ({"spread": np.zeros(FEATURES, np.float32)}, "a spread of 0"),
        ({"coefficients": np.full((1 + FEATURES, 31), np.nan, np.float32)}, "coefficients holds NaN"),
        ({"coefficients": np.zeros((1 + FEATURES, 31))}, "coefficients is float64"),
        ({"layer0": np.full((8, 3), np.inf, np.float16)}, "layer 0 holds NaN or infinity"),
        ({"layer1": np.zeros((30, 8), np.float16)}, "30 bands"),
        ({"layer0": np.zeros((8, 4), np.float16)}, "layer 0 is float32"),
        ({"inflation": np.float64(0.5)}, "inflation is 0.5, expected 1 to 100"),
        ({"inflation": np.zeros(3)}, "made by 'ccnet fit-error'"),
        ({"other": np.zeros(3)}, "made by 'ccnet fit-error'"),
        ({"mean": np.array([{"a": 1}], object)}, "made by 'ccnet fit-error'"),
        ({"mean": np.zeros(1 << 20, np.float32)}, "expected a predicted error"),
    ],
)
def test_hostile_file_is_refused(model: ErrorModel, change: dict[str, Array], words: str) -> None:
    with pytest.raises(CCNetError, match=words) as error:
        ErrorModel.from_bytes(PATH, packed(**files(model) | change))
    assert str(error.value).startswith("w.error.npz: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [b"", b"PK\3\4", b"\x80\x04."])
def test_damaged_file_is_refused(model: ErrorModel, damage: bytes) -> None:
    for data in (damage, model.to_bytes()[:-30] + damage):
        with pytest.raises(CCNetError, match=r"w\.error\.npz: .*made by 'ccnet fit-error'"):
            ErrorModel.from_bytes(PATH, data)


def test_small_file_that_unpacks_to_a_large_one_is_refused(model: ErrorModel) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", bytes(1 << 26))
    assert len(file.getvalue()) < 1 << 20
    with pytest.raises(CCNetError, match="67108864 bytes when unpacked"):
        ErrorModel.from_bytes(PATH, file.getvalue())
