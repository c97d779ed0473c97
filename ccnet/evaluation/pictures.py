"""Pictures of an evaluation: error maps (Fig. 5), spectra at marked pixels (Fig. 6), errors over wavelength.

Shape legend: 31 bands first, H×W pixels; reflectance. A mark is a pixel (y, x).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccnet.contract import BANDS_NM
from ccnet.data.camera import Array
from ccnet.data.masks import known_mean
from ccnet.runtime.viz.render import encode_srgb
from ccnet.runtime.viz.style import LINE_COLOURS, MARKERS, new_figure, save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

ERROR_SCALE = 0.1
"""Error at the end of the colour scale, reflectance: the same for all methods, scenes and runs."""

_LINE_STYLES = ("-", "--", ":")  # the next style for each round through the colours
_PANEL_INCHES = 2.6
_MAX_PANEL_COLUMNS = 6
_BLOCK_SIDE = 8  # px; each mark is the centre of a block
_MIN_BRIGHTNESS = 0.25  # of a mark's block, relative to the brightest block of its quadrant


def draw_scene(path: Path, title: str, frame: Array, truth: Array, cubes: Mapping[str, Array]) -> None:
    """Draw a scene as a PNG: the frame, each method's error map, and spectra at four marks.

    Args:
        path: File to write.
        title: Name of the scene.
        frame: (3, H, W), linear in [0, 1].
        truth: (31, H, W), NaN without data.
        cubes: Method → estimated cube (31, H, W).
    """
    marks = choose_quadrant_marks(frame)
    columns = min(1 + len(cubes), _MAX_PANEL_COLUMNS)
    rows = math.ceil((1 + len(cubes)) / columns)
    aspect = min(max(frame.shape[1] / frame.shape[2], 0.5), 1.5)
    heights = [rows * (aspect * _PANEL_INCHES + 0.4), _PANEL_INCHES + 0.5]
    figure = new_figure(max(columns, 4) * _PANEL_INCHES, sum(heights))
    figure.suptitle(title)
    (maps,), (spectra,) = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)
    panels = np.ravel(maps.subplots(rows, columns, squeeze=False))
    for axes in panels:
        axes.set_axis_off()
    _show_frame(panels[0], frame, marks)
    for axes, (method, cube) in zip(panels[1:], cubes.items(), strict=False):
        error = known_mean(np.abs(cube - truth), axis=0)
        image = axes.imshow(error, cmap="turbo", vmin=0, vmax=ERROR_SCALE)
        axes.set_title(f"{method}: {np.nanmean(error):.4f}", fontsize=9)
    maps.colorbar(image, ax=panels[1:], label="mean |error| / reflectance", extend="max")
    _plot_spectra(spectra, marks, truth, cubes)
    save_figure(figure, path)


def draw_bands(path: Path, band_rmse: Mapping[str, Sequence[float]]) -> None:
    """Draw the RMSE over wavelength of each method as a PNG; ``band_rmse`` is method → (31,)."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    _plot_lines(axes, band_rmse)
    axes.set(title="RMSE of each band, mean over scenes", xlabel="wavelength / nm", ylabel="RMSE / reflectance")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    save_figure(figure, path)


def choose_quadrant_marks(frame: Array) -> list[tuple[int, int]]:
    """Choose a pixel in each quadrant of a frame: the centre of its most uniform block that is not dark.

    The choice depends on the frame only, never on an error. A pixel on an edge would mix two materials.

    Args:
        frame: (3, H, W).

    Returns:
        Four pixels (y, x).
    """
    height, width = (-(-side // 2) for side in frame.shape[1:])
    marks = []
    for top, left in ((0, 0), (0, width), (height, 0), (height, width)):
        top, left = min(top, frame.shape[1] - 1), min(left, frame.shape[2] - 1)
        y, x = _most_uniform_pixel(frame[:, top : top + height, left : left + width])
        marks.append((top + y, left + x))
    return marks


def _most_uniform_pixel(quadrant: Array) -> tuple[int, int]:
    """Return the centre of the block with the least relative deviation of its pixels."""
    side = min(_BLOCK_SIDE, *quadrant.shape[1:])
    rows, columns = (length // side for length in quadrant.shape[1:])
    blocks = quadrant[:, : rows * side, : columns * side].reshape(3, rows, side, columns, side)
    brightness = blocks.mean(axis=(0, 2, 4))
    deviation = blocks.std(axis=(2, 4)).mean(axis=0) / np.maximum(brightness, 1e-6)
    deviation[brightness < _MIN_BRIGHTNESS * brightness.max()] = np.inf
    row, column = divmod(int(deviation.argmin()), columns)
    return row * side + side // 2, column * side + side // 2


def _show_frame(axes: Axes, frame: Array, marks: Sequence[tuple[int, int]]) -> None:
    axes.imshow(encode_srgb(frame.transpose(1, 2, 0)))
    axes.set_title("RGB frame", fontsize=9)
    for marker, (y, x) in zip(MARKERS, marks, strict=True):
        axes.plot(x, y, marker, color="white", markeredgecolor="black")


def _plot_spectra(
    figure: SubFigure, marks: Sequence[tuple[int, int]], truth: Array, cubes: Mapping[str, Array]
) -> None:
    """Plot the true and the estimated spectra at each mark, with the mark's symbol in the corner."""
    plots = np.ravel(figure.subplots(1, 4, sharey=True))
    for axes, marker, (y, x) in zip(plots, MARKERS, marks, strict=False):
        axes.plot(BANDS_NM, truth[:, y, x], color="black", linewidth=2, label="truth")
        _plot_lines(axes, {method: cube[:, y, x] for method, cube in cubes.items()})
        axes.plot(0.06, 0.94, marker, color="white", markeredgecolor="black", transform=axes.transAxes)
        axes.set_xlabel("wavelength / nm")
    plots[0].set_ylabel("reflectance")
    plots[0].legend(fontsize=7, frameon=False)


def _plot_lines(axes: Axes, spectra: Mapping[str, Sequence[float] | Array]) -> None:
    for index, (method, values) in enumerate(spectra.items()):
        style = _LINE_STYLES[index // len(LINE_COLOURS) % len(_LINE_STYLES)]
        axes.plot(BANDS_NM, values, style, color=LINE_COLOURS[index % len(LINE_COLOURS)], label=method)
    axes.set_xlim(BANDS_NM[0], BANDS_NM[-1])
    style_axes(axes)
