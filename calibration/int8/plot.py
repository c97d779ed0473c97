"""Draw the error of INT8 over the share of work in INT8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ccnet.runtime.quality.tolerances import TOLERANCES
from ccnet.runtime.viz.style import LINE_COLOURS, MARKERS, check_picture, new_figure, save_figure, style_axes

from .search import Variant


def draw_trade_off(variants: Sequence[Variant], path: Path) -> None:
    """Draw a PNG: error over the share of work in INT8, one line for each observer, and the budget.

    Variants within the whole budget have filled marks. CCNetError if the file cannot be written.

    Args:
        variants: The variants of a search.
        path: The PNG to write.
    """
    check_picture(path)
    figure = new_figure(9.6, 4.0)
    budget = TOLERANCES["int8"]
    left, right = figure.subplots(1, 2)
    _draw(left, variants, "mrae", budget.mrae, "MRAE to FP32")
    _draw(right, variants, "psnr", budget.psnr, "PSNR to FP32 / dB")
    left.set_yscale("log")
    left.legend(frameon=False)
    save_figure(figure, path)


def _draw(axes: Any, variants: Sequence[Variant], figure: str, limit: float | None, label: str) -> None:
    observers = dict.fromkeys(variant.observer for variant in variants)
    for observer, colour, mark in zip(observers, LINE_COLOURS, MARKERS, strict=False):
        line = [variant for variant in variants if variant.observer == observer]
        shares, values = [100 * variant.share for variant in line], [getattr(v.parity, figure) for v in line]
        axes.plot(shares, values, color=colour, linewidth=1.5, label=observer)
        fills = ["white" if variant.broken else colour for variant in line]
        axes.scatter(shares, values, color=fills, edgecolors=colour, marker=mark, zorder=3)
    if limit is not None:
        axes.axhline(limit, color="0.3", linestyle="--", linewidth=1, label="budget")
    axes.set(xlabel="convolutions' multiply-adds in INT8 / %", ylabel=label, xlim=(0, 104))
    style_axes(axes)
