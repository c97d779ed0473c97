"""Radiometry: from a sensor's raw samples to the linear frame that the graphs take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, decode_errors_as

from .files import optional_module
from .formats.npy import map_npy
from .srgb import linear

Array = npt.NDArray[np.float32]

BITS = (8, 10, 12, 16)
BAYER = ("RGGB", "BGGR", "GRBG", "GBRG")

_ROWS = 256  # at a time, so that a large frame takes little memory beside itself


@dataclass(frozen=True, kw_only=True, eq=False)
class Radiometry:
    """A camera's fixed conversion from raw samples to linear [0, 1], the same for all frames of a stream.

    The steps, in this order: demosaic, black level, full scale, transfer curve, lens shading, gains, clip. No step
    depends on a frame's content. CCNetError for fields that do not fit.
    """

    bits: int = 8
    """Bits of a sample: 8 in uint8; 10, 12 or 16 in the low bits of uint16."""
    bayer: str | None = None
    """Colours of the sensor's first 2×2 px, row by row, such as RGGB; None for frames that have three channels."""
    black: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Samples of R, G and B in the dark."""
    transfer: float | str = "linear"
    """``linear``, ``srgb``, or the exponent that makes the samples linear, such as 2.2."""
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors of R, G and B, for white balance and exposure."""
    shading: Path | None = None
    """A ``.npy`` of factors (h, w) or (h, w, 3) that make a white wall even; stretched to the frame's size."""

    def __post_init__(self) -> None:
        white = 2**self.bits - 1 if type(self.bits) is int and self.bits in BITS else 0  # 12.0 shifts nothing
        power = isinstance(self.transfer, int | float) and 0.1 <= self.transfer <= 10
        _require(bool(white), "bits", self.bits, f"one of {', '.join(map(str, BITS))}")
        _require(self.bayer in (None, *BAYER), "bayer", self.bayer, f"one of {', '.join(BAYER)}, or none")
        _require(_three(self.black, lambda b: 0 <= b < white), "black", self.black, f"three in [0, {white})")
        _require(_three(self.gains, lambda g: 0 < g <= 100), "gains", self.gains, "three in (0, 100]")
        _require(power or self.transfer in ("linear", "srgb"), "transfer", self.transfer, "linear, srgb or 0.1 to 10")
        _ = self._factors  # a map that cannot be used is an error now

    @classmethod
    def read(cls, path: Path) -> Radiometry:
        """Read a JSON file with some of the fields; a relative ``shading`` starts at its folder. Errors name it."""
        with decode_errors_as(path, "JSON with fields of Radiometry"):
            raw = json.loads(path.read_bytes())
            known = {field.name for field in fields(cls)}
            if not isinstance(raw, dict) or not raw.keys() <= known:
                raise CCNetError(f"{path}: expected a JSON object with some of {', '.join(sorted(known))}")
            for name in ("black", "gains"):
                if isinstance(raw.get(name), list):
                    raw[name] = tuple(raw[name])
            if raw.get("shading") is not None:
                raw["shading"] = path.parent / raw["shading"]
            try:
                return cls(**raw)
            except CCNetError as error:
                raise CCNetError(f"{path}: {error}") from error

    def __call__(self, raw: npt.NDArray[Any], out: Array | None = None) -> Array:
        """Convert a raw frame.

        Args:
            raw: (H, W, 3), or (H, W) of a Bayer sensor; uint8 for 8 bits, otherwise uint16.
            out: (H, W, 3) float32 to fill and return; None allocates it.

        Returns:
            (H, W, 3) float32 in [0, 1], linear.

        Raises:
            CCNetError: ``raw`` or ``out`` has another shape or dtype, or samples exceed ``bits``.
        """
        self._check(raw)
        pixels = self._demosaic(raw) if self.bayer else raw
        frame = np.empty(pixels.shape, np.float32) if out is None else out
        if frame.shape != pixels.shape or frame.dtype != np.float32:
            raise CCNetError(f"out is {frame.dtype} {frame.shape}, expected float32 {pixels.shape}")
        for top in range(0, len(frame), _ROWS):
            self._convert_rows(pixels[top : top + _ROWS], frame[top : top + _ROWS], top, len(frame))
        return frame

    def metadata(self) -> dict[str, str]:
        """Return metadata for the cube's file: every field, and the shading's SHA-256."""
        values = {f"radiometry {field.name}": str(getattr(self, field.name)) for field in fields(self)}
        if self._factors is not None:
            values["radiometry shading"] = hashlib.sha256(self._factors.tobytes()).hexdigest()[:16]
        return values

    @cached_property
    def _factors(self) -> Array | None:
        """The shading's factors (h, w, 3), or None."""
        if self.shading is None:
            return None
        expected = "a .npy of positive factors (h, w) or (h, w, 3)"
        with decode_errors_as(self.shading, expected):
            factors = np.array(map_npy(self.shading), np.float32)
        if factors.ndim == 2:
            factors = np.repeat(factors[..., None], 3, axis=2)
        if factors.ndim != 3 or factors.shape[2] != 3 or not factors.size or not (factors > 0).all():
            raise CCNetError(f"{self.shading}: {factors.shape}, expected {expected}")
        if not np.isfinite(factors).all():
            raise CCNetError(f"{self.shading}: holds infinite values, expected {expected}")
        return factors

    def _check(self, raw: npt.NDArray[Any]) -> None:
        dtype = np.uint8 if self.bits == 8 else np.uint16
        fits = raw.ndim == 2 if self.bayer else raw.ndim == 3 and raw.shape[2] == 3
        if not fits or raw.dtype != dtype or 0 in raw.shape:
            shape = "(H, W)" if self.bayer else "(H, W, 3)"
            raise CCNetError(f"raw frame is {raw.dtype} {raw.shape}, expected {np.dtype(dtype)} {shape}")
        if self.bits in (10, 12) and raw.max() >= 1 << self.bits:
            raise CCNetError(
                f"raw frame reaches {raw.max()}, expected {self.bits} bits, {(1 << self.bits) - 1} at most"
            )

    def _demosaic(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if min(raw.shape) < 2:
            raise CCNetError(f"raw frame is {raw.shape}, expected at least 2×2 px of a Bayer sensor")
        cv2 = optional_module("cv2")
        code = getattr(cv2, f"COLOR_Bayer{self.bayer}2RGB")
        return np.asarray(cv2.demosaicing(np.ascontiguousarray(raw), code))

    def _convert_rows(self, pixels: npt.NDArray[Any], out: Array, top: int, height: int) -> None:
        black = np.array(self.black, np.float32)
        np.subtract(pixels, black, out=out, dtype=np.float32)
        out /= np.float32(2**self.bits - 1) - black
        np.clip(out, 0, 1, out=out)
        if self.transfer == "srgb":
            out[...] = linear(out)
        elif self.transfer != "linear":
            np.power(out, np.float32(self.transfer), out=out)
        if self._factors is not None:
            out *= _stretch(self._factors, top, out.shape, height)
        out *= np.array(self.gains, np.float32)
        np.clip(out, 0, 1, out=out)


def _stretch(factors: Array, top: int, shape: tuple[int, ...], height: int) -> Array:
    """Return rows ``top`` to ``top + h`` of a map, stretched bilinearly over a frame of ``height`` rows."""
    y = np.linspace(0, len(factors) - 1, height, dtype=np.float32)[top : top + shape[0]]
    x = np.linspace(0, factors.shape[1] - 1, shape[1], dtype=np.float32)
    rows = _interpolate(factors, y, axis=0)
    return _interpolate(rows, x, axis=1)


def _interpolate(values: Array, at: Array, axis: int) -> Array:
    low = np.floor(at).astype(np.intp)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    weight = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    return values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight


def _three(values: Any, fits: Callable[[float], bool]) -> bool:
    return (
        isinstance(values, tuple) and len(values) == 3 and all(isinstance(v, int | float) and fits(v) for v in values)
    )


def _require(fits: bool, name: str, value: Any, expected: str) -> None:
    if not fits:
        raise CCNetError(f"radiometry's {name} is {value!r}, expected {expected}")
