"""Colour scales of maps of numbers, each as a few colours between which the others lie."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

PALETTES: dict[str, tuple[str, ...]] = {
    "viridis": (
        "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
    ),
    "inferno": (
        "#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4",
    ),
    "grey": ("#000000", "#ffffff"),
    "blue-red": (
        "#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7", "#f4a582", "#d6604d", "#b2182b",
        "#67001f",
    ),
}  # fmt: skip
"""Name → colours from the least to the largest value. All can be told apart without seeing red and green."""

MISSING = 255
"""Index of pixels without a value, which are transparent."""


@functools.cache
def colour_table(name: str) -> bytes:
    """Return the colours of the indices 0 to 254 as bytes of red, green and blue; 255 is black."""
    colours = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in PALETTES[name]], float)
    at = np.linspace(0, len(colours) - 1, MISSING)
    channels = [np.interp(at, np.arange(len(colours)), channel) for channel in colours.T]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8).tobytes() + bytes(3)


def colour_indices(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Return values (H, W) as indices of colours (H, W): 0 for ``low``, 254 for ``high``, 255 for NaN and infinity."""
    finite = np.isfinite(values)
    scaled = np.where(finite, (values - low) / ((high - low) or 1), 0)
    indices = np.rint(np.clip(scaled, 0, 1) * (MISSING - 1)).astype(np.uint8)
    indices[~finite] = MISSING
    return indices
