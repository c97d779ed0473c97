"""Varied spectra in training: a patch keeps its shapes and shading, and its materials absorb elsewhere, more or less.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1], NaN without data; float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccnet.contract import BANDS_NM, CCNetError

from .camera import Array

SHIFT_NM = 20.0
"""Largest shift of a spectrum along the wavelengths, nm."""

STRETCH = 0.1
"""Largest relative change of the width of a spectrum's features, about the middle of the bands."""

CONCENTRATION = 1.5
"""Largest factor of the amount of a colourant, and 1 / the smallest."""


@dataclass(frozen=True, kw_only=True)
class SpectralVariation:
    """Random changes of all spectra of a patch at once, in a share of the patches.

    Attributes:
        share: Share of the patches, from 0 to 1.

    Raises:
        CCNetError: The share is out of its range.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise CCNetError(f"share of patches with varied spectra is {self.share}, expected 0 to 1")

    def vary(self, cube: Array, rng: np.random.Generator) -> Array:
        """Return a cube (31, H, W) of other materials: its spectra shifted, stretched, and paler or more saturated.

        A band that the shift moves in from outside 400 to 700 nm repeats the band at the end. Other amounts of a
        colourant follow Beer and Lambert: each pixel's spectrum, relative to its brightest band, is raised to a power.
        A pixel's brightest band keeps its value, unless the shift moves it out, so no reflectance passes 1.

        Args:
            cube: The cube, which stays as it is.
            rng: Decides everything.

        Returns:
            The varied cube, NaN where a band that it is interpolated from is NaN.
        """
        middle = (len(BANDS_NM) - 1) / 2
        shift = rng.uniform(-SHIFT_NM, SHIFT_NM) / (BANDS_NM[1] - BANDS_NM[0])
        stretch = 1 + rng.uniform(-STRETCH, STRETCH)
        sources = np.clip((np.arange(len(BANDS_NM)) - middle) * stretch + middle + shift, 0, 2 * middle)
        lower = np.minimum(sources.astype(int), len(BANDS_NM) - 2)
        share_of_upper = (sources - lower).astype(np.float32)[:, None, None]
        shifted = cube[lower] * (1 - share_of_upper) + cube[lower + 1] * share_of_upper
        power = np.float32(np.exp(rng.uniform(-1, 1) * np.log(CONCENTRATION)))
        brightest = np.maximum(np.fmax.reduce(shifted), np.finfo(np.float32).tiny)  # fmax: of the known bands
        return np.asarray(brightest * (np.maximum(shifted, 0) / brightest) ** power, np.float32)
