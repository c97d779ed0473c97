"""Figures of frames, cubes, bands, spectra and errors, each written as one PNG.

Legend: a frame is (H, W, 3), a cube is (31, H, W) float, reflectance; a mark is a pixel (y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM
from ccnet.runtime.io.files import optional_module
from ccnet.runtime.io.frames import Frame

from .marks import choose_marks
from .render import Cube, Image, encode_srgb, render, thinning_step, to_8_bit
from .style import MARK_COLOURS, MARKERS, ORANGE, SKY, check_picture, new_figure, save_figure, style_axes

SHOWN_NM = (450, 520, 590, 660)
"""Wavelengths of the bands that ``picture`` shows in grey."""

_WIDTH = 12.6  # of a figure, inches

_LARGEST_RESIDUAL = 0.2  # relative residual at the end of the colour scale
_SATURATED = SKY  # pixels without a residual

_TILE = 96  # px a side of the enlarged tile in ``difference``


def picture(frame: Frame, cube: Cube, path: Path, *, marks: Sequence[tuple[int, int]] | None = None) -> None:
    """Draw the frame beside the cube in daylight, four bands in grey, and the spectra of marked pixels.

    All scales are fixed: reflectance 0 is black and 1 is white, in colour and in grey. Raises CCNetError where the
    picture cannot be written.

    Args:
        frame: (H, W, 3).
        cube: (31, H, W), reflectance.
        path: The .png to write.
        marks: Up to four pixels (y, x); None chooses four of different colours, always the same ones.

    Raises:
        ValueError: Frame and cube have different sizes.
    """
    check_picture(path)
    if cube.shape[1:] != frame.shape[:2]:
        raise ValueError(f"cube is {cube.shape}, expected it as high and wide as the frame, {frame.shape}")
    step = thinning_step(*frame.shape[:2])
    frame, cube = frame[::step, ::step], cube[:, ::step, ::step]
    places = choose_marks(frame) if marks is None else [(y // step, x // step) for y, x in marks]

    aspect = _aspect(frame)
    heights = [aspect * _WIDTH / 3 + 0.6, aspect * _WIDTH / len(SHOWN_NM) + 0.3]
    figure = new_figure(_WIDTH, sum(heights))
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    left, middle, right = above.subplots(1, 3)
    _show(left, "RGB frame", to_8_bit(frame))
    _show(middle, "Reconstructed cube in daylight (D65)", render(cube))
    _plot_marks(left, right, cube, places)
    for axes, nm in zip(below.subplots(1, len(SHOWN_NM)), SHOWN_NM, strict=True):
        _show(axes, f"{nm} nm", encode_srgb(cube[BANDS_NM.index(nm)]))
    save_figure(figure, path)


def heat_map(frame: Frame, residuals: npt.NDArray[np.floating], title: str, path: Path) -> None:
    """Draw the frame beside a map of relative residuals on a fixed scale.

    Raises CCNetError where the picture cannot be written.

    Args:
        frame: (H, W, 3).
        residuals: (H, W), relative; NaN where the frame is saturated, drawn in blue.
        title: Title of the map.
        path: The .png to write.

    Raises:
        ValueError: Frame and map have different sizes.
    """
    check_picture(path)
    if residuals.shape != frame.shape[:2]:
        raise ValueError(f"map is {residuals.shape}, expected it as high and wide as the frame, {frame.shape}")
    figure = new_figure(_WIDTH, _aspect(frame) * _WIDTH / 2 + 0.6)
    left, right = figure.subplots(1, 2)
    _show(left, "RGB frame", to_8_bit(frame))
    colours = optional_module("matplotlib").colormaps["magma"].with_extremes(bad=_SATURATED, over="white")
    image = right.imshow(100 * residuals, cmap=colours, vmin=0, vmax=100 * _LARGEST_RESIDUAL, interpolation="nearest")
    right.set_title(title)
    right.set_axis_off()
    figure.colorbar(image, ax=right, extend="max", label="|reprojected - frame| / (frame + 0.02), %")
    save_figure(figure, path)


def difference(
    frame: Frame,
    differences: npt.NDArray[np.floating],
    pixel: tuple[int, int],
    expected: npt.NDArray[np.floating],
    found: npt.NDArray[np.floating],
    title: str,
    path: Path,
) -> None:
    """Draw where a cube differs from its reference, the worst tile enlarged, and the spectra of the worst pixel.

    Raises CCNetError where the picture cannot be written.

    Args:
        frame: (H, W, 3).
        differences: (H, W), the largest |difference| over the bands.
        pixel: (y, x) of the largest difference.
        expected: Spectrum (31,) of the reference at that pixel.
        found: Spectrum (31,) of the compared cube at that pixel.
        title: Title of the map.
        path: The .png to write.
    """
    check_picture(path)
    figure = new_figure(_WIDTH, 6.6)
    (whole, pixels), (enlarged, spectra) = figure.subplots(2, 2)
    tile, corner = _tile_around(pixel, differences.shape)
    _show_differences(figure, whole, enlarged, differences, tile)
    box = optional_module("matplotlib.patches").Rectangle
    height, width = differences[tile].shape
    whole.add_patch(box(corner, width, height, fill=False, color=SKY, linewidth=1.5))
    whole.set_title(title)
    enlarged.set_title("Worst tile, enlarged")
    _show(pixels, "Worst tile of the frame", to_8_bit(frame[tile]))
    spectra.plot(BANDS_NM, expected, color="0.2", linewidth=3, label="reference")
    spectra.plot(BANDS_NM, found, color=ORANGE, linewidth=1.5, linestyle="--", label="compared")
    y, x = pixel
    spectra.set(title=f"Spectra at the worst pixel, x {x}, y {y}", xlabel="wavelength / nm", ylabel="reflectance")
    spectra.legend(frameon=False)
    style_axes(spectra)
    save_figure(figure, path)


def _aspect(frame: Frame) -> float:
    """Return height / width, kept within 0.5 to 1.5 so that no panel becomes too thin or too tall."""
    return float(min(max(frame.shape[0] / frame.shape[1], 0.5), 1.5))


def _tile_around(pixel: tuple[int, int], shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Return the tile of ``_TILE`` px that has the pixel near its centre, and its upper left corner (x, y)."""
    top, left = (max(0, min(at - _TILE // 2, size - _TILE)) for at, size in zip(pixel, shape, strict=True))
    return (slice(top, top + _TILE), slice(left, left + _TILE)), (left, top)


def _show_differences(figure: Any, whole: Any, enlarged: Any, differences: Cube, tile: tuple[slice, slice]) -> None:
    """Show all differences and those of one tile, on one scale from 0 to the largest."""
    height, width = differences.shape
    scale = {"cmap": "magma", "vmin": 0, "vmax": float(differences.max()) or 1.0, "interpolation": "nearest"}
    step = thinning_step(height, width)
    # The largest value of every block of pixels, so that no large difference is thinned away
    rows = np.maximum.reduceat(differences, np.arange(0, height, step))
    blocks = np.maximum.reduceat(rows, np.arange(0, width, step), 1)
    image = whole.imshow(blocks, extent=(-0.5, width - 0.5, height - 0.5, -0.5), **scale)
    enlarged.imshow(differences[tile], **scale)
    for axes in (whole, enlarged):
        axes.set_axis_off()
    figure.colorbar(image, ax=whole, label="largest |difference| of the bands")


def _show(axes: Any, title: str, image: Image) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title)
    axes.set_axis_off()


def _plot_marks(image_axes: Any, axes: Any, cube: Cube, marks: Sequence[tuple[int, int]]) -> None:
    """Plot the marks on the frame, and their spectra."""
    for (y, x), colour, marker in zip(marks, MARK_COLOURS, MARKERS, strict=False):
        style = {"color": colour, "marker": marker, "markeredgecolor": "white"}
        image_axes.plot(x, y, markersize=11, markeredgewidth=1.6, **style)
        axes.plot(BANDS_NM, cube[:, y, x], linewidth=2, markersize=7, markevery=5, clip_on=False, **style)
    spectra = np.array([cube[:, y, x] for y, x in marks])
    axes.set_ylim(min(0, spectra.min()), max(1.05 * spectra.max(), 0.1))
    axes.set_xlim(BANDS_NM[0], BANDS_NM[-1])
    axes.set(title="Spectra at the marks", xlabel="wavelength / nm", ylabel="reflectance")
    style_axes(axes)
