"""The predicted error of a cube: a half width for each pixel and band that covers the true error in 90 % of all cases.

It is computed from the frame and the cube alone, pixel by pixel: a linear model of the logarithm of the error over the
pixel's brightness, its colour, and how far the cube is from the spectra of a network that sees no neighbours
(docs/selfcheck.md). numpy only.

Legend: N pixels; a frame is (3, N), linear in [0, 1], of the weights' camera; spectra are (31, N), reflectance.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError, decode_errors_as, prefix_errors

from . import MRAE_OFFSET

Array = npt.NDArray[np.float32]
Values = npt.NDArray[np.floating]

LEVEL = 0.9
"""Share of the true errors that the half widths should cover."""

ERROR_SUFFIX = ".error.npz"
"""Suffix of the file of an ``ErrorModel``; ``error_file`` has the rest of its name."""

BAND_GROUPS = ((0, 6), (6, 12), (12, 18), (18, 24), (24, 31))
"""Bands whose mean disagreement is one feature: first, and last + 1."""

FEATURES = 4 + len(BAND_GROUPS)
"""Number of features of a pixel."""

_DARK = 0.005
"""Added to the brightness, so that the features of black pixels are finite."""

_AGREED = 1e-3
"""Added to the relative disagreement, whose logarithm is a feature."""

_MOST_SPREADS = 4.0
"""Features are clipped at so many standard deviations from their mean: the model is not extrapolated."""

_MOST_INFLATION = 100.0

_MOST_BYTES = 1 << 20
"""Largest file, and largest content of it, that is read."""

_BLOCK = 1 << 14
"""Most pixels at a time: 8 MB for each hidden layer of the pixel network."""


@dataclass(frozen=True, kw_only=True)
class ErrorModel:
    """The model of one network's errors. ``ccnet fit-error`` makes it; ``from_bytes`` reads its file.

    Attributes:
        pixel_layers: Matrices (outputs, inputs) of the pixel network, with ReLU between them and no biases: 3 → 31.
        mean: Mean of each feature, (9,).
        spread: Standard deviation of each feature, (9,).
        coefficients: (1 + 9, 31): features, after a constant 1, to the logarithm of the half width over the scale.
        weights_sha256: Hash of the weights whose errors these are.
        inflation: Factor for scenes that the weights were not trained on; the coefficients hold it already.
    """

    pixel_layers: tuple[Array, ...]
    mean: Array
    spread: Array
    coefficients: Array
    weights_sha256: str
    inflation: float = 1.0

    def __post_init__(self) -> None:
        """Check shapes and values; CCNetError where they are not those of a model."""
        bands = len(BANDS_NM)
        sizes = [3, *(len(layer) for layer in self.pixel_layers)]
        shapes = {
            "mean": (self.mean, (FEATURES,)),
            "spread": (self.spread, (FEATURES,)),
            "coefficients": (self.coefficients, (1 + FEATURES, bands)),
            **{
                f"layer {index}": (layer, (sizes[index + 1], sizes[index]))
                for index, layer in enumerate(self.pixel_layers)
            },
        }
        for name, (values, shape) in shapes.items():
            if values.shape != shape or values.dtype != np.float32:
                raise CCNetError(f"{name} is {values.dtype} {values.shape}, expected float32 {shape}: fit it again")
            if not np.isfinite(values).all():
                raise CCNetError(f"{name} holds NaN or infinity, expected finite numbers: fit it again")
        if sizes[-1] != bands or (self.spread <= 0).any():
            raise CCNetError(f"{sizes[-1]} bands or a spread of 0, expected {bands} bands: fit it again")
        if not 1 <= self.inflation <= _MOST_INFLATION:
            raise CCNetError(f"inflation is {self.inflation}, expected 1 to {_MOST_INFLATION:g}: fit it again")

    def half_width(self, frame: Array, spectra: Array) -> Array:
        """Return the half widths (31, N) of the 90 % intervals, reflectance.

        Args:
            frame: (3, N), linear in [0, 1].
            spectra: (31, N), the cube's.

        Returns:
            Half widths; the interval of a value is value ± half width.
        """
        found = np.empty(spectra.shape, np.float32)
        for start in range(0, frame.shape[1], _BLOCK):
            block = slice(start, start + _BLOCK)
            pixels = frame[:, block]
            values = features(pixels, spectra[:, block], self.pixel_spectra(pixels))
            logarithm = self.coefficients[1:].T @ standardise(values, self.mean, self.spread)
            logarithm += self.coefficients[0][:, None]
            np.multiply(np.exp(logarithm, out=logarithm), error_scale(pixels), out=found[:, block])
        return found

    def pixel_spectra(self, frame: Array) -> Array:
        """Return the spectra (31, N) that the pixel network gives for pixels (3, N)."""
        values = frame
        for layer in self.pixel_layers[:-1]:
            values = np.maximum(layer @ values, 0)
        return self.pixel_layers[-1] @ values

    def to_bytes(self) -> bytes:
        """Return the content of the model's file: .npz, the pixel network in float16."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ("mean", "spread", "coefficients")}
        arrays |= {f"layer{index}": layer.astype(np.float16) for index, layer in enumerate(self.pixel_layers)}
        file = io.BytesIO()
        digest = np.frombuffer(bytes.fromhex(self.weights_sha256), np.uint8)
        np.savez(file, weights=digest, inflation=np.float64(self.inflation), **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, name: Path, data: bytes) -> ErrorModel:
        """Parse and check the content of a model's file.

        Args:
            name: Path of the file, for error messages.
            data: Its content.

        Returns:
            The model.

        Raises:
            CCNetError: The content is not that of a model's file.
        """
        expected = "a predicted error (.npz) made by 'ccnet fit-error'"
        if len(data) > _MOST_BYTES:
            raise CCNetError(f"{name}: {len(data)} bytes, expected {expected} of at most {_MOST_BYTES}")
        with decode_errors_as(name, expected):
            size = sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(data)).infolist())
            if size > _MOST_BYTES:
                raise CCNetError(f"{name}: {size} bytes when unpacked, expected {expected} of at most {_MOST_BYTES}")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {key: np.asarray(file[key]) for key in file.files}
            digest, inflation = arrays.pop("weights").tobytes().hex(), float(arrays.pop("inflation"))
            vectors = {key: arrays.pop(key) for key in ("mean", "spread", "coefficients")}
            layers = [arrays.pop(f"layer{index}").astype(np.float32) for index in range(len(arrays))]
            with prefix_errors(name):
                return cls(pixel_layers=tuple(layers), weights_sha256=digest, inflation=inflation, **vectors)


def error_file(weights: Path) -> Path:
    """Return the file of the model that belongs to a file of weights: beside it, under the same stem."""
    return weights.with_name(f"{weights.stem}{ERROR_SUFFIX}")


def error_scale(frame: Array) -> Array:
    """Return the scale (N,) that errors are in proportion to: brightness of each pixel (3, N) + 0.02."""
    return np.asarray(frame.mean(axis=0) + np.float32(MRAE_OFFSET))


def features(frame: Array, spectra: Array, pixel_spectra: Array) -> Array:
    """Compute the features of pixels from which their errors are predicted.

    Args:
        frame: (3, N), linear in [0, 1].
        spectra: (31, N), the cube's.
        pixel_spectra: (31, N), of the pixel network.

    Returns:
        (9, N): the logarithm of the brightness, three shares of the colour, and the logarithms of the relative
        disagreement between both spectra in five groups of bands.
    """
    brightness = frame.mean(axis=0)
    found = np.empty((FEATURES, frame.shape[1]), np.float32)
    found[0] = np.log(brightness + np.float32(_DARK))
    found[1:4] = frame / (3 * brightness + np.float32(_DARK))
    disagreement = np.abs(spectra - pixel_spectra) / error_scale(frame)
    for index, (first, last) in enumerate(BAND_GROUPS, start=4):
        found[index] = np.log(disagreement[first:last].mean(axis=0) + np.float32(_AGREED))
    return found


def standardise(values: Values, mean: Values, spread: Values) -> Values:
    """Return features (9, N) in units of their standard deviation, clipped."""
    return np.clip((values - mean[:, None]) / spread[:, None], -_MOST_SPREADS, _MOST_SPREADS)


def relative_half_width(mean_half_width: Array, mean_spectrum: Array) -> Array:
    """Return the mean half width of each pixel over its bands, (N,), relative to the mean of its spectrum + 0.02."""
    return np.asarray(mean_half_width / (np.maximum(mean_spectrum, 0) + np.float32(MRAE_OFFSET)))
