"""The look of every figure: palette, axes, and the one writer of pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError, make_folder, write_atomic
from ccnet.runtime.io.files import optional_module

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
"""Okabe and Ito's palette, which colour-blind readers can tell apart too."""

LINE_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION)
"""Colours of lines and bars, in the order of their use."""

MARK_COLOURS = (ORANGE, SKY, GREEN, PINK)
"""Colours of marked pixels in a photograph."""

MARKERS = "osD^"
"""Matplotlib's markers of marked pixels and of lines."""

_DPI = 120


def check_picture(path: Path) -> None:
    """Check that a path can become a picture, before hours of work go into the picture's content.

    Args:
        path: The file to write later.

    Raises:
        CCNetError: The suffix is not .png, a directory has that name, or its folder cannot be made.
    """
    if path.suffix.lower() != ".png":
        raise CCNetError(f"{path}: unknown picture format {path.suffix!r}, expected .png")
    if path.is_dir():
        raise CCNetError(f"{path}: is a directory, expected a file name for the picture")
    make_folder(path.parent)


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of this size in inches; it does not use pyplot, which has global state."""
    figure = optional_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    optional_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a matplotlib figure as a PNG, complete or not at all; CCNetError where it cannot be written."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    write_atomic(path, file.getvalue())


def style_axes(axes: Any) -> None:
    """Give the axes of a diagram a light grid and no box."""
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
