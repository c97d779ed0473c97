"""Networks, self-ensembles and regressions as methods, against methods with known answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.evaluate import evaluate_methods
from ccnet.evaluation.methods import (
    PIXEL_MLP,
    REGRESSION_DEGREES,
    RELATIVE_REGRESSION,
    name_networks,
    network_methods,
    pixel_methods,
    self_ensemble,
)
from ccnet.evaluation.validation import infer
from ccnet.model import CCNet
from tests.ccnet.evaluation.conftest import grey

MakeCube = Callable[..., Array]


def row_number(frame: Array) -> Array:
    """Return each pixel's row number in every band: a method that depends on the place."""
    rows = np.arange(frame.shape[1], dtype=np.float32)[:, None]
    return np.broadcast_to(rows, (31, *frame.shape[1:])).copy()


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5)])
def test_self_ensemble_of_an_equivariant_method_changes_nothing(
    make_cube: MakeCube, camera: Camera, scales: tuple[float, ...]
) -> None:
    """At half the scale, on a constant frame, which resizing does not change."""
    frame = camera.frame(make_cube(10, 14))
    if scales != (1.0,):
        frame = np.broadcast_to(frame[:, :1, :1], frame.shape).copy()
    np.testing.assert_allclose(self_ensemble(grey, frame, scales), grey(frame), rtol=1e-5)


def test_self_ensemble_averages_over_eight_transformations_of_each_scale() -> None:
    sizes = []

    def spy(frame: Array) -> Array:
        sizes.append(frame.shape[1:])
        return row_number(frame)

    cube = self_ensemble(spy, np.zeros((3, 5, 9), np.float32))
    assert sorted(sizes) == [(5, 9)] * 4 + [(9, 5)] * 4
    # Four of the eight results hold row numbers and four column numbers, each in both directions
    np.testing.assert_allclose(cube, np.full((31, 5, 9), (4 / 2 + 8 / 2) / 2))
    sizes.clear()
    assert self_ensemble(spy, np.zeros((3, 5, 9), np.float32), (0.5, 2)).shape == (31, 5, 9)
    assert sorted(sizes) == [(2, 4)] * 4 + [(4, 2)] * 4 + [(10, 18)] * 4 + [(18, 10)] * 4


def test_transformations_of_a_self_ensemble_differ() -> None:
    frames = []

    def spy(frame: Array) -> Array:
        frames.append(frame.tobytes())
        return grey(frame)

    self_ensemble(spy, np.random.default_rng(0).random((3, 6, 6), np.float32))
    assert len(set(frames)) == 8


def test_networks_are_methods_alone_and_as_ensembles(network: CCNet, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = np.zeros((3, 5, 9), np.float32)
    np.testing.assert_array_equal(network_methods({"a": network})["a"](frame), infer(network, frame))
    monkeypatch.setattr("ccnet.evaluation.methods.infer", lambda model, frame: row_number(frame))
    assert list(network_methods({"a": network})) == ["a"]
    methods = network_methods({"a": network, "b": network}, (1.0, 0.5))
    assert list(methods) == ["a", "a + ensemble", "b", "b + ensemble"]
    np.testing.assert_array_equal(methods["b"](frame), row_number(frame))
    np.testing.assert_array_equal(methods["b + ensemble"](frame), self_ensemble(row_number, frame, (1.0, 0.5)))


def test_names_of_networks_are_short_and_unique() -> None:
    assert name_networks([Path("runs/x/best.safetensors")]) == {"CCNet": Path("runs/x/best.safetensors")}
    assert list(name_networks([Path("a/x.safetensors"), Path("b/y.safetensors")])) == ["x", "y"]
    same = [Path("a/best.safetensors"), Path("b/best.safetensors")]
    assert name_networks(same) == {str(path): path for path in same}
    taken = [Path("a/linear.safetensors"), Path("b/y.safetensors")]
    assert name_networks(taken) == {str(path): path for path in taken}


def test_pixel_methods_are_fitted_on_the_scenes(two_scenes: SceneDataset) -> None:
    fitted = pixel_methods(two_scenes)
    assert list(fitted) == [*REGRESSION_DEGREES, RELATIVE_REGRESSION, PIXEL_MLP]
    errors = []
    for method in fitted.values():
        residuals = [estimate.cube - estimate.truth for estimate in evaluate_methods({"": method}, two_scenes)]
        errors.append(sum(np.square(residual, dtype=np.float64).sum() for residual in residuals))
    assert errors[2] < errors[1] < errors[0]  # on the scenes of the fit, where more terms are never worse
    energy = sum(np.square(scene.truth, dtype=np.float64).sum() for scene in evaluate_methods({"": grey}, two_scenes))
    assert errors[0] < 0.2 * energy
