"""Recipes: the length, batches and learning rate of a training; without torch, for the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ccnet.contract import CCNetError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Recipe of a training; the defaults of the fields up to ``warmup`` but ``batch`` are the paper's (section IV-B).

    Attributes:
        steps: Adam updates.
        batch: Patches an update, over all processes.
        patch: Side of a patch, px.
        lr: Learning rate at the start of the cosine.
        final_lr: Learning rate at the end of the cosine.
        warmup: Steps before the cosine in which the learning rate rises linearly.
        clip: Largest norm of the gradient.
        bf16: Compute convolutions in bfloat16; the scan, the attention matrices and all norms stay float32.
        seed: Seed of the weights and the patches.
        evaluate_every: Steps between validations.
        save_every: Steps between saves of the run.
        rmse_weight: Weight of the root mean square error of each patch in the loss, for PSNR; 0 in the paper.
        average: Decay per step of the moving average of the weights, which is validated and kept in their place; 0
            is no average.

    Raises:
        CCNetError: A field is out of its range.
    """

    steps: int = 200_000
    batch: int = 20
    patch: int = 128
    lr: float = 4e-4
    final_lr: float = 1e-5
    warmup: int = 0
    clip: float = 1.0
    bf16: bool = False
    seed: int = 0
    evaluate_every: int = 1000
    save_every: int = 200
    rmse_weight: float = 0.0
    average: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise CCNetError(f"recipe {name} is {getattr(self, name)}, expected at least 1")
        if self.warmup < 0 or self.seed < 0 or not self.clip > 0 or not (self.lr >= 0 and self.final_lr >= 0):
            raise CCNetError(
                f"recipe has warmup {self.warmup}, seed {self.seed}, clip {self.clip}, lr {self.lr} to {self.final_lr};"
                " expected clip above 0, the others from 0"
            )

        if not (self.rmse_weight >= 0 and 0 <= self.average < 1):
            raise CCNetError(
                f"recipe has rmse_weight {self.rmse_weight} and average {self.average}, expected at least 0, and 0 to"
                " below 1"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; without what version 0.1.0 had not, where it is not used."""
        return {name: value for name, value in asdict(self).items() if name not in ("rmse_weight", "average") or value}

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine from ``lr`` to ``final_lr``."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        phase = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * phase))


PRESETS: Mapping[str, Recipe] = {
    "paper": Recipe(),
    "short": Recipe(batch=2, patch=96, lr=5e-4, warmup=100, evaluate_every=200, save_every=50),
}
"""``paper``: for a GPU. ``short``: small batches, for a time budget."""
