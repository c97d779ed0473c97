"""Radiometry: from a sensor's raw samples to the linear frame that the graphs take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE, CCNetError, Manifest, decode_errors_as, response_table

from .cameras.matrices import Matrix, Response, require_camera
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

    The steps, in this order: demosaic, black level, full scale, transfer curve, lens shading, gains, clip, colour
    matrix, clip. No step depends on a frame's content. CCNetError for fields that do not fit.
    """

    bits: int | None = None
    """Bits of a sample: 8 in uint8; 10, 12 or 16 in the low bits of uint16. None: the full range of the frame's type,
    where float32 is [0, 1]."""
    bayer: str | None = None
    """Colours of the sensor's first 2×2 px, row by row, such as RGGB; None for frames that have three channels."""
    black: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Samples of R, G and B in the dark; more than 254 need ``bits``."""
    transfer: float | str = "linear"
    """``linear``, ``srgb``, or the exponent that makes the samples linear, such as 2.2."""
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors of R, G and B, for white balance and exposure."""
    shading: Path | None = None
    """A ``.npy`` of factors (h, w) or (h, w, 3) that make a white wall even; stretched to the frame's size."""
    matrix: Matrix | None = None
    """Rows of the colour matrix from the camera's white-balanced RGB to the weights' camera; None changes nothing."""
    camera: str | None = None
    """Name of the camera; a known camera's name stands for its matrix, see ``ccnet camera list``."""
    light: str | None = None
    """Name of the light that the matrix is for; a known camera has one for ``daylight`` and for ``tungsten``."""
    target: str | None = None
    """Name of the weights' camera that the matrix leads to; weights of another camera are refused."""
    response: Response | None = None
    """Response of the camera's white-balanced channels in the light of the matrix, before the matrix: 31 rows of R, G
    and B on 400, 410 … 700 nm, at least 0; each column sums to 1. None if it is unknown. It changes no frame."""

    def __post_init__(self) -> None:
        white = 2**self.bits - 1 if type(self.bits) is int and self.bits in BITS else 0  # 12.0 shifts nothing
        power = isinstance(self.transfer, int | float) and 0.1 <= self.transfer <= 10
        _require(self.bits is None or bool(white), "bits", self.bits, f"one of {', '.join(map(str, BITS))}")
        white = white or 255
        _require(self.bayer in (None, *BAYER), "bayer", self.bayer, f"one of {', '.join(BAYER)}, or none")
        _require(_three(self.black, lambda b: 0 <= b < white), "black", self.black, f"three in [0, {white})")
        _require(_three(self.gains, lambda g: 0 < g <= 100), "gains", self.gains, "three in (0, 100]")
        _require(power or self.transfer in ("linear", "srgb"), "transfer", self.transfer, "linear, srgb or 0.1 to 10")
        rows = self.matrix
        square = isinstance(rows, tuple) and len(rows) == 3 and all(_three(row, lambda m: abs(m) <= 50) for row in rows)
        _require(rows is None or square, "matrix", rows, "3 rows of 3 numbers, -50 to 50")
        for name in ("camera", "light", "target"):
            text = getattr(self, name)
            _require(text is None or (isinstance(text, str) and text.isprintable()), name, text, "text of one line")
        if self.response is not None:
            response_table(self.response)
        _ = self._factors  # a map that cannot be used is an error now

    @classmethod
    def read(cls, path: Path) -> Radiometry:
        """Read a JSON file with some of the fields; a relative ``shading`` starts at its folder. Errors name it."""
        with decode_errors_as(path, "JSON with fields of Radiometry"):
            raw = json.loads(path.read_bytes())
            known = {field.name for field in fields(cls)}
            if not isinstance(raw, dict) or not raw.keys() <= known:
                raise CCNetError(f"{path}: expected a JSON object with some of {', '.join(sorted(known))}")
            raw |= {name: _as_tuples(raw[name]) for name in ("black", "gains", "matrix", "response") if name in raw}
            if raw.get("shading") is not None:
                raw["shading"] = path.parent / raw["shading"]
            try:
                return cls(**raw)._with_known_matrix()
            except CCNetError as error:
                raise CCNetError(f"{path}: {error}") from error

    @classmethod
    def find(cls, text: str) -> Radiometry:
        """Return the radiometry of a JSON file, or of a known camera's name; a CCNetError says what is wrong."""
        path = Path(text)
        if path.suffix.lower() == ".json" or path.is_file():
            return cls.read(path)
        return cls(camera=text)._with_known_matrix()

    def check_target(self, manifest: Manifest) -> None:
        """Raise a CCNetError if the graphs cannot take the frames: uint8 graphs, or another camera's weights."""
        if manifest.input == "uint8":
            raise CCNetError(
                "these graphs take uint8 frames, --radiometry and raw files make float32: export with --input float32"
            )
        weights = manifest.camera and manifest.camera["name"]
        if self.target and weights and self.target != weights:
            raise CCNetError(
                f"the matrix leads to the camera {self.target}, the weights are for {weights}: make another with"
                " 'ccnet camera fit --weights'"
            )

    def __call__(self, raw: npt.NDArray[Any], out: Array | None = None) -> Array:
        """Convert a raw frame.

        Args:
            raw: (H, W, 3), or (H, W) of a Bayer sensor; uint8 for 8 bits, uint16 for more; of any frame's type if
                ``bits`` is None.
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
        """Return metadata for the cube's file: every field, and the SHA-256 of shading and response."""
        values = {f"radiometry {field.name}": str(getattr(self, field.name)) for field in fields(self)}
        if self._factors is not None:
            values["radiometry shading"] = _short_hash(self._factors)
        values["radiometry response"] = "none" if self.response is None else _short_hash(response_table(self.response))
        return values

    @property
    def frame_response(self) -> Array | None:
        """Response (31, 3) float32 of the frame's channels, mixed by the matrix; None if the camera's is unknown."""
        if self.response is None:
            return None
        response = np.array(self.response, np.float32)
        return response if self.matrix is None else response @ np.array(self.matrix, np.float32).T

    def _with_known_matrix(self) -> Radiometry:
        """Return this radiometry with matrix and response of its camera, if it names a known one and has no matrix."""
        if self.camera is None or self.matrix is not None:
            return self
        camera = require_camera(self.camera)
        chosen = camera.in_light(self.light)
        response = chosen.response if self.response is None else self.response
        named = replace(self, camera=camera.name, light=chosen.light, target=camera.target)
        return replace(named, matrix=chosen.matrix, response=response)

    def describe(self) -> str:
        """Return the camera and its matrix in a few words."""
        if self.matrix is None:
            return f"{self.camera or 'frame of an unknown camera'}, no colour matrix"
        light = f" in {self.light}" if self.light else ""
        return f"{self.camera or 'camera'}{light}, by its colour matrix"

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
        types = {None: list(FRAME_SCALE), 8: ["uint8"]}.get(self.bits, ["uint16"])
        fits = raw.ndim == 2 if self.bayer else raw.ndim == 3 and raw.shape[2] == 3
        if self.bayer and self.bits is None:
            types = ["uint8", "uint16"]
        if not fits or raw.dtype.name not in types or 0 in raw.shape:
            shape = "(H, W)" if self.bayer else "(H, W, 3)"
            raise CCNetError(f"raw frame is {raw.dtype} {raw.shape}, expected {', '.join(types)} {shape}")
        if max(self.black) >= self._full_scale(raw):
            raise CCNetError(f"black is {self.black}, expected less than the full {raw.dtype} frame: set bits")
        if self.bits in (10, 12) and raw.max() >= 1 << self.bits:
            raise CCNetError(
                f"raw frame reaches {raw.max()}, expected {self.bits} bits, {(1 << self.bits) - 1} at most"
            )

    def _full_scale(self, raw: npt.NDArray[Any]) -> float:
        return FRAME_SCALE[raw.dtype.name] if self.bits is None else 2**self.bits - 1

    def _demosaic(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if min(raw.shape) < 2:
            raise CCNetError(f"raw frame is {raw.shape}, expected at least 2×2 px of a Bayer sensor")
        cv2 = optional_module("cv2")
        code = getattr(cv2, f"COLOR_Bayer{self.bayer}2RGB")
        return np.asarray(cv2.demosaicing(np.ascontiguousarray(raw), code))

    def _convert_rows(self, pixels: npt.NDArray[Any], out: Array, top: int, height: int) -> None:
        black = np.array(self.black, np.float32)
        np.subtract(pixels, black, out=out, dtype=np.float32)
        out /= np.float32(self._full_scale(pixels)) - black
        np.clip(out, 0, 1, out=out)
        if self.transfer == "srgb":
            out[...] = linear(out)
        elif self.transfer != "linear":
            np.power(out, np.float32(self.transfer), out=out)
        if self._factors is not None:
            out *= _stretch(self._factors, top, out.shape, height)
        out *= np.array(self.gains, np.float32)
        np.clip(out, 0, 1, out=out)  # a sensor's highlights are clipped in its own channels, so that they stay white
        if self.matrix is not None:
            np.clip(out @ np.array(self.matrix, np.float32).T, 0, 1, out=out)


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


def _as_tuples(values: Any) -> Any:
    """Return lists of JSON, and lists in them, as tuples."""
    return tuple(_as_tuples(value) for value in values) if isinstance(values, list) else values


def _short_hash(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def _three(values: Any, fits: Callable[[float], bool]) -> bool:
    return (
        isinstance(values, tuple) and len(values) == 3 and all(isinstance(v, int | float) and fits(v) for v in values)
    )


def _require(fits: bool, name: str, value: Any, expected: str) -> None:
    if not fits:
        raise CCNetError(f"radiometry's {name} is {value!r}, expected {expected}")
