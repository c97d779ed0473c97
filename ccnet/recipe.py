"""How a network is trained, without torch: the command line shows these defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults but for steps, batch and warm-up are the paper's (section IV-B).

    steps: Adam updates. batch, patch: patches an update, their side in px. lr, final_lr: ends of the cosine.
    warmup: steps of linear rise before it. clip: largest gradient norm. bf16: autocast convolutions to bfloat16
    (the scan, the attention matrices and all norms stay float32). evaluate_every: steps between validations,
    after each of which the run is saved.
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

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then cosine from lr to final_lr."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        phase = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * phase))
