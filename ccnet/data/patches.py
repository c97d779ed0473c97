"""Frames and cubes of scenes: whole for evaluation, in random patches for training.

Shape legend: B patches, 31 bands first, H×W pixels; reflectance in [0, 1], NaN without data; float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError

from .camera import Array, Camera, Imaging
from .datasets import Scene
from .masks import fill_for_camera
from .materials import Materials
from .measured import MeasuredCameras
from .variation import SpectralVariation


@dataclass(frozen=True, kw_only=True)
class SceneDataset:
    """Scenes with their frames: simulated by cameras, or the published ones where there are no cameras.

    Attributes:
        scenes: The scenes.
        cameras: Cameras that simulate the frames; scenes use them in turn, patches at random.
        imaging: Errors that a real camera adds to Eq. 2.
        brightness: Lowest and highest factor of the light on a training patch, drawn log-uniformly: frame and cube are
            scaled together. Whole scenes keep their light.
        measured: Measured cameras for a share of the training patches, at random; ``imaging`` is not for their frames.
        materials: Measured reflectances that replace materials in a share of the training patches.
        variation: Random changes of all spectra of a share of the training patches.
        source: Origin of the scenes, so that a resumed run can find the same ones.
        cache_bytes: Most bytes of cubes that stay in memory between reads; other cubes are read again.
    """

    scenes: tuple[Scene, ...]
    cameras: tuple[Camera, ...] = ()
    imaging: Imaging = Imaging()  # noqa: RUF009 - frozen
    brightness: tuple[float, float] = (1.0, 1.0)
    measured: MeasuredCameras | None = None
    materials: Materials | None = None
    variation: SpectralVariation | None = None
    source: str = ""
    cache_bytes: int = 8 << 30
    _cache: dict[int, tuple[Array, Array | None]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.scenes:
            raise CCNetError("data set has no scenes, expected at least one; name another")
        without = [scene.name for scene in self.scenes if scene.read_frame is None]
        if without and not self.cameras:
            raise CCNetError(f"scene {without[0]} has no frame of its own: give the --camera that simulates one")

        if (self.materials is not None or self.variation is not None) and not self.cameras:
            raise CCNetError(
                "surfaces in place of a scene's materials, and varied spectra, need a --camera: published frames show"
                " the scene"
            )
        low, high = self.brightness
        if not 0 < low <= high < np.inf:
            raise CCNetError(f"brightness is {self.brightness}, expected two factors, 0 < lowest ≤ highest")

    def __len__(self) -> int:
        return len(self.scenes)

    def pair(self, index: int) -> tuple[Array, Array]:
        """Return a whole scene: its frame (3, H, W), the same at each call, and its cube (31, H, W)."""
        cube, published = self._read(index)
        return self._frame(cube, published, index, np.random.default_rng(index)), cube

    def camera_of(self, index: int) -> Camera | None:
        """Return the camera that simulates the frame of a whole scene; None where the frame was published."""
        return self.cameras[index % len(self.cameras)] if self.cameras else None

    def crop(self, index: int, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Cut a random square with data out of a scene, and rotate and mirror it at random.

        Args:
            index: The scene.
            size: Side of the square, px.
            rng: Decides position, rotation, mirroring, spectra, materials, brightness, camera and noise.

        Returns:
            The frame (3, size, size) and the cube (31, size, size).

        Raises:
            CCNetError: The scene is smaller than the square.
        """
        cube, published = self._read(index)
        if size > min(cube.shape[1:]):
            raise CCNetError(f"patch is {size} px, {self.scenes[index].name} is {cube.shape[2]}×{cube.shape[1]} px")
        y, x = (int(rng.integers(side - size + 1)) for side in cube.shape[1:])
        if np.isnan(cube[:, y : y + size, x : x + size]).all():
            y, x = _square_with_data(np.asarray(~np.isnan(cube).all(axis=0)), size, rng)
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))

        def cut(image: Array) -> Array:
            square = np.rot90(image[:, y : y + size, x : x + size], turns, axes=(1, 2))
            return np.ascontiguousarray(square[:, :, ::-1] if mirror else square)

        patch, published_patch = cut(cube), None if published is None else cut(published)
        camera = int(rng.integers(max(len(self.cameras), 1)))
        if self.variation is not None and rng.random() < self.variation.share:
            patch = self.variation.vary(patch, rng)
        if self.materials is not None and rng.random() < self.materials.share:
            patch = self.materials.repaint(patch, rng)
        if self.brightness != (1.0, 1.0):
            factor = np.float32(np.exp(rng.uniform(*np.log(self.brightness))))
            patch = patch * factor
            published_patch = None if published_patch is None else np.minimum(published_patch * factor, np.float32(1))
        if self.measured is not None and rng.random() < self.measured.share:
            return self.measured.frame(fill_for_camera(patch), rng), patch
        return self._frame(patch, published_patch, camera, rng), patch

    def _frame(self, cube: Array, published: Array | None, camera: int, rng: np.random.Generator) -> Array:
        if self.cameras:
            chosen = self.cameras[camera % len(self.cameras)]
            return chosen.correct(self.imaging(chosen.frame(fill_for_camera(cube)), rng))
        assert published is not None  # noqa: S101 - __post_init__ checked it
        return published

    def _read(self, index: int) -> tuple[Array, Array | None]:
        if index in self._cache:
            return self._cache[index]
        scene = self.scenes[index]
        cube = scene.read_cube()
        published = scene.read_frame() if scene.read_frame and not self.cameras else None
        if published is not None and published.shape[1:] != cube.shape[1:]:
            raise CCNetError(f"{scene.name}: frame is {published.shape[1:]}, cube {cube.shape[1:]}: not of one scene")
        if sum(cached.nbytes for cached, _ in self._cache.values()) + cube.nbytes <= self.cache_bytes:
            self._cache[index] = cube, published
        return cube, published


def _square_with_data(known_HW: npt.NDArray[np.bool_], size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return the top left corner of a random square that holds a random pixel with data."""
    pixels = np.argwhere(known_HW)
    corner = pixels[rng.integers(len(pixels))] - rng.integers(size, size=2)
    y, x = np.clip(corner, 0, np.array(known_HW.shape) - size)
    return int(y), int(x)


@dataclass(frozen=True, kw_only=True)
class TrainingPatches:
    """Random patches for training.

    A patch depends on (seed, step, its place in the batch) alone. So a resumed run trains on the patches of an
    uninterrupted one, and several processes can share a batch without communication.

    Attributes:
        dataset: The scenes.
        patch: Side of a patch, px.
        batch: Patches in a batch.
        seed: Seed of all random choices.
    """

    dataset: SceneDataset
    patch: int
    batch: int
    seed: int

    def batch_at(self, step: int, share: slice = slice(None)) -> tuple[Array, Array]:
        """Return frames (B, 3, patch, patch) and cubes (B, 31, patch, patch) of a step, or of a share of its batch."""
        pairs = [self.dataset.crop(index, self.patch, rng) for index, rng in self._draw(step, share)]
        frames, cubes = zip(*pairs, strict=True)
        return np.stack(frames), np.stack(cubes)

    def scenes_at(self, step: int, share: slice = slice(None)) -> list[int]:
        """Return the numbers of the scenes that the patches of a step, or of a share of its batch, come from."""
        return [index for index, _ in self._draw(step, share)]

    def scene_names_at(self, step: int) -> list[str]:
        """Return the names of the scenes that a step's patches come from."""
        return [self.dataset.scenes[index].name for index in self.scenes_at(step)]

    def _draw(self, step: int, share: slice) -> list[tuple[int, np.random.Generator]]:
        generators = [np.random.default_rng((self.seed, step, place)) for place in range(self.batch)[share]]
        return [(int(rng.integers(len(self.dataset))), rng) for rng in generators]
