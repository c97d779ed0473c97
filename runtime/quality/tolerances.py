"""The distance between the cubes of two backends, and the project's one table of tolerances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ccnet.metrics import max_abs, mrae, psnr, sam

Cube = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The distance between a reference cube and another, in reflectance where no unit is named.

    Where either cube holds NaN or infinite values all figures are infinitely bad, so that they pass no tolerance.
    """

    mrae: float
    """Mean relative absolute error, |d| / (|reference| + 0.02)."""
    sam: float
    """Mean spectral angle, degrees."""
    psnr: float
    """Peak signal-to-noise ratio for a peak of 1, dB; inf where the cubes are equal."""
    max_abs: float
    mean_abs: float

    def __str__(self) -> str:
        return (
            f"MRAE {self.mrae:.2e}, SAM {self.sam:.2e}°, PSNR {self.psnr:.1f} dB,"
            f" max {self.max_abs:.2e}, mean {self.mean_abs:.2e}"
        )


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Inclusive limits for figures of a Parity: psnr is a minimum, the others are maxima; None is not checked."""

    reason: str
    max_abs: float | None = None
    mrae: float | None = None
    mean_abs: float | None = None
    psnr: float | None = None

    def passes(self, parity: Parity) -> bool:
        """Return whether the figures are within all limits."""
        return not self.broken_by(parity)

    def broken_by(self, parity: Parity) -> list[str]:
        """Return the limits that the figures break, such as ``max_abs 0.1 > 2e-05``."""
        figures = asdict(parity)
        upper = {"max_abs": self.max_abs, "mrae": self.mrae, "mean_abs": self.mean_abs}
        broken = [
            f"{name} {figures[name]:.3g} > {limit:g}"
            for name, limit in upper.items()
            if limit is not None and not figures[name] <= limit
        ]
        if self.psnr is not None and not parity.psnr >= self.psnr:
            broken.append(f"psnr {parity.psnr:.1f} dB < {self.psnr:g} dB")
        return broken


TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        "fp32": Tolerance(max_abs=2e-5, reason="the same sums in another order, through fifteen blocks"),
        "tiled": Tolerance(max_abs=1e-5, reason="with a shared context, tiles lack only the pixels beyond their halo"),
        "fp16": Tolerance(
            mrae=2e-3,
            mean_abs=3e-4,
            psnr=65,
            reason="11 bits of significand; the largest error is not checked, because one pixel's rounding decides it",
        ),
        "int8": Tolerance(
            mrae=1e-2,
            psnr=51,
            reason="a tenth of the shipped network's error (MRAE 0.10, 31 dB), so that the sum hardly grows",
        ),
        "scan": Tolerance(max_abs=1e-5, reason="one operator: the same recurrence, with contracted multiply-adds"),
    }
)
"""Comparison → tolerance. A context from a reduced frame is reported without a tolerance."""


def compare(reference: Cube, cube: Cube) -> Parity:
    """Return the distance of two cubes (31, H, W) of any float dtype; ValueError where the shapes differ."""
    if reference.shape == cube.shape and not (np.isfinite(reference).all() and np.isfinite(cube).all()):
        inf = float("inf")
        return Parity(mrae=inf, sam=inf, psnr=-inf, max_abs=inf, mean_abs=inf)
    return Parity(
        mrae=mrae(reference, cube),
        sam=sam(reference, cube),
        psnr=psnr(reference, cube),
        max_abs=max_abs(reference, cube),
        mean_abs=float(np.mean(_distance(reference, cube))),
    )


def worst(reference: Cube, cube: Cube) -> tuple[int, int, int]:
    """Return (band, y, x) of the largest difference, or of the first value that is not finite in either cube."""
    distance = _distance(reference, cube)
    place = np.unravel_index(np.argmax(np.where(np.isfinite(distance), distance, np.inf)), distance.shape)
    band, y, x = (int(index) for index in place)
    return band, y, x


def _distance(reference: Cube, cube: Cube) -> npt.NDArray[np.float64]:
    if reference.shape != cube.shape:
        raise ValueError(f"cubes have shapes {reference.shape} and {cube.shape}, expected the same")
    with np.errstate(invalid="ignore"):
        return np.abs(reference.astype(np.float64) - cube.astype(np.float64))
