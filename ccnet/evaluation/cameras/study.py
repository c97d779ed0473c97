"""Methods on the frames of measured cameras: as they are, and through a colour matrix to the weights' camera.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ccnet.data.camera import Array, Camera
from ccnet.data.colour.measured import behind_matrices
from ccnet.data.datasets import Scene
from ccnet.data.patches import SceneDataset
from ccnet.data.spectra import Values
from ccnet.evaluation.baselines import fit_relative_regression
from ccnet.evaluation.methods import Method, correct
from ccnet.evaluation.validation import ValidationScore, mean_score, score_method

FIT_STRIDE = 4
"""Regressions are fitted on every fourth pixel in each direction."""

AS_IT_IS, THROUGH_MATRIX, CORRECTED, OWN_REGRESSION, REGRESSION = (
    "CCNet, frames as they are",
    "CCNet, matrix",
    "CCNet, matrix, corrected",
    "regression fitted for the camera",
    "regression, matrix",
)
"""Columns of the study."""

Row = dict[str, ValidationScore]
"""Column → score."""


def through_matrices(scenes: SceneDataset, target: Camera, moments: Values) -> SceneDataset:
    """Return the scenes with each camera's frames brought to the weights' camera by a matrix fitted from its response.

    Args:
        scenes: Scenes with cameras.
        target: The weights' camera.
        moments: Second moments (31, 31) of the reflectances that matrices are fitted over.

    Returns:
        The same scenes.
    """
    return replace(scenes, cameras=tuple(behind_matrices(scenes.cameras, target, moments)))


def study_cameras(
    network: Method,
    target: Camera,
    cameras: Sequence[Camera],
    held_out: SceneDataset,
    training: SceneDataset,
    moments: Values,
    raw: Collection[str] | None = None,
) -> Iterator[tuple[str, Row]]:
    """Judge the network and a regression on the frames of the weights' camera and of others.

    Args:
        network: The network, for frames of the weights' camera.
        target: The weights' camera.
        cameras: Other cameras, in their light.
        held_out: Scenes to judge on, with the noise of their imaging; their cameras are replaced.
        training: Scenes to fit regressions on, likewise.
        moments: Second moments (31, 31) of the reflectances that matrices are fitted over.
        raw: Names of the cameras whose frames the network is judged on without a matrix, too; all if None.

    Yields:
        Name of the camera and column → score; the weights' camera comes first, where all columns of a method agree.
    """
    training = thin(training) if training.imaging.jpeg is None else training
    general = _fit(training, target)
    benchmark = replace(held_out, cameras=(target,))
    yield (
        target.name,
        {
            THROUGH_MATRIX: score_method(network, benchmark),
            CORRECTED: score_method(partial(correct, network, target.response), benchmark),
            REGRESSION: score_method(general, benchmark),
        },
    )
    for camera in cameras:
        as_it_is = replace(held_out, cameras=(camera,))
        behind = through_matrices(as_it_is, target, moments)
        row = {
            THROUGH_MATRIX: score_method(network, behind),
            CORRECTED: score_method(partial(correct, network, behind.cameras[0].frame_response), behind),
            OWN_REGRESSION: score_method(_fit(training, camera), as_it_is),
            REGRESSION: score_method(general, behind),
        }
        if raw is None or camera.name in raw:
            row[AS_IT_IS] = score_method(network, as_it_is)
        yield camera.name, row


def summarise(rows: Sequence[Mapping[str, ValidationScore]]) -> tuple[Row, Row]:
    """Summarise cameras, in the columns that all of them have.

    Args:
        rows: The cameras' scores, without the weights' camera.

    Returns:
        The mean of each column, and its score with the lowest PSNR.
    """
    columns = [column for column in rows[0] if all(column in row for row in rows)]
    scores = {column: [row[column] for row in rows] for column in columns}
    means = {column: mean_score(those) for column, those in scores.items()}
    return means, {column: min(those, key=lambda score: score.psnr) for column, those in scores.items()}


def thin(scenes: SceneDataset) -> SceneDataset:
    """Return the scenes with every fourth pixel of their cubes in each direction, read once."""
    thinned = (replace(scene, read_cube=partial(_every_fourth, scene)) for scene in scenes.scenes)
    return replace(scenes, scenes=tuple(thinned), _cache={})


def _every_fourth(scene: Scene) -> Array:
    return np.ascontiguousarray(scene.read_cube()[:, ::FIT_STRIDE, ::FIT_STRIDE])


def _fit(training: SceneDataset, camera: Camera) -> Method:
    """Return the relative root-polynomial regression for a camera's frames."""
    scenes = replace(training, cameras=(camera,))
    step = 1 if scenes.imaging.jpeg is None else FIT_STRIDE  # a JPEG mixes neighbours, so that its cubes come whole
    pairs = map(scenes.pair, range(len(scenes)))
    return fit_relative_regression((frame[:, ::step, ::step], cube[:, ::step, ::step]) for frame, cube in pairs)
