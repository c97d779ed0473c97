"""Training patches: random crops of cubes, and the frames that go with them.

Shape legend: B patches, 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccnet.camera import Array, Camera
from ccnet.contract import CCNetError


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Random training patches of a set of cubes, with the frames that a camera makes of them.

    A batch depends on (seed, step) alone, so a resumed run sees exactly what an uninterrupted one sees.
    """

    cubes: tuple[Array, ...]
    camera: Camera
    patch: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        smallest = min(min(cube.shape[1:]) for cube in self.cubes)
        if self.patch > smallest:
            raise CCNetError(f"patch is {self.patch} px, the smallest cube is {smallest} px: take a smaller patch")

    def at(self, step: int) -> tuple[Array, Array]:
        """frames (B, 3, patch, patch) and cubes (B, 31, patch, patch) of a step, rotated and mirrored at random."""
        rng = np.random.default_rng((self.seed, step))
        cubes = np.stack([self._crop(rng) for _ in range(self.batch)])
        return np.stack([self.camera.frame(cube) for cube in cubes]), cubes

    def _crop(self, rng: np.random.Generator) -> Array:
        cube = self.cubes[rng.integers(len(self.cubes))]
        y, x = (rng.integers(size - self.patch + 1) for size in cube.shape[1:])
        crop = np.rot90(cube[:, y : y + self.patch, x : x + self.patch], int(rng.integers(4)), axes=(1, 2))
        return np.ascontiguousarray(crop[:, :, ::-1] if rng.integers(2) else crop)
