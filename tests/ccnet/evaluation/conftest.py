"""Two scenes in memory, and a method without weights that the tests evaluate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset

MakeCube = Callable[..., Array]
MakeScenes = Callable[..., SceneDataset]


def grey(frame: Array) -> Array:
    """Return the mean channel in every band."""
    return np.broadcast_to(frame.mean(axis=0), (31, *frame.shape[1:])).copy()


@pytest.fixture
def two_scenes(make_cube: MakeCube, camera: Camera, make_scenes: MakeScenes) -> SceneDataset:
    """Return scenes of 24×20 px and 12×30 px."""
    return make_scenes(camera, make_cube(24, 20), make_cube(12, 30, 1))
