"""The picture of a plan: the frame with the part that each tile keeps, and one tile with its halo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccnet.runtime.io.files import optional_module
from ccnet.runtime.io.frames import Frame
from ccnet.runtime.tiles.planner import FramePlan

from .render import thinning_step, to_8_bit
from .style import ORANGE, SKY, check_picture, new_figure, save_figure

_WIDTH = 8.0  # of the figure, inches


def draw_plan(plan: FramePlan, frame: Frame, path: Path) -> None:
    """Draw the frame, the parts that its tiles keep, and what the tile in the middle reads.

    Raises CCNetError where the picture cannot be written.

    Args:
        plan: Tiles of the frame.
        frame: (H, W, 3).
        path: The .png to write.
    """
    check_picture(path)
    height, width = frame.shape[:2]
    aspect = min(max(height / width, 0.3), 1.5)
    figure = new_figure(_WIDTH, aspect * _WIDTH + 0.6)
    axes = figure.subplots()
    step = thinning_step(height, width)
    axes.imshow(to_8_bit(frame[::step, ::step]), extent=(0, width, height, 0), aspect="equal", alpha=0.6)
    for y in plan.rows:
        for x in plan.columns:
            axes.add_patch(_box(x.first, y.first, x.last, y.last, edgecolor=SKY, linewidth=1.5))
    y, x = plan.rows[len(plan.rows) // 2], plan.columns[len(plan.columns) // 2]
    reads = _box(
        x.start, y.start, x.stop, y.stop, edgecolor=ORANGE, linewidth=2, linestyle="--", label="one tile reads"
    )
    keeps = _box(x.first, y.first, x.last, y.last, facecolor=ORANGE, alpha=0.25, label="and keeps")
    axes.add_patch(keeps)
    axes.add_patch(reads)
    axes.set_xlim(0, max(width, plan.columns[-1].stop))
    axes.set_ylim(max(height, plan.rows[-1].stop), 0)
    axes.set(title=plan.describe(), xlabel="px")
    axes.title.set_fontsize(9)
    axes.legend(handles=[reads, keeps], loc="lower right", fontsize=8)
    save_figure(figure, path)


def _box(left: int, top: int, right: int, bottom: int, **style: Any) -> Any:
    """Return a rectangle of matplotlib, without a fill unless the style has a colour for it."""
    style.setdefault("facecolor", "none")
    return optional_module("matplotlib.patches").Rectangle((left, top), right - left, bottom - top, **style)
