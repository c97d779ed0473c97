"""A cube in colour: from reflectance to sRGB under daylight, and thinned copies of large cubes.

Legend: a frame is (H, W, 3), a cube is (31, H, W) float, reflectance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, FRAME_SCALE
from ccnet.runtime.io.frames import Frame
from ccnet.runtime.io.srgb import encode

Cube = npt.NDArray[np.floating]
Image = npt.NDArray[np.uint8]

LONGEST_SIDE = 1024
"""Longest side of a shown picture in px; larger frames and cubes are thinned to every n-th pixel."""

_ROWS = 64  # of a cube that are rendered at a time

# fmt: off
_D65 = (
    82.75, 91.49, 93.43, 86.68, 104.87, 117.01, 117.81, 114.86, 115.92, 108.81, 109.35, 107.80, 104.79, 107.69, 104.41,
    104.05, 100.00, 96.33, 95.79, 88.69, 90.01, 89.60, 87.70, 83.29, 83.70, 80.03, 80.21, 82.28, 78.28, 69.72, 71.61,
)
# fmt: on
"""Relative power of CIE's standard illuminant D65 in the 31 bands. D65 is sRGB's white: no adaptation is needed."""

_LOBES = (
    ((1.056, 599.8, 37.9, 31.0), (0.362, 442.0, 16.0, 26.7), (-0.065, 501.1, 20.4, 26.2)),
    ((0.821, 568.8, 46.9, 40.5), (0.286, 530.9, 16.3, 31.1)),
    ((1.217, 437.0, 11.8, 36.0), (0.681, 459.0, 26.0, 13.8)),
)
"""CIE 1931 x̄, ȳ, z̄ as sums of lobes: height, peak (nm), width (nm) below and above the peak.

Wyman, Sloan and Shirley, "Simple Analytic Approximations to the CIE XYZ Color Matching Functions", JCGT 2(2), 2013.
"""

_XYZ_TO_SRGB = (
    (3.2406, -1.5372, -0.4986),
    (-0.9689, 1.8758, 0.0415),
    (0.0557, -0.2040, 1.0570),
)
"""CIE XYZ → linear sRGB, IEC 61966-2-1."""


def render(cube: Cube) -> Image:
    """Render a cube in colour under daylight (D65).

    Args:
        cube: (31, H, W) reflectance.

    Returns:
        (H, W, 3) uint8, sRGB. Reflectance 1 in all bands is white; brighter pixels are clipped.
    """
    matrix = reflectance_to_srgb()
    image = np.empty((*cube.shape[1:], 3), np.uint8)
    for top in range(0, image.shape[0], _ROWS):
        image[top : top + _ROWS] = encode_srgb(np.tensordot(cube[:, top : top + _ROWS], matrix, axes=(0, 1)))
    return image


def reflectance_to_srgb() -> npt.NDArray[np.float32]:
    """Return the (3, 31) float32 matrix from reflectance under D65 to linear sRGB."""
    nm = np.array(BANDS_NM, float)
    matching = np.array([sum(_lobe(nm, *lobe) for lobe in lobes) for lobes in _LOBES])
    matrix = np.array(_XYZ_TO_SRGB) @ (matching * np.array(_D65))
    # White stays exactly white although the spectrum ends at 400 and 700 nm and has samples every 10 nm
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), np.float32)


def _lobe(nm: npt.NDArray[Any], height: float, peak: float, below: float, above: float) -> npt.NDArray[Any]:
    width = np.where(nm < peak, below, above)
    return height * np.exp(-0.5 * ((nm - peak) / width) ** 2)


def encode_srgb(linear: npt.NDArray[Any]) -> Image:
    """Encode linear light, clipped to [0, 1], with sRGB's transfer function as uint8 of the same shape."""
    return np.asarray(np.rint(255 * encode(np.clip(linear, 0, 1))), np.uint8)


def to_8_bit(frame: Frame) -> Image:
    """Return a frame (H, W, 3) of any frame dtype as uint8 of full range."""
    scale = 255 / FRAME_SCALE[frame.dtype.name]
    return np.asarray(np.rint(frame * np.float32(scale)), np.uint8)


def thinning_step(height: int, width: int) -> int:
    """Return the least n for which every n-th pixel makes a picture of at most ``LONGEST_SIDE`` px a side."""
    return math.ceil(max(height, width) / LONGEST_SIDE)


class Thumbnail:
    """Every n-th pixel of a cube that arrives part by part; a ``CubeWriter`` for cubes larger than the memory.

    Attributes:
        cube: (bands, ceil(H / n), ceil(W / n)) float32; rows are zero until they are written.
    """

    def __init__(self, height: int, width: int, bands: int = len(BANDS_NM)) -> None:
        self._step = thinning_step(height, width)
        self.cube = np.zeros((bands, -(-height // self._step), -(-width // self._step)), np.float32)

    def write(self, top: int, part: npt.NDArray[np.float32], left: int = 0) -> None:
        """Keep every n-th pixel of a part (bands, h, w), from row ``top`` and column ``left`` of the cube on."""
        y, x = (-(-start // self._step) for start in (top, left))
        kept = part[:, y * self._step - top :: self._step, x * self._step - left :: self._step]
        self.cube[:, y : y + kept.shape[1], x : x + kept.shape[2]] = kept

    def thin(self, frame: Frame) -> Frame:
        """Return the frame's pixels at the places of the cube's pixels."""
        return frame[:: self._step, :: self._step]
