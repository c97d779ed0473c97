"""The frame that a camera makes of a cube (Eq. 2): spectral response, illuminant, and what a real camera adds.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Spectral response of a camera's three channels on the cube's bands.

    response: (31, 3), each column summing to 1, so that a flat spectrum v gives the pixel (v, v, v).
    """

    name: str
    response: Array

    @classmethod
    def read(cls, path: Path) -> Camera:
        """An NTIRE 2020 response file: ``.npz`` with ``filters`` (31, 3) on 400-700 nm in 10 nm steps."""
        if not path.is_file():
            raise CCNetError(f"{path}: no such file, expected a camera response (.npz with 'filters')")
        try:
            with np.load(path, allow_pickle=False) as file:
                filters = np.asarray(file["filters"], np.float64)
                bands = np.asarray(file["bands"]).ravel() if "bands" in file else np.array(BANDS_NM)
        except Exception as error:  # on damaged bytes numpy raises nearly every type there is
            raise CCNetError(f"{path}: not a camera response ({error}); expected .npz with 'filters'") from error
        if filters.shape != (len(BANDS_NM), 3) or not np.array_equal(bands, BANDS_NM):
            raise CCNetError(f"{path}: filters are {filters.shape}, expected (31, 3) on 400, 410, … 700 nm")
        if not np.isfinite(filters).all() or (filters < 0).any() or (filters.sum(0) <= 0).any():
            raise CCNetError(f"{path}: filters hold negative or non-finite values, or an all-zero channel")
        return cls(name=path.stem, response=(filters / filters.sum(0)).astype(np.float32))

    def frame(self, cube: Array) -> Array:
        """Eq. 2: I_c = Σ_λ S_c^λ H_λ, clipped to [0, 1]. cube (31, H, W) → frame (3, H, W)."""
        frame: Array = np.clip(np.einsum("bc,bhw->chw", self.response, cube), 0, 1, dtype=np.float32)
        return frame


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """What a real camera adds to Eq. 2; as it stands, nothing (the "clean" track)."""

    def __call__(self, frame: Array, rng: np.random.Generator) -> Array:
        """frame (3, H, W) in [0, 1] → the same shape and range."""
        return frame
