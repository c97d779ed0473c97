"""Thresholds of known distributions, and histograms that do not depend on the order of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector

from ccnet.calibration.graph_runner import Array
from ccnet.calibration.int8.histogram import BINS, OBSERVERS, Histogram


def histogram(*arrays: Array) -> Histogram:
    found = Histogram()
    for array in arrays:
        found.add(array)
    return found


def normal(count: int = 100_000, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def test_min_max_is_the_largest_magnitude() -> None:
    assert histogram(normal(), np.float32([-7.5, 3])).min_max() == 7.5


def test_percentile_of_even_values_is_known() -> None:
    found = histogram(np.linspace(-1, 1, 200_001, dtype=np.float32))
    assert found.percentile(90) == pytest.approx(0.9, abs=2 / BINS)
    assert found.percentile(100) == 1


def test_percentile_and_entropy_clip_a_rare_outlier() -> None:
    found = histogram(normal(), np.float32([40]))
    assert found.min_max() == 40
    assert 3.5 < found.percentile() < 4.5
    assert 2 < found.entropy() < 8


def test_entropy_keeps_all_of_an_even_distribution() -> None:
    found = histogram(np.random.default_rng(0).uniform(-1, 1, 500_000).astype(np.float32))
    assert found.entropy() > 0.95


def test_entropy_is_near_the_threshold_of_onnxruntime() -> None:
    values = np.random.default_rng(0).laplace(size=300_000).astype(np.float32)
    collector = HistogramCollector("entropy", True, 2 * BINS + 1, 128, 99.99, "same")
    counts, edges = np.histogram(values, 2 * BINS + 1, (-np.abs(values).max(), np.abs(values).max()))
    expected = collector.get_entropy_threshold((counts, edges, values.min(), values.max(), np.abs(values).max()), 128)
    assert histogram(values).entropy() == pytest.approx(float(np.abs(expected[1])), rel=0.35)


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=6), st.randoms())
def test_histogram_loses_nothing_in_any_order(scales: list[float], random: Any) -> None:
    """Bins widen, counts stay, and thresholds differ by no more than the wider bins."""
    arrays = [np.float32(factor) * normal(500, seed) for seed, factor in enumerate(scales)]
    found = histogram(*arrays)
    random.shuffle(arrays)
    again = histogram(*arrays)
    assert found.counts.sum() == again.counts.sum() == 500 * len(arrays)
    assert found.min_max() == again.min_max()
    assert abs(found.percentile(90) - again.percentile(90)) <= 4 * found.peak / BINS
    for choose in OBSERVERS.values():
        assert 0 < choose(found) <= found.peak


def test_zeros_are_not_counted() -> None:
    found = histogram(np.zeros(1000, np.float32))
    assert [choose(found) for choose in OBSERVERS.values()] == [0, 0, 0]
    assert histogram(np.zeros(10**6, np.float32), np.linspace(0, 1, 101, dtype=np.float32)).percentile(50) > 0.4
