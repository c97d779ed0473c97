"""The paper's ablation tables (II to V) for any data and budget: every row trained alike, once a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from ccnet.data.patches import SceneDataset
from ccnet.model.ablations import TABLES
from ccnet.model.config import CCNetConfig

from .trainer import Event, Recipe, Score, Trainer

if TYPE_CHECKING:
    from rich.table import Table

TITLES: Mapping[str, str] = {
    "II": "inter-spectral relationship",
    "III": "global continuity",
    "IV": "fusion",
    "V": "patch size r",
}
"""What each of the paper's tables varies."""

METRICS = ("mrae", "rmse", "psnr", "sam")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network, trained with one seed; rows of several tables that mean the same network share it."""

    config: CCNetConfig
    seed: int

    @property
    def name(self) -> str:
        """A folder's name: what differs from the paper's network, and the seed."""
        ours = CCNetConfig().to_dict()
        changed = [f"{field}-{value}" for field, value in self.config.to_dict().items() if value != ours[field]]
        return "_".join([*(changed or ["ccnet"]), f"seed-{self.seed}"])


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table: the mean and spread over seeds of the scores after the last step.

    scores: one for each seed, so that rows can be compared seed by seed.
    """

    name: str
    parameters: int
    scores: tuple[Score, ...]

    def mean(self, metric: str) -> float:
        return float(mean(getattr(score, metric) for score in self.scores))

    def spread(self, metric: str) -> float:
        """Standard deviation over seeds; 0 of a single one."""
        return float(stdev(getattr(score, metric) for score in self.scores)) if len(self.scores) > 1 else 0.0


def row_configs(tables: Sequence[str], base: CCNetConfig) -> dict[str, dict[str, CCNetConfig]]:
    """Table → row → network; fields of ``base`` hold where the row does not set them."""
    return {table: {row: replace(base, **set_) for row, set_ in TABLES[table].items()} for table in tables}


def plan(tables: Sequence[str], base: CCNetConfig, seeds: Sequence[int]) -> list[Run]:
    """Every training that the tables need, each once, the seeds outermost: a first look is soon complete."""
    configs = [config for rows in row_configs(tables, base).values() for config in rows.values()]
    return [Run(config=config, seed=seed) for seed in seeds for config in dict.fromkeys(configs)]


class Ablation:
    """The trainings of a plan, each in a folder of its own: one that is done stays, one that is half done goes on."""

    def __init__(
        self,
        folder: Path,
        runs: Sequence[Run],
        recipe: Recipe,
        train: SceneDataset,
        val: SceneDataset,
        device: str = "cpu",
    ) -> None:
        self.folder, self.runs, self.device = folder, runs, device
        # One validation, of the last step: choosing the best of many would favour the rows that jump about
        self.recipe = replace(recipe, evaluate_every=recipe.steps)
        self.train, self.val = train, val
        self.scores: dict[Run, Score] = {}
        self.parameters: dict[CCNetConfig, int] = {}

    def run(self) -> Iterator[tuple[Run, Event | None]]:
        """Each step of each training as it is done; and an event of None after each."""
        for run in self.runs:
            recipe = replace(self.recipe, seed=run.seed)
            trainer = Trainer(self.folder / run.name, run.config, recipe, self.train, self.val, self.device)
            self.parameters[run.config] = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
            for event in trainer.run():
                yield run, event
            self.scores[run] = trainer.best
            yield run, None

    def rows(self, tables: Sequence[str], base: CCNetConfig) -> dict[str, list[Row]]:
        """Table → its rows, once everything has run."""
        return {
            table: [
                Row(
                    name=name,
                    parameters=self.parameters[config],
                    scores=tuple(score for run, score in self.scores.items() if run.config == config),
                )
                for name, config in rows.items()
            ]
            for table, rows in row_configs(tables, base).items()
        }


def report(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Plain values for JSON: table → row → parameters, and mean, spread and single seeds of each metric."""
    return {
        table: {
            row.name: {
                "parameters": row.parameters,
                **{
                    metric: {
                        "mean": row.mean(metric),
                        "spread": row.spread(metric),
                        "seeds": [getattr(score, metric) for score in row.scores],
                    }
                    for metric in METRICS
                },
            }
            for row in of_table
        }
        for table, of_table in rows.items()
    }


def markdown(rows: Mapping[str, Sequence[Row]]) -> str:
    """The tables as documents show them."""
    lines = []
    for table, of_table in rows.items():
        lines += [f"**Table {table}**, {TITLES[table]}", "", "| | parameters | MRAE | RMSE | PSNR / dB | SAM / ° |"]
        lines += ["| --- " * 6 + "|"]
        lines += [f"| {row.name} | {row.parameters:,} | " + " | ".join(cells(row)) + " |" for row in of_table]
        lines += [""]
    return "\n".join(lines)


def table(name: str, rows: Sequence[Row]) -> Table:
    """One of the tables for a terminal of 80 columns."""
    from rich.table import Table

    made = Table("", title=f"Table {name}: {TITLES[name]}", title_justify="left")
    for heading in ("parameters", "MRAE", "RMSE", "PSNR\n/ dB", "SAM\n/ °"):
        made.add_column(heading, justify="right")
    for row in rows:
        made.add_row(row.name, f"{row.parameters:,}", *(cell.replace(" ± ", "\n±") for cell in cells(row)))
    return made


def cells(row: Row) -> list[str]:
    """A row's figures, mean ± spread over seeds, where there are several."""
    digits = {"mrae": 4, "rmse": 4, "psnr": 2, "sam": 2}
    return [
        f"{row.mean(metric):.{digits[metric]}f}"
        + (f" ± {row.spread(metric):.{digits[metric]}f}" if len(row.scores) > 1 else "")
        for metric in METRICS
    ]
