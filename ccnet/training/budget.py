"""Time budgets: the number of training steps that fit into some minutes on this machine."""

from __future__ import annotations

import math
import time

import torch.distributed as dist

from ccnet.contract import CCNetError
from ccnet.data.patches import SceneDataset, TrainingPatches
from ccnet.evaluation.validation import infer
from ccnet.model import CCNet
from ccnet.model.config import CCNetConfig

from .recipe import Recipe
from .step import TrainingStep


def steps_within(
    minutes: float, config: CCNetConfig, recipe: Recipe, train: SceneDataset, val: SceneDataset, device: str
) -> int:
    """Measure three training steps and the validation of one scene, and plan the steps of a training.

    Args:
        minutes: Time for training and validations.
        config: Network to train.
        recipe: Recipe of the training; its ``steps`` are ignored.
        train: Scenes to learn from.
        val: Scenes to validate on.
        device: Device to compute on.

    Returns:
        Number of steps, at least 1, the same in all processes.

    Raises:
        CCNetError: The budget is not finite.
    """
    if not math.isfinite(minutes):
        raise CCNetError(f"minutes is {minutes}, expected a finite time budget")
    patches = TrainingPatches(dataset=train, patch=recipe.patch, batch=recipe.batch, seed=recipe.seed)
    training_step = TrainingStep(CCNet(config).to(device), recipe, patches, device)
    training_step(0)  # warm-up: allocations, compilation of kernels, reading of files
    start = time.perf_counter()
    for step in range(1, 4):
        training_step(step)
    trained = time.perf_counter()
    infer(training_step.model, val.pair(0)[0])
    validation_seconds = (time.perf_counter() - trained) * len(val)
    step_seconds = (trained - start) / 3 + validation_seconds / recipe.evaluate_every
    steps = [max(1, int(60 * minutes / step_seconds))]
    if dist.is_initialized():
        dist.broadcast_object_list(steps)  # each process measures another time; all must plan the same number
    return steps[0]
