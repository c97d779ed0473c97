"""The trade-off of INT8 as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ccnet.runtime.quality.tolerances import TOLERANCES
from ccnet.runtime.viz.style import LINE_COLOURS, MARKERS, check_picture, new_figure, save_figure, style_axes

from .search import Variant


def trade_off(variants: Sequence[Variant], path: Path) -> None:
    """Draw a PNG: error over the share of work in INT8, a line for each observer, and the budget.

    Variants within the whole budget have filled marks. CCNetError where it cannot be written.
    """
    check_picture(path)
    figure = new_figure(9.6, 4.0)
    budget = TOLERANCES["int8"]
    left, right = figure.subplots(1, 2)
    _plot(left, variants, "mrae", budget.mrae, "MRAE to FP32")
    _plot(right, variants, "psnr", budget.psnr, "PSNR to FP32 / dB")
    left.set_yscale("log")
    left.legend(frameon=False)
    save_figure(figure, path)


def _plot(axes: Any, variants: Sequence[Variant], figure: str, limit: float | None, label: str) -> None:
    observers = dict.fromkeys(one.observer for one in variants)
    for observer, colour, mark in zip(observers, LINE_COLOURS, MARKERS, strict=False):
        line = [one for one in variants if one.observer == observer]
        shares, values = [100 * one.share for one in line], [getattr(one.parity, figure) for one in line]
        axes.plot(shares, values, color=colour, linewidth=1.5, label=observer)
        fills = ["white" if one.broken else colour for one in line]
        axes.scatter(shares, values, color=fills, edgecolors=colour, marker=mark, zorder=3)
    if limit is not None:
        axes.axhline(limit, color="0.3", linestyle="--", linewidth=1, label="budget")
    axes.set(xlabel="convolutions' multiply-adds in INT8 / %", ylabel=label, xlim=(0, 104))
    style_axes(axes)
