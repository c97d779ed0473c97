"""Measured cameras in training: their frames behind colour matrices, with the errors of a user's photograph.

Shape legend: 31 bands first, H×W pixels; linear light in [0, 1]; float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ccnet.contract import CCNetError

from .camera import Array, Camera, Imaging

WHITE_ERROR = 0.02
"""Standard deviation of the logarithm of the gains of red and blue, relative to green's: an error of white balance."""

NOISE_SHARE, FULL_WELL, READ_NOISE = 0.5, (5_000.0, 100_000.0), 5.0
"""Share of the frames with noise, the range of the electrons of white, and the electrons of the dark signal."""

JPEG_SHARE, JPEG_QUALITY = 0.1, (85, 99)
"""Share of the frames that are stored as JPEG (8 bits of linear light), and the range of its quality."""


@dataclass(frozen=True, kw_only=True)
class MeasuredCameras:
    """Cameras that make the frames of a share of the training patches, instead of the weights' camera.

    Attributes:
        cameras: Cameras in their light, each with the colour matrix to the weights' camera.
        share: Share of the patches, from 0 to 1.

    Raises:
        CCNetError: There is no camera, or the share is out of its range.
    """

    cameras: tuple[Camera, ...]
    share: float

    def __post_init__(self) -> None:
        if not self.cameras:
            raise CCNetError("no measured camera is left to train on: hold out fewer brands")
        if not 0 <= self.share <= 1:
            raise CCNetError(f"share of measured cameras is {self.share}, expected 0 to 1")

    def frame(self, cube: Array, rng: np.random.Generator) -> Array:
        """Return the frame (3, H, W) that a random camera makes of a cube (31, H, W), behind its colour matrix.

        White balance is a little wrong in each frame; noise and JPEG come with some.
        """
        camera = self.cameras[rng.integers(len(self.cameras))]
        gains = np.exp(WHITE_ERROR * rng.standard_normal(3) * (1, 0, 1))
        wrong = replace(camera, response=(camera.response * gains).astype(np.float32))
        return camera.correct(_random_imaging(rng)(wrong.frame(cube), rng))


def _random_imaging(rng: np.random.Generator) -> Imaging:
    """Return the errors of one frame, each drawn by itself."""
    full_well = float(np.exp(rng.uniform(*np.log(FULL_WELL)))) if rng.random() < NOISE_SHARE else None
    jpeg = int(rng.integers(*JPEG_QUALITY)) if rng.random() < JPEG_SHARE else None
    return Imaging(
        full_well=full_well, read_noise=READ_NOISE if full_well else 0, eight_bit=jpeg is not None, jpeg=jpeg
    )
