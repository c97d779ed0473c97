"""Tables of an evaluation for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccnet.metrics import LIT

from .evaluate import CubeMetrics, SceneScore, condition_summaries, summarise

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS: Mapping[str, tuple[str, int]] = {
    "MRAE\n+0.02": ("mrae", 4),
    "MRAE\nNTIRE": ("mrae_ntire", 4),
    "RMSE": ("rmse", 4),
    "PSNR\n/ dB": ("psnr", 2),
    "SAM\n/ °": ("sam", 2),
}
"""Heading → field of ``CubeMetrics``, and digits after the point."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Metrics of a method, their spread if there are several scenes, and seconds a scene."""

    mean: CubeMetrics
    std: CubeMetrics | None
    seconds: float


def score_tables(scores: Mapping[str, Sequence[SceneScore]], per_scene: bool) -> list[Table]:
    """Lay out the scores of an evaluation for a terminal of 80 columns.

    Args:
        scores: Method → its scores, scene by scene.
        per_scene: Put a table for each scene before the means.

    Returns:
        Tables of mean and spread over whole scenes, and over their centre crops, and of means over lit pixels and at
        other brightness.
    """
    count = len(next(iter(scores.values())))
    tables = [_scene_table(scores, index) for index in range(count)] if per_scene else []
    for title, part in (("whole scenes", "full"), ("NTIRE's centre crop", "ntire")):
        rows = {}
        for method, method_scores in scores.items():
            summary = summarise([getattr(score, part) for score in method_scores])
            seconds = sum(score.seconds for score in method_scores) / count
            rows[method] = _Row(mean=summary.mean, std=summary.std, seconds=seconds)
        tables.append(_table(f"{title}, {count} of them: mean ± standard deviation", rows))
    return [*tables, _condition_table(scores)]


def _condition_table(scores: Mapping[str, Sequence[SceneScore]]) -> Table:
    """Lay out the means over lit pixels, at other brightness, and after the best factor for each scene."""
    from rich.table import Table

    table = Table("method", title=f"pixels above {LIT}, and whole scenes at other brightness", title_justify="left")
    factors = next(iter(scores.values()))[0].dimmed
    headings = ["lit\nMRAE", "lit\nPSNR", "lit\nSAM", *(f"PSNR\n× {factor:g}" for factor in factors), "PSNR\nscaled"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for method, method_scores in scores.items():
        means = {part: summary.mean for part, summary in condition_summaries(method_scores).items()}
        lit = means.get("lit")
        cells = [f"{lit.mrae:.4f}", f"{lit.psnr:.2f}", f"{lit.sam:.2f}"] if lit else 3 * ["–"]
        cells += [f"{means[f'dimmed {factor:g}'].psnr:.2f}" for factor in factors]
        scaled = summarise([score.full for score in method_scores]).mean.psnr_scaled
        table.add_row(method, *cells, f"{scaled:.2f}")
    return table


def _scene_table(scores: Mapping[str, Sequence[SceneScore]], index: int) -> Table:
    scene_scores = {method: method_scores[index] for method, method_scores in scores.items()}
    rows = {method: _Row(mean=score.full, std=None, seconds=score.seconds) for method, score in scene_scores.items()}
    return _table(next(iter(scene_scores.values())).scene, rows)


def _table(title: str, rows: Mapping[str, _Row]) -> Table:
    from rich.table import Table

    table = Table("method", title=title, title_justify="left")
    for heading in (*_COLUMNS, "time\n/ s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for method, row in rows.items():
        cells = [
            _cell(getattr(row.mean, name), getattr(row.std, name, math.nan), digits)
            for name, digits in _COLUMNS.values()
        ]
        table.add_row(method, *cells, f"{row.seconds:.2f}")
    return table


def _cell(mean: float, std: float, digits: int) -> str:
    """Return the mean with its spread below, or – where zeros in the truth leave the mean undefined."""
    if not math.isfinite(mean):
        return "–"
    return f"{mean:.{digits}f}" + (f"\n±{std:.{digits}f}" if math.isfinite(std) else "")
