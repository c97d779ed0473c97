"""The ablation study's tables: as JSON values, as Markdown and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from ccnet.evaluation.validation import ValidationScore

if TYPE_CHECKING:
    from rich.table import Table

TITLES: Mapping[str, str] = {
    "II": "inter-spectral relationship",
    "III": "global continuity",
    "IV": "fusion",
    "V": "patch size r",
}
"""Subject of each of the paper's tables."""

DIGITS: Mapping[str, int] = {"mrae": 4, "rmse": 4, "psnr": 2, "sam": 2}
"""Metric → digits after the point."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One network's row of a table.

    Attributes:
        name: Name of the row in the paper.
        parameters: Number of trainable parameters.
        scores: Scores after the last step, one for each seed, so that rows can be compared seed by seed.
        curves: Step → score after it, one for each seed.
    """

    name: str
    parameters: int
    scores: tuple[ValidationScore, ...]
    curves: tuple[Mapping[int, ValidationScore], ...] = ()

    @property
    def steps(self) -> list[int]:
        """Steps after which the network was validated with every seed, in order."""
        return sorted(set(self.curves[0]).intersection(*self.curves)) if self.curves else []

    def after(self, step: int) -> TableRow:
        """Return the row with the scores after one of ``steps``."""
        return replace(self, scores=tuple(curve[step] for curve in self.curves))

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the seeds."""
        return float(mean(getattr(score, metric) for score in self.scores))

    def spread(self, metric: str) -> float:
        """Return the standard deviation of a metric over the seeds; 0 for a single seed."""
        return float(stdev(getattr(score, metric) for score in self.scores)) if len(self.scores) > 1 else 0.0

    def cells(self) -> list[str]:
        """Return a cell for each metric: its mean, and ± its spread if there are several seeds."""
        return [
            f"{self.mean(metric):.{digits}f}" + (f" ± {self.spread(metric):.{digits}f}" if len(self.scores) > 1 else "")
            for metric, digits in DIGITS.items()
        ]


def json_tables(tables: Mapping[str, Sequence[TableRow]]) -> dict[str, Any]:
    """Return table → row → its parameters, its metrics after the last step, and its curve: step → metrics.

    A metric is its mean, its spread and its values for each seed.
    """
    return {
        table: {
            row.name: {
                "parameters": row.parameters,
                **_json_metrics(row),
                "curve": {str(step): _json_metrics(row.after(step)) for step in row.steps},
            }
            for row in rows
        }
        for table, rows in tables.items()
    }


def _json_metrics(row: TableRow) -> dict[str, Any]:
    return {
        metric: {
            "mean": row.mean(metric),
            "spread": row.spread(metric),
            "seeds": [getattr(score, metric) for score in row.scores],
        }
        for metric in DIGITS
    }


def markdown_tables(tables: Mapping[str, Sequence[TableRow]]) -> str:
    """Return all tables as Markdown."""
    lines = []
    for table, rows in tables.items():
        lines += [f"**Table {table}**, {TITLES[table]}", "", "| | parameters | MRAE | RMSE | PSNR / dB | SAM / ° |"]
        lines += ["| --- " * 6 + "|"]
        lines += [f"| {row.name} | {row.parameters:,} | " + " | ".join(row.cells()) + " |" for row in rows]
        lines += [""]
    return "\n".join(lines)


def terminal_table(name: str, rows: Sequence[TableRow]) -> Table:
    """Return one table for a terminal of 80 columns."""
    from rich.table import Table

    table = Table("", title=f"Table {name}: {TITLES[name]}", title_justify="left")
    for heading in ("parameters", "MRAE", "RMSE", "PSNR\n/ dB", "SAM\n/ °"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.parameters:,}", *(cell.replace(" ± ", "\n±") for cell in row.cells()))
    return table
