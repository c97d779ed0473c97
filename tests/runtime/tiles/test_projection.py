"""Projections of spectra, and invalid projections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime import Projection
from tests.runtime.conftest import open_camera, pixels

VALUES = np.random.default_rng(0).random((31, 5, 7), np.float32)


def projected(projection: Projection, values: Any = VALUES) -> Any:
    out = np.zeros((len(projection.names), *values.shape[1:]), np.float32)
    projection(values, out)
    return out


def test_bands_and_ratios_are_computed() -> None:
    bands = Projection.bands(450, 400)
    assert bands.names == ("450 nm", "400 nm")
    np.testing.assert_array_equal(projected(bands), VALUES[[5, 0]])
    ratios = projected(Projection.ratios({"a": (500, 400), "b": (700, 690)}))
    np.testing.assert_allclose(ratios, [VALUES[10] / VALUES[0], VALUES[30] / VALUES[29]], rtol=1e-6)


def test_ratio_over_zero_is_nan() -> None:
    values = VALUES.copy()
    values[0, 2, 3] = 0
    found = projected(Projection.ratios({"a": (500, 400)}), values)
    assert np.argwhere(np.isnan(found)).tolist() == [[0, 2, 3]]


def test_out_of_any_memory_layout_is_filled() -> None:
    projection = Projection.linear(np.ones(31))
    out = np.zeros((5, 7, 3), np.float32).transpose(2, 0, 1)[1:2]
    projection(VALUES, out)
    np.testing.assert_allclose(out[0], VALUES.sum(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Projection.bands(405), "no band at 405 nm"),
        (lambda: Projection.bands(), "projection is float32"),
        (lambda: Projection.ratios({}), "no pair of bands"),
        (lambda: Projection.linear(np.ones((2, 30))), r"\(2, 30\)"),
        (lambda: Projection.linear(np.ones((2, 31)), ["one"]), "1 names"),
        (lambda: Projection.linear([[1, 2], [3]]), "not a matrix"),
        (lambda: Projection.linear("ab"), "not a matrix"),
        (lambda: Projection.linear(np.full(31, np.nan)), "NaN"),
        (lambda: Projection.linear(np.full(31, 1e300)), "infinite"),
        (lambda: Projection.linear(np.full(31, 1j)), "not a matrix"),
    ],
)
def test_invalid_projection_is_refused(make: Any, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        make()


@pytest.mark.parametrize("size", [(20, 30), (113, 97)])
def test_projecting_a_frame_equals_projecting_its_cube(folder: Path, size: tuple[int, int]) -> None:
    frame, matrix = pixels(*size), np.random.default_rng(0).normal(size=(4, 31)).astype(np.float32)
    with open_camera(folder, tile=64) as reconstruct:
        cube = reconstruct(frame)
        bands = reconstruct.project(frame, Projection.bands(700, 400))
        np.testing.assert_array_equal(bands, cube[[30, 0]])
        difference = reconstruct.project(frame, Projection.linear(matrix)) - np.tensordot(matrix.astype(float), cube, 1)
        rounding = 31 * np.finfo(np.float32).eps * np.tensordot(np.abs(matrix), np.abs(cube), 1)  # of a sum of 31
        assert (np.abs(difference) <= rounding).all()
        index = reconstruct.project(frame, Projection.differences({"red": (700, 500), "blue": (400, 500)}))
        for found, band in zip(index, (cube[30], cube[0]), strict=True):
            np.testing.assert_allclose(found, (band - cube[10]) / (band + cube[10]), rtol=1e-3)
