"""Mean metrics on whole scenes, of a network during training and of any method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from ccnet.contract.gaps import known_values
from ccnet.data.camera import Array
from ccnet.data.patches import SceneDataset
from ccnet.metrics import mrae, psnr, rmse, sam
from ccnet.model import CCNet


@dataclass(frozen=True, kw_only=True)
class ValidationScore:
    """Mean metrics over validation scenes.

    Attributes:
        mrae: Mean relative absolute error, |d| / (Y + 0.02).
        rmse: Root mean square error, reflectance.
        psnr: Peak signal-to-noise ratio, dB, for a peak of 1.
        sam: Spectral angle, degrees.
    """

    mrae: float
    rmse: float
    psnr: float
    sam: float


def infer(model: CCNet, frame: Array) -> Array:
    """Return the cube (31, H, W), float32, of a frame (3, H, W), computed on the model's device."""
    rgb = torch.from_numpy(frame)[None].to(next(model.parameters()).device)
    with torch.inference_mode():
        return np.asarray(model(rgb)[0].cpu().numpy())


def validate(model: CCNet, scenes: SceneDataset) -> ValidationScore:
    """Return a network's mean metrics over whole scenes, computed scene by scene in float32."""
    return score_method(partial(infer, model), scenes)


def score_method(method: Callable[[Array], Array], scenes: SceneDataset) -> ValidationScore:
    """Return the mean metrics over whole scenes of a method: frame (3, H, W) → cube (31, H, W)."""
    return mean_score([score_cube(cube, method(frame)) for frame, cube in map(scenes.pair, range(len(scenes)))])


def score_cube(truth: Array, cube: Array) -> ValidationScore:
    """Return the metrics of a cube (31, H, W) where the truth has data."""
    known = known_values(truth)
    values = {metric.__name__: metric(truth, cube, known=known) for metric in (mrae, rmse, psnr, sam)}
    return ValidationScore(**values)


def mean_score(scores: Sequence[ValidationScore]) -> ValidationScore:
    """Return the mean of each metric."""
    rows = [asdict(score) for score in scores]
    return ValidationScore(**{name: float(np.mean([row[name] for row in rows])) for name in rows[0]})
