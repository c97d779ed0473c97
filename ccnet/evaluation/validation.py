"""Validation during training: the metrics of a network on whole scenes."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Return the mean metrics over whole scenes, computed scene by scene in float32."""
    metrics = []
    for frame, cube in map(scenes.pair, range(len(scenes))):
        estimate, known = infer(model, frame), known_values(cube)
        metrics.append([metric(cube, estimate, known=known) for metric in (mrae, rmse, psnr, sam)])
    means = np.mean(metrics, axis=0).tolist()
    return ValidationScore(**dict(zip(("mrae", "rmse", "psnr", "sam"), means, strict=True)))
