"""Scenes as cameras see them: whole for evaluation, in random patches for training.

Shape legend: B patches, 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ccnet.contract import CCNetError

from .camera import Array, Camera, Imaging
from .datasets import Scene


@dataclass(frozen=True, kw_only=True)
class SceneDataset:
    """Scenes, and the cameras that make frames of them; without cameras, the frames that were published.

    cameras: one for each patch or scene, in turn. imaging: what a real camera adds to Eq. 2.
    source: where the scenes are from, for a run that must find the same ones again.
    memory: bytes of cubes that are kept between reads; what does not fit is read again.
    """

    scenes: tuple[Scene, ...]
    cameras: tuple[Camera, ...] = ()
    imaging: Imaging = Imaging()  # noqa: RUF009 - frozen
    source: str = ""
    memory: int = 8 << 30
    _kept: dict[int, tuple[Array, Array | None]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.scenes:
            raise CCNetError("no scenes: name a data set that has some")
        without = [scene.name for scene in self.scenes if scene.read_frame is None]
        if without and not self.cameras:
            raise CCNetError(f"scene {without[0]} has no frame of its own: give the --camera that makes one")

    def __len__(self) -> int:
        return len(self.scenes)

    def pair(self, index: int) -> tuple[Array, Array]:
        """Whole scene: its frame (3, H, W), always the same one, and its cube (31, H, W)."""
        cube, published = self._read(index)
        return self._frame(cube, published, index, np.random.default_rng(index)), cube

    def camera_of(self, index: int) -> Camera | None:
        """The camera that makes the frame of a whole scene; None where the frame was published."""
        return self.cameras[index % len(self.cameras)] if self.cameras else None

    def crop(self, index: int, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """A random square of a scene, rotated and mirrored at random: frame (3, size, size), cube (31, size, size)."""
        cube, published = self._read(index)
        if size > min(cube.shape[1:]):
            raise CCNetError(f"patch is {size} px, {self.scenes[index].name} is {cube.shape[2]}×{cube.shape[1]} px")
        y, x = (rng.integers(side - size + 1) for side in cube.shape[1:])
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))

        def view(image: Array) -> Array:
            square = np.rot90(image[:, y : y + size, x : x + size], turns, axes=(1, 2))
            return np.ascontiguousarray(square[:, :, ::-1] if mirror else square)

        patch = view(cube)
        which = int(rng.integers(max(len(self.cameras), 1)))
        return self._frame(patch, None if published is None else view(published), which, rng), patch

    def _frame(self, cube: Array, published: Array | None, which: int, rng: np.random.Generator) -> Array:
        if self.cameras:
            return self.imaging(self.cameras[which % len(self.cameras)].frame(cube), rng)
        assert published is not None  # noqa: S101 - __post_init__ said so
        return published

    def _read(self, index: int) -> tuple[Array, Array | None]:
        if index in self._kept:
            return self._kept[index]
        scene = self.scenes[index]
        cube = scene.read_cube()
        published = scene.read_frame() if scene.read_frame and not self.cameras else None
        if published is not None and published.shape[1:] != cube.shape[1:]:
            raise CCNetError(f"{scene.name}: frame is {published.shape[1:]}, cube {cube.shape[1:]}: not of one scene")
        if sum(kept.nbytes for kept, _ in self._kept.values()) + cube.nbytes <= self.memory:
            self._kept[index] = cube, published
        return cube, published


@dataclass(frozen=True, kw_only=True)
class TrainingPatches:
    """Random training patches. One depends on (seed, step, its place in the batch) alone, so a resumed run sees what it
    would have seen, and several processes share a batch without a word.
    """

    views: SceneDataset
    patch: int
    batch: int
    seed: int

    def at(self, step: int, share: slice = slice(None)) -> tuple[Array, Array]:
        """frames (B, 3, patch, patch) and cubes (B, 31, patch, patch) of a step, or of a share of its batch."""
        pairs = [self.views.crop(index, self.patch, rng) for index, rng in self._draw(step, share)]
        frames, cubes = zip(*pairs, strict=True)
        return np.stack(frames), np.stack(cubes)

    def scenes_at(self, step: int) -> list[str]:
        """Names of the scenes that a step's patches are of."""
        return [self.views.scenes[index].name for index, _ in self._draw(step, slice(None))]

    def _draw(self, step: int, share: slice) -> list[tuple[int, np.random.Generator]]:
        generators = [np.random.default_rng((self.seed, step, place)) for place in range(self.batch)[share]]
        return [(int(rng.integers(len(self.views))), rng) for rng in generators]
