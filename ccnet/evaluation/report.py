"""What an evaluation looks like: tables, error maps (Fig. 5), spectra at marks (Fig. 6), errors over wavelength.

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
from ccnet.runtime.viz.render import encode_srgb
from ccnet.runtime.viz.style import LINE_COLOURS, MARKERS, new_figure, save_figure, style_axes

from .evaluate import CubeMetrics, SceneScore, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

ERROR_SCALE = 0.1
"""The error that is the last colour of a map, reflectance: one scale for all methods, scenes and runs."""

_LINES = ("-", "--", ":")  # one more for every round through the colours
_PANEL = 2.6  # inches
_COLUMNS = 6  # of panels
_BLOCK = 8  # side of the blocks among which marks are chosen, px
_LIT = 0.25  # a mark's least brightness, of its quadrant's brightest


def tables(scores: Mapping[str, Sequence[SceneScore]], per_scene: bool) -> list[Table]:
    """Means over whole scenes, and over their crops, with the spread; ``per_scene`` puts each scene's own first."""
    count = len(next(iter(scores.values())))
    made = []
    for index in range(count if per_scene else 0):
        one = {method: of_method[index] for method, of_method in scores.items()}
        name = next(iter(one.values())).scene
        made.append(_table(name, {m: (score.full, None, score.seconds) for m, score in one.items()}))
    for title, part in (("whole scenes", "full"), ("NTIRE's centre crop", "ntire")):
        rows: dict[str, tuple[CubeMetrics, CubeMetrics | None, float]] = {}
        for method, of_method in scores.items():
            summary = summarise([getattr(score, part) for score in of_method])
            rows[method] = summary.mean, summary.std, sum(score.seconds for score in of_method) / count
        made.append(_table(f"{title}, {count} of them: mean ± standard deviation", rows))
    return made


def _table(title: str, rows: Mapping[str, tuple[CubeMetrics, CubeMetrics | None, float]]) -> Table:
    """Method → figures, their spread under them, and seconds a scene; – is not defined, for zeros in the truth."""
    from rich.table import Table

    columns = {
        "MRAE\n+0.02": ("mrae", 4), "MRAE\nNTIRE": ("mrae_ntire", 4), "RMSE": ("rmse", 4), "PSNR\n/ dB": ("psnr", 2),
        "SAM\n/ °": ("sam", 2),
    }  # fmt: skip
    table = Table("method", title=title, title_justify="left")
    for heading in (*columns, "time\n/ s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for method, (mean, std, seconds) in rows.items():
        cells = [_cell(getattr(mean, name), getattr(std, name, math.nan), digits) for name, digits in columns.values()]
        table.add_row(method, *cells, f"{seconds:.2f}")
    return table


def _cell(mean: float, std: float, digits: int) -> str:
    if not math.isfinite(mean):
        return "–"
    return f"{mean:.{digits}f}" + (f"\n±{std:.{digits}f}" if math.isfinite(std) else "")


def draw_scene(path: Path, title: str, frame: Array, truth: Array, cubes: Mapping[str, Array]) -> None:
    """PNG of a scene: its frame, each method's mean |Y - Ŷ| over the bands, and spectra at four marks.

    frame (3, H, W) in [0, 1], truth and cubes (31, H, W).
    """
    marks = choose_marks(frame)
    columns = min(1 + len(cubes), _COLUMNS)
    rows = math.ceil((1 + len(cubes)) / columns)
    aspect = min(max(frame.shape[1] / frame.shape[2], 0.5), 1.5)
    heights = [rows * (aspect * _PANEL + 0.4), _PANEL + 0.5]
    figure = new_figure(max(columns, 4) * _PANEL, sum(heights))
    figure.suptitle(title)
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)
    panels = np.ravel(above.subplots(rows, columns, squeeze=False))
    for axes in panels:
        axes.set_axis_off()
    _show_frame(panels[0], frame, marks)
    for axes, (method, cube) in zip(panels[1:], cubes.items(), strict=False):
        error = np.abs(cube - truth).mean(axis=0)
        image = axes.imshow(error, cmap="turbo", vmin=0, vmax=ERROR_SCALE)
        axes.set_title(f"{method}: {error.mean():.4f}", fontsize=9)
    above.colorbar(image, ax=panels[1:], label="mean |error| / reflectance", extend="max")

    plots = np.ravel(below.subplots(1, 4, sharey=True))
    for axes, sign, (y, x) in zip(plots, MARKERS, marks, strict=False):
        axes.plot(BANDS_NM, truth[:, y, x], color="black", linewidth=2, label="truth")
        _lines(axes, {method: cube[:, y, x] for method, cube in cubes.items()})
        axes.plot(0.06, 0.94, sign, color="white", markeredgecolor="black", transform=axes.transAxes)
        axes.set_xlabel("wavelength / nm")
    plots[0].set_ylabel("reflectance")
    plots[0].legend(fontsize=7, frameon=False)
    save_figure(figure, path)


def draw_bands(path: Path, band_rmse: Mapping[str, Sequence[float]]) -> None:
    """PNG of every method's RMSE over wavelength; method → (31,)."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    _lines(axes, band_rmse)
    axes.set(title="RMSE of each band, mean over scenes", xlabel="wavelength / nm", ylabel="RMSE / reflectance")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    save_figure(figure, path)


def choose_marks(frame: Array) -> list[tuple[int, int]]:
    """Four pixels, one a quadrant: the centre of its evenest block that is lit. frame (3, H, W).

    The frame alone decides, never an error; a spectrum on an edge is of no material.
    """
    middle_y, middle_x = (-(-side // 2) for side in frame.shape[1:])
    marks = []
    for top, left in ((0, 0), (0, middle_x), (middle_y, 0), (middle_y, middle_x)):
        top, left = min(top, frame.shape[1] - 1), min(left, frame.shape[2] - 1)
        y, x = _evenest(frame[:, top : top + middle_y, left : left + middle_x])
        marks.append((top + y, left + x))
    return marks


def _evenest(part: Array) -> tuple[int, int]:
    side = min(_BLOCK, *part.shape[1:])
    rows, columns = (length // side for length in part.shape[1:])
    blocks = part[:, : rows * side, : columns * side].reshape(3, rows, side, columns, side)
    brightness = blocks.mean(axis=(0, 2, 4))
    spread = blocks.std(axis=(2, 4)).mean(axis=0) / np.maximum(brightness, 1e-6)
    spread[brightness < _LIT * brightness.max()] = np.inf
    row, column = divmod(int(spread.argmin()), columns)
    return row * side + side // 2, column * side + side // 2


def _show_frame(axes: Axes, frame: Array, marks: Sequence[tuple[int, int]]) -> None:
    axes.imshow(encode_srgb(frame.transpose(1, 2, 0)))
    axes.set_title("RGB frame", fontsize=9)
    for sign, (y, x) in zip(MARKERS, marks, strict=True):
        axes.plot(x, y, sign, color="white", markeredgecolor="black")


def _lines(axes: Axes, spectra: Mapping[str, Sequence[float] | Array]) -> None:
    for index, (method, values) in enumerate(spectra.items()):
        style = _LINES[index // len(LINE_COLOURS) % len(_LINES)]
        axes.plot(BANDS_NM, values, style, color=LINE_COLOURS[index % len(LINE_COLOURS)], label=method)
    axes.set_xlim(BANDS_NM[0], BANDS_NM[-1])
    style_axes(axes)
