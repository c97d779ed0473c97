"""Methods to compare: networks, their self-ensembles, and regressions that need no network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ccnet.contract import CCNetError
from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset
from ccnet.metrics.correction import corrected
from ccnet.model import CCNet

from .baselines import fit_regressions, fit_relative_regression
from .pixel_mlp import fit_pixel_mlp
from .validation import infer

Method = Callable[[Array], Array]
"""frame (3, H, W) → cube (31, H, W)."""

REGRESSION_DEGREES: Mapping[str, int] = {"linear": 1, "root-polynomial 2": 2, "root-polynomial 3": 3}
"""Name of a regression → its degree."""

RELATIVE_REGRESSION = "root-poly. 3, rel."
"""Name of the regression of degree 3 with relative weights (``fit_relative_regression``)."""

PIXEL_MLP = "per-pixel MLP"
"""Name of the network without neighbours (``fit_pixel_mlp``)."""

ENSEMBLE_SUFFIX = " + ensemble"
"""Appended to a network's name for its self-ensemble."""

CORRECTED_SUFFIX = ", corrected"
"""Appended to a method's name for its cubes after their correction by the frames."""


def name_networks(weights: Sequence[Path]) -> dict[str, Path]:
    """Choose a name for each file of weights.

    Args:
        weights: Files of weights.

    Returns:
        Name → file: "CCNet" for a single file, else the files' stems, or their paths if the stems are not unique.
    """
    if len(weights) == 1:
        return {"CCNet": weights[0]}
    stems = {path.stem: path for path in weights}
    unique = len(stems.keys() - {*REGRESSION_DEGREES, RELATIVE_REGRESSION, PIXEL_MLP}) == len(weights)
    return stems if unique else {str(path): path for path in weights}


def network_methods(models: Mapping[str, CCNet], ensemble_scales: Sequence[float] = ()) -> dict[str, Method]:
    """Return name → method for networks; with ``ensemble_scales``, each is followed by its self-ensemble."""
    methods: dict[str, Method] = {}
    for name, model in models.items():
        methods[name] = single = partial(infer, model)
        if ensemble_scales:
            methods[name + ENSEMBLE_SUFFIX] = partial(self_ensemble, single, scales=ensemble_scales)
    return methods


def correct(method: Method, response: Array, frame: Array) -> Array:
    """Return a method's cube of a frame (3, H, W), corrected by the frame through its response (31, 3)."""
    return corrected(method(frame), frame, response)


def with_corrections(methods: Mapping[str, Method], names: Collection[str], camera: Camera | None) -> dict[str, Method]:
    """Return the methods, some of them followed by themselves with corrected cubes.

    Args:
        methods: Name → method.
        names: Names of the methods to correct.
        camera: Camera of the frames.

    Returns:
        Name → method.

    Raises:
        CCNetError: The camera is not known.
    """
    result: dict[str, Method] = {}
    for name, method in methods.items():
        result[name] = method
        if name in names:
            if camera is None:
                raise CCNetError("--correct needs a --camera: published frames do not say what their camera sees")
            result[name + CORRECTED_SUFFIX] = partial(correct, method, camera.frame_response)
    return result


def pixel_methods(scenes: SceneDataset) -> dict[str, Method]:
    """Return name → regression or per-pixel MLP, fitted on the pixels of all scenes; each scene is read three times."""

    def pairs() -> Iterator[tuple[Array, Array]]:
        return map(scenes.pair, range(len(scenes)))

    fitted = [*fit_regressions(pairs(), list(REGRESSION_DEGREES.values())), fit_relative_regression(pairs())]
    methods: dict[str, Method] = dict(zip((*REGRESSION_DEGREES, RELATIVE_REGRESSION), fitted, strict=True))
    return methods | {PIXEL_MLP: fit_pixel_mlp(pairs(), len(scenes))}


def self_ensemble(method: Method, frame: Array, scales: Sequence[float] = (1.0,)) -> Array:
    """Average the cubes of a frame's eight rotations and mirror images, at each scale.

    MST++'s toolbox does the same at scale 1.

    Args:
        method: Method to apply to each transformed frame: eight times a scale.
        frame: (3, H, W).
        scales: Factors by which the frame is resized.

    Returns:
        Cube (31, H, W), the mean of all results after the inverse transformations.
    """
    size = frame.shape[1:]
    total = np.zeros((1, *size), np.float64)
    for scale, quarter_turns, mirrored in itertools.product(scales, range(4), (False, True)):
        transformed = _resize(frame, tuple(max(1, round(scale * side)) for side in size))
        transformed = np.rot90(transformed[:, :, ::-1] if mirrored else transformed, quarter_turns, axes=(1, 2))
        cube = np.rot90(method(np.ascontiguousarray(transformed)), -quarter_turns, axes=(1, 2))
        total = total + _resize(np.ascontiguousarray(cube[:, :, ::-1] if mirrored else cube), size)
    return np.asarray(total / (8 * len(scales)), np.float32)


def _resize(image: Array, size: tuple[int, ...]) -> Array:
    """Resize (C, H, W) to (C, *size): bilinear, with antialiasing."""
    if image.shape[1:] == size:
        return image
    shape = [size[0], size[1]]
    return F.interpolate(torch.from_numpy(image)[None], shape, mode="bilinear", antialias=True)[0].numpy()
