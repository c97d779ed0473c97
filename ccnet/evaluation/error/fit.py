"""The fit of a predicted error: ridge regression of log errors, and a conformal quantile over scenes left out.

Legend: N pixels, F features; errors are (31, N), relative to each pixel's scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccnet.metrics.predicted_error import LEVEL, ErrorModel, features, standardise

from ..pixel_mlp import PixelMethod
from .samples import PixelNetworks, ScenePixels, pixel_layers

Matrix = npt.NDArray[np.float64]

RIDGE = 0.01
"""Weight of the squared coefficients, of standardised features, against the mean squared residual."""

_SMALLEST_ERROR = 1e-4
"""Added to the relative error, whose logarithm is fitted."""


@dataclass(frozen=True, kw_only=True)
class ErrorFit:
    """A fitted model, and what it predicts for each of its own scenes when that scene is left out of the fit.

    Attributes:
        model: The model of all scenes, its half widths enlarged for unknown scenes.
        left_out: The model without each scene, its half widths not enlarged: the network was trained on the scene.
    """

    model: ErrorModel
    left_out: tuple[ErrorModel, ...]


@dataclass(frozen=True)
class _Scene:
    """Sums of one scene for the regression, its design (1 + F, N), and the logarithms of its errors."""

    design: Matrix
    errors: Matrix
    gram: Matrix
    cross: Matrix


def fit_error(scenes: Sequence[ScenePixels], method: str, networks: PixelNetworks, weights_sha256: str) -> ErrorFit:
    """Fit the predicted error of a method.

    The quantile is taken of the errors over predictions of models that did not see the scene. The network did, so that
    the half widths are multiplied by ``networks.inflation``.

    Args:
        scenes: Pixels of at least two scenes.
        method: Name of the estimates.
        networks: The per-pixel network of all scenes.
        weights_sha256: Hash of the method's weights.

    Returns:
        The model.
    """
    layers = pixel_layers(networks.network)
    raw = [_features(networks.network, scene, method) for scene in scenes]
    joined = np.concatenate(raw, axis=1)
    mean, spread = joined.mean(axis=1), joined.std(axis=1) + 1e-3
    parts = [_sums(values, mean, spread, scene, method) for values, scene in zip(raw, scenes, strict=True)]
    without = [_solve([part for part in parts if part is not left]) for left in parts]
    scores = [part.errors - solved.T @ part.design for part, solved in zip(parts, without, strict=True)]

    def calibrated(solved: Matrix, used: Sequence[Matrix], inflation: float) -> ErrorModel:
        coefficients = solved.copy()
        coefficients[0] += conformal_quantile(np.concatenate(used, axis=1), LEVEL) + math.log(inflation)
        vectors = {"mean": mean, "spread": spread, "coefficients": coefficients}
        rounded = {name: values.astype(np.float32) for name, values in vectors.items()}
        return ErrorModel(pixel_layers=layers, weights_sha256=weights_sha256, inflation=inflation, **rounded)

    left_out = [
        calibrated(solved, [other for other in scores if other is not own], 1)
        for solved, own in zip(without, scores, strict=True)
    ]
    model = calibrated(_solve(parts), scores, networks.inflation)
    return ErrorFit(model=model, left_out=tuple(left_out))


def conformal_quantile(scores: Matrix, level: float) -> Matrix:
    """Return the smallest score of each row that covers a new, exchangeable score with probability ``level`` at least.

    Args:
        scores: (B, N).
        level: Probability.

    Returns:
        (B,), the ⌈(N + 1) · level⌉-th smallest; the largest where N is too small.
    """
    count = scores.shape[1]
    rank = min(math.ceil((count + 1) * level), count) - 1
    return np.partition(scores, rank, axis=1)[:, rank]


def _features(network: PixelMethod, scene: ScenePixels, method: str) -> Matrix:
    pixel_spectra = network(scene.frame[:, None])[:, 0]
    return features(scene.frame, scene.estimates[method], pixel_spectra).astype(np.float64)


def _sums(values: Matrix, mean: Matrix, spread: Matrix, scene: ScenePixels, method: str) -> _Scene:
    standard = standardise(values, mean, spread)
    design = np.concatenate([np.ones((1, standard.shape[1])), standard])
    errors = scene.relative_error(method).astype(np.float64)
    smooth = np.log(_band_means(errors) + _SMALLEST_ERROR)
    count = max(1, design.shape[1])
    return _Scene(design, np.log(errors + 1e-12), design @ design.T / count, design @ smooth.T / count)


def _band_means(errors: Matrix) -> Matrix:
    """Return means over each band and its neighbours: errors change their sign over the bands, and logs would jump."""
    padded = np.pad(errors, ((1, 1), (0, 0)), mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _solve(parts: Sequence[_Scene]) -> Matrix:
    """Return the coefficients (1 + F, 31) of some scenes; each scene counts alike, and the constant is free."""
    gram, cross = (np.mean([getattr(part, name) for part in parts], axis=0) for name in ("gram", "cross"))
    ridge = RIDGE * np.eye(len(gram))
    ridge[0, 0] = 0
    return np.asarray(np.linalg.solve(gram + ridge, cross))
