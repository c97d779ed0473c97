"""Exposure and white balance that a user asks for, as gains on linear light before the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError

Array = npt.NDArray[np.float32]
Gains = tuple[float, float, float]

REFERENCE_SIDE = 9
"""Side of the square around ``--white X,Y`` whose mean is the white, px."""

AUTO_PERCENTILE, AUTO_LEVEL = 99.9, 0.65
"""``--exposure auto`` brings this percentile of the pixels' means to this level."""

MINKOWSKI_NORM = 12
"""Norm of "shades of grey" (Finlayson and Trezzi 2004), which ``--white auto`` takes the light's colour from."""

_CLIPPED, _DARK = 0.98, 0.01
_SAMPLES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class WhiteReference:
    """A white or grey surface in the frame.

    Attributes:
        x: Column of its middle, px.
        y: Row of its middle, px.
        reflectance: Its reflectance, which sets the exposure as well; None leaves the brightness of its green.
    """

    x: int
    y: int
    reflectance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """Exposure and white balance of frames; nothing by default.

    Attributes:
        exposure: Exposure compensation in EV, where 1 doubles the light; ``auto`` sets the brightness of each frame.
        white: Surface to be neutral; ``auto`` estimates the light's colour in each frame.
    """

    exposure: float | Literal["auto"] = 0.0
    white: WhiteReference | Literal["auto"] | None = None

    @classmethod
    def parse(cls, exposure: str | None, white: str | None) -> Adjustment:
        """Read the texts of ``--exposure`` and ``--white``; a CCNetError says what they should be."""
        adjustment = cls(exposure=_parse_exposure(exposure), white=_parse_white(white))
        reference = adjustment.white
        if adjustment.exposure == "auto" and isinstance(reference, WhiteReference) and reference.reflectance:
            raise CCNetError("--white with a reflectance sets the exposure: leave --exposure auto out")
        return adjustment

    @property
    def changes_nothing(self) -> bool:
        """True if all gains are 1."""
        return self.exposure == 0 and self.white is None

    def gains(self, linear: Array) -> Gains:
        """Return the factors of R, G and B for a frame.

        Args:
            linear: (H, W, 3), linear, in [0, 1], in the channels that the light's colour acts on.

        Returns:
            Three factors; G's is 1 unless the exposure changes.

        Raises:
            CCNetError: The reference is outside the frame, clipped or dark, or the frame is black.
        """
        gains = np.ones(3)
        if isinstance(self.white, WhiteReference):
            gains = _reference_gains(linear, self.white)
        elif self.white == "auto":
            gains = _shades_of_grey(linear)
        if self.exposure == "auto":
            level = float(np.percentile((_samples(linear) * gains).mean(1), AUTO_PERCENTILE))
            if level < 1e-6:
                raise CCNetError("--exposure auto has a black frame, expected some light: give it in EV")
            gains = gains * (AUTO_LEVEL / level)
        else:
            gains = gains * 2.0**self.exposure
        return (float(gains[0]), float(gains[1]), float(gains[2]))


def _parse_exposure(text: str | None) -> float | Literal["auto"]:
    if text in (None, "auto"):
        return "auto" if text else 0.0
    try:
        ev = float(text or "")
    except ValueError:
        ev = math.nan
    if not -10 <= ev <= 10:
        raise CCNetError(f"--exposure is {text!r}, expected EV from -10 to 10, or auto")
    return ev


def _parse_white(text: str | None) -> WhiteReference | Literal["auto"] | None:
    if text in (None, "auto"):
        return "auto" if text else None
    try:
        x, y, *rest = (text or "").split(",")
        reflectance = float(rest[0]) if rest else None
        reference = WhiteReference(x=int(x), y=int(y), reflectance=reflectance)
        if len(rest) > 1 or reference.x < 0 or reference.y < 0 or not (reflectance is None or 0.01 <= reflectance <= 1):
            raise ValueError
    except ValueError as error:
        expected = "X,Y in px, X,Y,REFLECTANCE (0.01 to 1) of the white surface there, or auto"
        raise CCNetError(f"--white is {text!r}, expected {expected}") from error
    return reference


def _reference_gains(linear: Array, white: WhiteReference) -> npt.NDArray[Any]:
    height, width = linear.shape[:2]
    if white.x >= width or white.y >= height:
        raise CCNetError(f"--white is {white.x},{white.y}, expected a pixel of the {width}×{height} px frame")
    half = REFERENCE_SIDE // 2
    square = linear[max(white.y - half, 0) : white.y + half + 1, max(white.x - half, 0) : white.x + half + 1]
    mean = square.reshape(-1, 3).mean(0, dtype=np.float64)
    if mean.max() > _CLIPPED or mean.min() < _DARK:
        shown = ", ".join(f"{value:.2f}" for value in mean)
        raise CCNetError(
            f"--white {white.x},{white.y} is ({shown}) in linear light, expected {_DARK} to {_CLIPPED} in each channel:"
            " choose a surface that is neither clipped nor dark"
        )
    return (mean[1] if white.reflectance is None else white.reflectance) / mean


def _shades_of_grey(linear: Array) -> npt.NDArray[Any]:
    samples = _samples(linear)
    samples = samples[samples.max(1) < _CLIPPED]
    light = (samples**MINKOWSKI_NORM).mean(0) ** (1 / MINKOWSKI_NORM) if len(samples) else np.zeros(3)
    if light.min() < 1e-4:
        raise CCNetError("--white auto finds too little light in the frame: name a white surface by X,Y")
    return light[1] / light


def _samples(linear: Array) -> npt.NDArray[np.float64]:
    """Return evenly spaced pixels (N, 3) of a frame, at most some 260,000."""
    step = max(1, math.isqrt(linear.shape[0] * linear.shape[1] // _SAMPLES))
    return linear[::step, ::step].reshape(-1, 3).astype(np.float64)
