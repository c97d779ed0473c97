"""The paper's ablation study (Tables II to V) on any data: each network is trained with the same recipe and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ccnet.data.patches import SceneDataset
from ccnet.evaluation.validation import ValidationScore, validate
from ccnet.model.ablations import TABLES
from ccnet.model.config import CCNetConfig

from .ablation_tables import TableRow
from .recipe import Recipe
from .trainer import Trainer, TrainingEvent


@dataclass(frozen=True, kw_only=True)
class Training:
    """One network trained with one seed; rows of several tables that name the same network share it.

    Attributes:
        config: Network to train.
        seed: Seed of its weights and patches.
    """

    config: CCNetConfig
    seed: int

    @property
    def name(self) -> str:
        """Folder name: the fields that differ from the paper's network, and the seed."""
        paper = asdict(CCNetConfig())
        changed = [f"{field}-{value}" for field, value in asdict(self.config).items() if value != paper[field]]
        return "_".join([*(changed or ["ccnet"]), f"seed-{self.seed}"])


def row_configs(tables: Sequence[str], base: CCNetConfig) -> dict[str, dict[str, CCNetConfig]]:
    """Return table → row → network; ``base`` holds the fields that a row does not set."""
    return {table: {row: replace(base, **changes) for row, changes in TABLES[table].items()} for table in tables}


def plan_trainings(tables: Sequence[str], base: CCNetConfig, seeds: Sequence[int]) -> list[Training]:
    """List the trainings that the tables need, each once.

    Args:
        tables: Names of the paper's tables, of ``TABLES``.
        base: Network that the rows change.
        seeds: Seeds to train each network with.

    Returns:
        The trainings, all networks of a seed before the next seed, so that a first set of tables is complete early.
    """
    configs = [config for rows in row_configs(tables, base).values() for config in rows.values()]
    return [Training(config=config, seed=seed) for seed in seeds for config in dict.fromkeys(configs)]


class AblationStudy:
    """Trainings of a plan, each in its own folder; finished trainings are kept and interrupted ones resumed.

    Args:
        folder: Folder of the trainings' folders.
        trainings: Trainings to run, in order.
        recipe: Recipe of all trainings, but for the seed.
        train: Scenes to learn from.
        val: Scenes to validate on.
        device: Device to compute on.
        evaluate_every: Steps between validations, for curves; None validates after the last step only. The tables
            hold the score after the last step in any case.
    """

    def __init__(
        self,
        folder: Path,
        trainings: Sequence[Training],
        recipe: Recipe,
        train: SceneDataset,
        val: SceneDataset,
        device: str = "cpu",
        evaluate_every: int | None = None,
    ) -> None:
        self.folder, self.trainings, self.device = folder, trainings, device
        self.recipe = replace(recipe, evaluate_every=evaluate_every or recipe.steps)
        self.train, self.val = train, val
        self.scores: dict[Training, ValidationScore] = {}
        self.curves: dict[Training, dict[int, ValidationScore]] = {}
        self.parameters: dict[CCNetConfig, int] = {}

    def run(self) -> Iterator[tuple[Training, TrainingEvent | None]]:
        """Run all trainings.

        Yields:
            The training and its event after each step, and the training and None after its last step.
        """
        for training in self.trainings:
            recipe = replace(self.recipe, seed=training.seed)
            folder = self.folder / training.name
            trainer = Trainer(folder, training.config, recipe, self.train, self.val, self.device)
            self.parameters[training.config] = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
            for event in trainer.run():
                yield training, event
            # The last score, not the best of many, which would favour networks whose score varies more. Runs of
            # version 0.1.0 have no curve.
            self.scores[training] = trainer.curve.get(recipe.steps) or validate(trainer.model, self.val)
            self.curves[training] = trainer.curve
            yield training, None

    def rows(self, tables: Sequence[str], base: CCNetConfig) -> dict[str, list[TableRow]]:
        """Return table → its rows, after all trainings have run."""
        return {
            table: [
                TableRow(
                    name=name,
                    parameters=self.parameters[config],
                    scores=tuple(score for training, score in self.scores.items() if training.config == config),
                    curves=tuple(curve for training, curve in self.curves.items() if training.config == config),
                )
                for name, config in rows.items()
            ]
            for table, rows in row_configs(tables, base).items()
        }
