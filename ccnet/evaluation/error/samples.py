"""Pixels of scenes with their true spectra and estimates, and the per-pixel networks that errors are predicted with.

Legend: N pixels; a frame is (3, N), spectra are (31, N).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from ccnet.contract import CCNetError
from ccnet.data.camera import Array
from ccnet.data.patches import SceneDataset
from ccnet.metrics.predicted_error import ErrorModel, error_scale
from ccnet.model import CCNet
from ccnet.model.base import PixelMLP

from ..methods import Method
from ..pixel_mlp import PixelMethod, fit_pixel_mlp
from ..validation import infer

STEP = 4
"""Every n-th pixel of every n-th row is used: neighbours have nearly the same error."""


@dataclass(frozen=True, kw_only=True)
class ScenePixels:
    """Every n-th pixel of a scene, without those that lack data in a band.

    Attributes:
        name: Name of the scene.
        frame: (3, N), linear in [0, 1].
        truth: (31, N).
        estimates: Method → spectra (31, N).
    """

    name: str
    frame: Array
    truth: Array
    estimates: Mapping[str, Array]

    def relative_error(self, method: str) -> Array:
        """Return the absolute errors (31, N) of a method over the scale of each pixel."""
        return np.abs(self.estimates[method] - self.truth) / error_scale(self.frame)


@dataclass(frozen=True, kw_only=True)
class PixelNetworks:
    """A per-pixel network fitted on all scenes, and its pixels with the errors of networks that never saw the scene.

    Attributes:
        network: The network of all scenes, rounded as it is stored.
        inflation: Quantile of the relative errors on scenes that a network never saw, over that on its own.
    """

    network: PixelMethod
    inflation: float

    @classmethod
    def of_model(cls, model: ErrorModel) -> PixelNetworks:
        """Return the networks that a model was fitted with; CCNetError if its network has another shape."""
        network = PixelMLP()
        for weight, layer in itertools.zip_longest(network.parameters(), model.pixel_layers):
            if weight is None or layer is None or weight.shape[:2] != layer.shape:
                raise CCNetError("its per-pixel network has another shape, expected that of this version: fit it again")
            weight.data = torch.from_numpy(layer)[:, :, None, None].clone()
        return cls(network=PixelMethod(network), inflation=model.inflation)


def sample(scenes: SceneDataset, methods: Mapping[str, Method], step: int = STEP) -> list[ScenePixels]:
    """Return pixels of all scenes with the estimates of methods, each of which sees the whole frame."""
    return [sample_scene(scenes, index, methods, step) for index in range(len(scenes))]


def sample_scene(scenes: SceneDataset, index: int, methods: Mapping[str, Method], step: int = STEP) -> ScenePixels:
    """Return pixels of one scene with the estimates of methods."""
    frame, cube = scenes.pair(index)
    truth = _thin(cube, step)
    known = np.isfinite(truth).all(axis=0)
    estimates = {name: _thin(method(frame), step)[:, known] for name, method in methods.items()}
    name = scenes.scenes[index].name
    return ScenePixels(name=name, frame=_thin(frame, step)[:, known], truth=truth[:, known], estimates=estimates)


def drop_empty(
    scenes: SceneDataset, pixels: Sequence[ScenePixels]
) -> tuple[SceneDataset, list[ScenePixels], list[str]]:
    """Leave out the scenes that have no pixel with data in all bands, such as those with a bad band.

    Args:
        scenes: The scenes.
        pixels: The pixels of each.

    Returns:
        The other scenes, their pixels, and the names of those left out.

    Raises:
        CCNetError: No scene has such a pixel.
    """
    full = [scene.frame.shape[1] > 0 for scene in pixels]
    if all(full):
        return scenes, list(pixels), []
    names = [scene.name for scene, kept in zip(pixels, full, strict=True) if not kept]
    if not any(full):
        raise CCNetError(f"{names[0]}: no pixel has data in all bands, nor in any other scene; repair their bad bands")
    others = tuple(itertools.compress(scenes.scenes, full))
    return replace(scenes, scenes=others, _cache={}), list(itertools.compress(pixels, full)), names


def network_methods(models: Mapping[str, CCNet]) -> dict[str, Method]:
    """Return name → method of networks."""
    return {name: partial(infer, model) for name, model in models.items()}


def fit_pixel_networks(
    scenes: SceneDataset, level: float, folds: int, progress: Callable[[str], None] = lambda stage: None
) -> PixelNetworks:
    """Fit a per-pixel network on all scenes, and others with a part of the scenes left out, to compare their errors.

    Args:
        scenes: Scenes to fit on.
        level: Quantile of the errors that is compared.
        folds: Number of parts that are left out in turn.
        progress: Called with the name of each stage.

    Returns:
        The network of all scenes, and how much larger the errors on unknown scenes are.
    """
    progress("per-pixel network of all scenes")
    network = _rounded(fit_pixel_mlp(_pairs(scenes, range(len(scenes))), len(scenes)))
    own, unknown = [], []
    for fold, left_out in enumerate(fold_indices(len(scenes), folds)):
        progress(f"per-pixel network without part {fold + 1} of {folds}")
        kept = [index for index in range(len(scenes)) if index not in left_out]
        other = fit_pixel_mlp(_pairs(scenes, kept), len(kept))
        for index in left_out:
            pixels = sample_scene(scenes, index, {"own": network, "unknown": other})
            own.append(pixels.relative_error("own").ravel())
            unknown.append(pixels.relative_error("unknown").ravel())
    quantiles = [float(np.quantile(np.concatenate(errors), level)) for errors in (unknown, own)]
    return PixelNetworks(network=network, inflation=max(1.0, quantiles[0] / quantiles[1]))


def fold_indices(count: int, folds: int, seed: int = 0) -> list[list[int]]:
    """Return the indices of each part, drawn at random; parts differ by at most one in size."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    return [sorted(order[fold::folds]) for fold in range(min(folds, count))]


def pixel_layers(method: PixelMethod) -> tuple[Array, ...]:
    """Return the matrices (outputs, inputs) of a per-pixel network."""
    return tuple(weight.detach().numpy()[:, :, 0, 0] for weight in method.network.parameters())


def _rounded(method: PixelMethod) -> PixelMethod:
    """Round the weights to float16, as they are stored, so that the fit sees the spectra that the file will give."""
    for weight in method.network.parameters():
        weight.data = weight.data.half().float()
    return method


def _pairs(scenes: SceneDataset, indices: Sequence[int]) -> Iterator[tuple[Array, Array]]:
    return map(scenes.pair, indices)


def _thin(image: Array, step: int) -> Array:
    """Return every n-th pixel of every n-th row of (C, H, W) as (C, N)."""
    start = min(step // 2, *(side - 1 for side in image.shape[1:]))
    thin = image[:, start::step, start::step]
    return np.ascontiguousarray(thin.reshape(len(thin), -1))
