"""Cubes on disk, and the frame that a camera makes of a cube (Eq. 2).

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


def cave_scenes(folder: Path) -> list[Path]:
    """The scene folders of a CAVE-format folder, sorted; a scene holds ``*_01.png`` … ``*_31.png``."""
    if not folder.is_dir():
        raise CCNetError(f"{folder}: no such folder, expected one with CAVE scenes (NAME_ms/NAME_ms_01.png …)")
    scenes = sorted({png.parent for png in folder.rglob("*_01.png")})
    if not scenes:
        raise CCNetError(f"{folder}: holds no CAVE scene (NAME_ms/NAME_ms_01.png … _31.png)")
    return scenes


def read_cave(scene: Path) -> Array:
    """One CAVE scene: 31 16-bit grey PNGs, band 01 = 400 nm → (31, H, W) in [0, 1].

    CCNetError for a missing band, a band that is not 16-bit grey (the original release's 8-bit RGBA
    ``watercolors``), or bands of different sizes.
    """
    bands = [_read_band(scene, band) for band in range(1, len(BANDS_NM) + 1)]
    shapes = {band.shape for band in bands}
    if len(shapes) > 1:
        raise CCNetError(f"{scene}: bands have different sizes {sorted(shapes)}")
    cube: Array = np.stack(bands).astype(np.float32) / np.float32(65535)
    return cube


def _read_band(scene: Path, band: int) -> npt.NDArray[np.uint16]:
    import cv2

    paths = sorted(scene.glob(f"*_{band:02d}.png"))
    if len(paths) != 1:
        raise CCNetError(f"{scene}: has {len(paths)} files for band {band:02d}, expected one *_{band:02d}.png")
    image = cv2.imdecode(np.fromfile(paths[0], np.uint8), cv2.IMREAD_UNCHANGED) if paths[0].stat().st_size else None
    if image is None:
        raise CCNetError(f"{paths[0]}: not a readable PNG")
    if image.dtype != np.uint16 or image.ndim != 2:
        raise CCNetError(f"{paths[0]}: {image.dtype} with shape {image.shape}, expected a 16-bit grey PNG")
    return image.astype(np.uint16)


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
