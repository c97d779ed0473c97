"""Choose the largest magnitude that INT8 must represent, from a histogram of a tensor's magnitudes.

Symmetric quantisation has 127 steps up to a threshold and clips values beyond it. The peak (min-max) clips nothing and
has the coarsest steps; a percentile clips the rarest values; entropy chooses the threshold whose 127 steps keep most of
the distribution, by the Kullback-Leibler divergence (Migacz, "8-bit inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ccnet.calibration.graph_runner import Array

BINS = 2048

STEPS = 127
"""Steps from 0 to a threshold. A weight is never -128, so that its range is symmetric."""

PERCENTILE = 99.99

_THRESHOLD_STRIDE = 8
"""Bins between the thresholds that entropy tries."""


class Histogram:
    """Counts of magnitudes in BINS equal bins from 0; the bins double in width when a larger magnitude comes.

    Zeros are left out: zero is exact at every scale, and padding would make it the commonest value.

    Attributes:
        counts: Magnitudes in each bin, (BINS,) int64.
        peak: Largest magnitude.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.peak = 0.0
        self._width = 0.0

    def add(self, array: Array) -> None:
        """Count finite values of any shape."""
        magnitudes = np.abs(array[array != 0])
        if not magnitudes.size:
            return
        self.peak = max(self.peak, float(magnitudes.max()))
        self._width = self._width or self.peak / BINS
        while self.peak > self._width * BINS:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self._width *= 2
        self.counts += np.histogram(magnitudes, BINS, (0, self._width * BINS))[0]

    def min_max(self) -> float:
        """Return the largest magnitude."""
        return self.peak

    def percentile(self, percent: float = PERCENTILE) -> float:
        """Return the magnitude that ``percent`` of the magnitudes do not exceed, to the width of a bin."""
        total = np.cumsum(self.counts)
        bins = int(np.searchsorted(total, percent / 100 * total[-1])) + 1
        return float(min(bins * self._width, self.peak))

    def entropy(self) -> float:
        """Return the threshold whose quantised distribution diverges least from the distribution of the magnitudes."""
        used = np.flatnonzero(self.counts)
        used_bins = int(used[-1]) + 1 if used.size else 0
        candidates = [*range(STEPS + 1, used_bins, _THRESHOLD_STRIDE), used_bins]
        best = min(candidates, key=self._divergence)
        return float(min(best * self._width, self.peak))

    def _divergence(self, bins: int) -> float:
        """Return the divergence that clipping to ``bins`` bins and quantising them to STEPS + 1 levels brings."""
        kept = self.counts[:bins].astype(np.float64)
        if not kept.any():
            return float("inf")
        clipped = kept.copy()
        clipped[-1] += self.counts[bins:].sum()
        starts = np.arange(STEPS + 1) * bins // (STEPS + 1)
        filled = (kept > 0).astype(np.float64)
        means = np.add.reduceat(kept, starts) / np.maximum(np.add.reduceat(filled, starts), 1)
        quantised = np.repeat(means, np.diff(starts, append=bins)) * filled
        p, q = clipped / clipped.sum(), quantised / quantised.sum()
        occupied = p > 0
        return float(np.sum(p[occupied] * np.log(p[occupied] / np.maximum(q[occupied], 1e-12))))


OBSERVERS: Mapping[str, Callable[[Histogram], float]] = MappingProxyType(
    {"min-max": Histogram.min_max, "percentile": Histogram.percentile, "entropy": Histogram.entropy}
)
"""Name of an observer → the threshold that it chooses from a histogram."""
