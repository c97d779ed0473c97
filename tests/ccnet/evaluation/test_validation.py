"""Mean metrics over whole scenes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.validation import mean_score, score_cube, score_method


def test_score_of_a_method_is_the_mean_over_scenes_where_they_have_data(
    camera: Camera, make_cube: Callable[..., Array], make_scenes: Callable[..., SceneDataset]
) -> None:
    cubes = [make_cube(seed=seed) for seed in (1, 2)]
    gap = cubes[1].copy()
    gap[:, :2] = np.nan

    def zeros(frame: Array) -> Array:
        return np.zeros((31, *frame.shape[1:]), np.float32)

    score = score_method(zeros, make_scenes(camera, cubes[0], gap))
    known = cubes[1][:, 2:]
    expected = mean_score([score_cube(cube, np.zeros_like(cube)) for cube in (cubes[0], known)])
    assert score == expected
    assert score.rmse == pytest.approx(np.mean([np.sqrt(np.mean(cube**2)) for cube in (cubes[0], known)]), rel=1e-5)
