"""The ablation study's curves: validation scores over steps, a line for each row of a table, as one PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccnet.runtime.viz.style import LINE_COLOURS, MARKERS, new_figure, save_figure, style_axes

from .ablation_tables import TITLES, TableRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_METRICS = {"psnr": "PSNR / dB", "mrae": "MRAE"}
"""Metric → label of its axis."""

_BAND_OPACITY = 0.2


def draw_curves(path: Path, tables: Mapping[str, Sequence[TableRow]]) -> None:
    """Draw PSNR and MRAE on the validation scenes over the steps of the training.

    A line is the mean over the seeds, and the band around it the standard deviation.

    Args:
        path: The .png to write.
        tables: Table → its rows, which become its lines.
    """
    figure = new_figure(11, 4 * len(tables))
    panels = figure.subplots(len(tables), len(_METRICS), squeeze=False)
    for (table, rows), table_panels in zip(tables.items(), panels, strict=True):
        for axes, (metric, label) in zip(table_panels, _METRICS.items(), strict=True):
            _plot_rows(axes, rows, metric)
            axes.set(title=f"Table {table}, {TITLES[table]}", xlabel="steps", ylabel=f"{label}, validation scenes")
            axes.legend(frameon=False)
            style_axes(axes)
    save_figure(figure, path)


def _plot_rows(axes: Axes, rows: Sequence[TableRow], metric: str) -> None:
    for index, row in enumerate(rows):
        colour, marker = LINE_COLOURS[index % len(LINE_COLOURS)], MARKERS[index % len(MARKERS)]
        points = [row.after(step) for step in row.steps]
        means = [point.mean(metric) for point in points]
        low = [mean - point.spread(metric) for mean, point in zip(means, points, strict=True)]
        high = [mean + point.spread(metric) for mean, point in zip(means, points, strict=True)]
        label = f"{row.name}, {len(row.curves)} seed" + "s" * (len(row.curves) > 1)
        axes.plot(row.steps, means, color=colour, marker=marker, markersize=5, linewidth=2, label=label)
        axes.fill_between(row.steps, low, high, color=colour, alpha=_BAND_OPACITY, linewidth=0)
