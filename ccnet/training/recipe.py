"""How a network is trained, without torch, for the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ccnet.contract import CCNetError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults but for batch, clip and what is saved are the paper's (section IV-B).

    steps: Adam updates. batch, patch: patches an update over all processes, and their side in px. lr, final_lr: ends of
    the cosine. warmup: steps of linear rise before it. clip: largest gradient norm. bf16: autocast convolutions to
    bfloat16 (the scan, the attention matrices and all norms stay float32). seed: of the weights and the patches.
    evaluate_every, save_every: steps between validations, and between saves of the run.
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

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise CCNetError(f"recipe {name} is {getattr(self, name)}, expected at least 1")
        if self.warmup < 0 or self.seed < 0 or not self.clip > 0 or not (self.lr >= 0 and self.final_lr >= 0):
            raise CCNetError(
                f"recipe has warmup {self.warmup}, seed {self.seed}, clip {self.clip}, lr {self.lr} to {self.final_lr};"
                " expected clip above 0, the others from 0"
            )

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then cosine from lr to final_lr."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        phase = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * phase))


PRESETS: Mapping[str, Recipe] = {
    "paper": Recipe(),
    "short": Recipe(batch=2, patch=96, lr=5e-4, warmup=100, evaluate_every=200, save_every=50),
}
"""``paper``: wants a GPU. ``short``: small batches, and as many steps as a time budget holds."""
