"""Metrics against their definitions in plain Python, and against other libraries."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import spectral
import torch
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics import functional as torchmetrics

from ccnet import metrics

Cube = npt.NDArray[np.float64]
Metric = Callable[[Cube, Cube], float]
ALL: list[Metric] = [metrics.mrae, metrics.rmse, metrics.psnr, metrics.sam, metrics.max_abs]


@pytest.fixture
def pair() -> tuple[Cube, Cube]:
    rng = np.random.default_rng(0)
    return rng.random((31, 3, 4)), rng.random((31, 3, 4))


def test_every_metric_equals_its_definition(pair: tuple[Cube, Cube]) -> None:
    truth, estimate = pair
    values = list(zip(truth.ravel(), estimate.ravel(), strict=True))
    relative = [abs(t - e) / (t + 0.02) for t, e in values]
    assert metrics.mrae(truth, estimate) == pytest.approx(sum(relative) / len(values))
    assert metrics.mrae(truth, estimate, 0) == pytest.approx(sum(abs(t - e) / t for t, e in values) / len(values))
    mse = sum((t - e) ** 2 for t, e in values) / len(values)
    assert metrics.rmse(truth, estimate) == pytest.approx(math.sqrt(mse))
    assert metrics.psnr(truth, estimate) == pytest.approx(10 * math.log10(1 / mse))
    assert metrics.max_abs(truth, estimate) == max(abs(t - e) for t, e in values)
    angles = []
    for t, e in zip(truth.reshape(31, -1).T, estimate.reshape(31, -1).T, strict=True):
        angles.append(math.degrees(math.acos(t @ e / math.sqrt((t @ t) * (e @ e)))))
    assert metrics.sam(truth, estimate) == pytest.approx(sum(angles) / len(angles))


def test_psnr_and_sam_equal_other_libraries(pair: tuple[Cube, Cube]) -> None:
    truth, estimate = pair
    assert metrics.psnr(truth, estimate) == pytest.approx(peak_signal_noise_ratio(truth, estimate, data_range=1))
    spectra = truth.reshape(31, -1).T
    angles = spectral.spectral_angles(estimate.transpose(1, 2, 0), spectra).reshape(len(spectra), -1)
    assert metrics.sam(truth, estimate) == pytest.approx(np.degrees(np.diag(angles)).mean())


def test_torchmetrics_agrees(pair: tuple[Cube, Cube]) -> None:
    """It takes batches, estimate first, gives radians, and calls plain MRAE mean absolute percentage error."""
    truth, estimate = pair
    batch = torch.from_numpy(np.stack([estimate, truth]))[:, None]  # (2, 1, 31, H, W)
    mse = torchmetrics.mean_squared_error(*batch)
    assert metrics.rmse(truth, estimate) == pytest.approx(math.sqrt(mse))
    decibel = torchmetrics.image.peak_signal_noise_ratio(*batch, data_range=1.0)
    assert metrics.psnr(truth, estimate) == pytest.approx(float(decibel))
    angle = torchmetrics.image.spectral_angle_mapper(*batch)
    assert metrics.sam(truth, estimate) == pytest.approx(math.degrees(angle))
    relative = torchmetrics.mean_absolute_percentage_error(*batch)
    assert metrics.mrae(truth, estimate, 0) == pytest.approx(float(relative))
    for band in range(31):
        mse = torchmetrics.mean_squared_error(*batch[:, :, band].contiguous())
        assert metrics.band_rmse(truth, estimate)[band] == pytest.approx(math.sqrt(mse))


def test_torchmetrics_differs_on_black_pixels(pair: tuple[Cube, Cube]) -> None:
    truth, estimate = pair
    truth[:, 1, 2] = 0
    batch = torch.from_numpy(np.stack([estimate, truth]))[:, None]
    assert math.isnan(torchmetrics.image.spectral_angle_mapper(*batch))
    assert math.isfinite(metrics.sam(truth, estimate))
    assert torchmetrics.mean_absolute_percentage_error(*batch) > 1e3  # it divides by a tiny number instead of zero
    assert metrics.mrae(truth, estimate, 0) == math.inf


def test_metrics_of_a_cube_follow_from_its_bands(pair: tuple[Cube, Cube]) -> None:
    truth, estimate = pair
    for offset in (0, 0.02):
        bands = metrics.band_mrae(truth, estimate, offset)
        assert bands.shape == (31,)
        for band, value in enumerate(bands):
            assert metrics.mrae(truth[band : band + 1], estimate[band : band + 1], offset) == pytest.approx(value)
        assert metrics.mrae(truth, estimate, offset) == pytest.approx(bands.mean())
    assert metrics.rmse(truth, estimate) == pytest.approx(math.sqrt((metrics.band_rmse(truth, estimate) ** 2).mean()))


def test_mrae_without_offset_is_inf_where_the_truth_holds_zeros(pair: tuple[Cube, Cube]) -> None:
    truth, estimate = pair
    truth[4, 1, 2] = 0
    bands = metrics.band_mrae(truth, estimate, 0)
    assert [band for band, value in enumerate(bands) if value == math.inf] == [4]
    assert np.isfinite(np.delete(bands, 4)).all()
    estimate[4, 1, 2] = 0  # the estimate is right there, but 0 / 0 has no value
    assert metrics.mrae(truth, estimate, 0) == math.inf
    assert math.isfinite(metrics.mrae(truth, estimate))


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((482, 512), (128, 354), (128, 384)),  # as the challenge's toolbox slices it: [128:-128, 128:-128]
        ((512, 482), (128, 384), (128, 354)),
        ((512, 512), (128, 384), (128, 384)),
        ((256, 256), (64, 192), (64, 192)),
        ((1392, 1300), (348, 1044), (348, 952)),
        ((100, 400), (25, 75), (100, 300)),  # a quarter of the longer side would leave no rows
        ((200, 400), (50, 150), (100, 300)),
        ((1, 1), (0, 1), (0, 1)),
    ],
)
def test_ntire_crop_equals_the_toolboxs(size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> None:
    place = np.arange(size[0] * size[1], dtype=np.float32).reshape(1, *size)
    np.testing.assert_array_equal(metrics.ntire_crop(place), place[:, slice(*rows), slice(*columns)])


def test_metrics_of_equal_cubes(pair: tuple[Cube, Cube]) -> None:
    truth = pair[0]
    assert [metric(truth, truth.copy()) for metric in ALL] == [0, 0, math.inf, 0, 0]


def test_sam_ignores_brightness_and_black_pixels(pair: tuple[Cube, Cube]) -> None:
    truth, estimate = pair
    assert metrics.sam(truth, 3 * estimate) == pytest.approx(metrics.sam(truth, estimate))
    black = truth.copy()
    black[:, 1, 2] = 0
    lit = np.ones((3, 4), bool)
    lit[1, 2] = False
    assert metrics.sam(black, estimate) == pytest.approx(metrics.sam(truth[:, lit][:, None], estimate[:, lit][:, None]))
    assert metrics.sam(np.zeros_like(truth), estimate) == 0


def test_sam_holds_for_tiny_angles() -> None:
    truth = np.zeros((31, 1, 1))
    truth[0] = 1
    estimate = truth.copy()
    estimate[1] = 1e-9
    assert metrics.sam(truth, estimate) == pytest.approx(math.degrees(1e-9), rel=1e-6)


def test_half_precision_is_summed_in_double() -> None:
    truth = np.full((31, 64, 64), 1000, np.float16)
    assert metrics.rmse(truth, np.zeros_like(truth)) == pytest.approx(1000)
    assert metrics.sam(truth, truth) == 0


@pytest.mark.parametrize("metric", ALL)
def test_shapes_must_agree(metric: Metric, pair: tuple[Cube, Cube]) -> None:
    with pytest.raises(ValueError, match=r"\(31, 3, 4\) and \(31, 1, 4\), expected the same"):
        metric(pair[0], pair[1][:, :1])


@pytest.mark.parametrize("bands", [[], [0], [4, 5, 30]])
@pytest.mark.parametrize("rows", [0, 2])
def test_values_without_data_do_not_count(bands: list[int], rows: int) -> None:
    rng = np.random.default_rng(0)
    truth, estimate = rng.random((2, 31, 5, 4))
    truth[bands], truth[:, :rows] = np.nan, np.nan
    good = np.setdiff1d(range(31), bands)
    part = truth[good, rows:], estimate[good, rows:]
    known = ~np.isnan(truth)
    of_cube: list[Callable[..., float]] = [metrics.mrae, metrics.rmse, metrics.psnr, metrics.sam]
    for metric in of_cube:
        assert metric(truth, estimate, known=known) == pytest.approx(metric(*part))
    of_bands: list[Callable[..., Cube]] = [metrics.band_mrae, metrics.band_rmse]
    for band_metric in of_bands:
        values = band_metric(truth, estimate, known=known)
        np.testing.assert_allclose(values[good], band_metric(*part))
        assert np.isnan(values[bands]).all()


def test_nan_in_an_estimate_counts_where_the_truth_has_data() -> None:
    truth, estimate = np.random.default_rng(0).random((2, 31, 3, 4))
    truth[:, 0], estimate[5, 1, 1] = np.nan, np.nan
    assert math.isnan(metrics.mrae(truth, estimate, known=~np.isnan(truth)))
    assert math.isnan(metrics.mrae(truth, estimate, known=np.zeros(truth.shape, bool)))  # nothing counts
