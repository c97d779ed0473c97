"""Measured reflectances in training: they replace the materials of random regions of a patch, under its own shading.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1], NaN without data; float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccnet.contract import BANDS_NM, CCNetError

from .camera import Array

CELLS = (3, 10)
"""Range of the number of regions that a patch is divided into; half of them, at random, are repainted."""


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Measured reflectances, and the share of the patches in which they replace materials.

    Attributes:
        surfaces: (N, 31) reflectances, at least 0; only their shapes count.
        share: Share of the patches, from 0 to 1.

    Raises:
        CCNetError: There is no surface, a surface is black or negative, or the share is out of its range.
    """

    surfaces: Array
    share: float

    def __post_init__(self) -> None:
        shape = self.surfaces.shape
        if len(shape) != 2 or not shape[0] or shape[1] != len(BANDS_NM):
            raise CCNetError(f"surfaces are {shape}, expected reflectances (N, {len(BANDS_NM)})")
        if self.surfaces.min() < 0 or not self.surfaces.max(1).all():
            raise CCNetError("surfaces hold negative or all-black reflectances, expected measured ones")
        if not 0 <= self.share <= 1:
            raise CCNetError(f"share of repainted patches is {self.share}, expected 0 to 1")

    def repaint(self, cube: Array, rng: np.random.Generator) -> Array:
        """Give random regions of a cube (31, H, W) other materials.

        Each region is the set of pixels nearest to a random point. Its new spectrum is the mixture of two random
        surfaces. A pixel keeps its mean over the bands, and with it shading and texture, unless a band would pass 1.

        Args:
            cube: The cube, which stays as it is.
            rng: Decides everything.

        Returns:
            The cube with other materials, NaN where ``cube`` has NaN.
        """
        count = int(rng.integers(*CELLS))
        points = rng.random((count, 2)) * cube.shape[1:]
        places = np.moveaxis(np.indices(cube.shape[1:]), 0, -1)
        cell = np.square(places[:, :, None] - points).sum(-1).argmin(-1)  # (H, W)
        shading = np.nan_to_num(cube).mean(0)
        painted = cube.copy()
        for number in np.flatnonzero(rng.random(count) < 0.5):
            inside = cell == number
            spectrum = rng.dirichlet((1, 1)) @ self.surfaces[rng.integers(len(self.surfaces), size=2)]
            spectrum = spectrum / spectrum.mean()
            level = shading[inside] / max(1.0, shading[inside].max(initial=0) * spectrum.max())
            painted[:, inside] = np.where(np.isnan(cube[:, inside]), np.nan, spectrum[:, None] * level)
        return painted
