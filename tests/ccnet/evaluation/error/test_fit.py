"""The fit of predicted errors: conformal quantiles, and coverage on errors that are drawn at random."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ccnet.contract import CCNetError
from ccnet.data.camera import Array
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.error.fit import conformal_quantile, fit_error
from ccnet.evaluation.error.judge import check_scene
from ccnet.evaluation.error.samples import PixelNetworks, ScenePixels, fit_pixel_networks, fold_indices, sample
from ccnet.evaluation.pixel_mlp import PixelMethod
from ccnet.metrics.predicted_error import ErrorModel, error_scale
from ccnet.model.base import PixelMLP

Scenes = Callable[..., list[ScenePixels]]


@pytest.fixture
def networks() -> PixelNetworks:
    """A per-pixel network that was not trained."""
    return PixelNetworks(network=PixelMethod(PixelMLP()), inflation=1.0)


@pytest.fixture
def scenes() -> Scenes:
    """scenes(count): pixels whose errors are drawn from the same distribution, three times as large for blue pixels."""

    def make(count: int, seed: int = 0, size: int = 400) -> list[ScenePixels]:
        rng = np.random.default_rng(seed)
        made = []
        for index in range(count):
            frame = rng.uniform(0.05, 1, (3, size)).astype(np.float32)
            truth = rng.uniform(0.1, 1, (31, 1)) * np.ones((31, size))
            blue = np.where(frame[2] > frame[:2].max(axis=0), 0.15, 0.05)
            error = rng.standard_normal((31, size)) * blue * error_scale(frame)
            estimate = (truth + error).astype(np.float32)
            pixels = ScenePixels(
                name=str(index), frame=frame, truth=truth.astype(np.float32), estimates={"net": estimate}
            )
            made.append(pixels)
        return made

    return make


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_quantile_covers_exchangeable_scores_within_binomial_bounds(level: float) -> None:
    rng, trials, count = np.random.default_rng(0), 4000, 49
    scores = rng.exponential(size=(trials, count + 1))
    covered = np.count_nonzero(scores[:, -1] <= conformal_quantile(scores[:, :-1], level))
    expected = np.ceil((count + 1) * level) / (count + 1)
    assert level <= expected <= level + 1 / (count + 1)
    low, high = stats.binom.interval(0.999, trials, expected)
    assert low <= covered <= high


def test_quantile_grows_with_the_level() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 200))
    quantiles = [conformal_quantile(scores, level) for level in (0.1, 0.5, 0.9, 0.99, 1)]
    assert all((larger > smaller).all() for smaller, larger in itertools.pairwise(quantiles))
    np.testing.assert_array_equal(quantiles[-1], scores.max(axis=1))
    np.testing.assert_array_equal(conformal_quantile(scores[:, :3], 0.9), scores[:, :3].max(axis=1))  # too few


def test_new_scenes_are_covered_at_the_level(scenes: Scenes, networks: PixelNetworks) -> None:
    fitted = fit_error(scenes(8), "net", networks, "00" * 32)
    checks = [check_scene(fitted.model, scene, "net") for scene in scenes(8, seed=1)]
    values = 8 * 400 * 31
    low, high = stats.binom.interval(0.999, values, 0.9)
    spread = 0.01  # the quantile itself is drawn from as many values
    assert low / values - spread < np.mean([check.coverage for check in checks]) < high / values + spread
    assert min(check.rho for check in checks) > 0.4


def test_each_scene_is_judged_by_a_model_that_did_not_see_it(scenes: Scenes, networks: PixelNetworks) -> None:
    first, *others = scenes(4)
    odd = replace(first, truth=first.truth + 10 * (first.truth - first.estimates["net"]))
    fitted = fit_error([odd, *others], "net", networks, "00" * 32)
    assert len(fitted.left_out) == 4
    assert check_scene(fitted.left_out[0], odd, "net").coverage < 0.3
    assert all(check_scene(model, odd, "net").coverage > 0.5 for model in (fitted.model, *fitted.left_out[1:]))


def test_half_widths_are_enlarged_for_unknown_scenes(scenes: Scenes, networks: PixelNetworks) -> None:
    made = scenes(3)
    larger = PixelNetworks(network=networks.network, inflation=1.5)
    pair = [fit_error(made, "net", each, "00" * 32) for each in (networks, larger)]
    widths = [fitted.model.half_width(made[0].frame, made[0].estimates["net"]) for fitted in pair]
    np.testing.assert_allclose(widths[1], 1.5 * widths[0], rtol=1e-4)
    for before, after in zip(*(fitted.left_out for fitted in pair), strict=True):
        np.testing.assert_array_equal(before.coefficients, after.coefficients)  # the network knows these scenes
    assert pair[1].model.inflation == 1.5
    again = PixelNetworks.of_model(ErrorModel.from_bytes(Path("a"), pair[1].model.to_bytes()))
    assert again.inflation == 1.5
    with pytest.raises(CCNetError, match="has another shape"):
        PixelNetworks.of_model(replace(pair[1].model, pixel_layers=(np.zeros((31, 3), np.float32),)))


def test_folds_hold_each_scene_once() -> None:
    parts = fold_indices(7, 3)
    assert sorted(index for part in parts for index in part) == list(range(7))
    assert {len(part) for part in parts} == {2, 3} and parts == fold_indices(7, 3)
    assert len(fold_indices(2, 5)) == 2


def test_errors_of_networks_that_saw_the_scene_are_compared_with_others(
    make_scenes: Callable[..., SceneDataset], make_cube: Callable[..., Array], camera: object
) -> None:
    data = make_scenes(camera, *(make_cube(8, 8, seed) for seed in range(3)))
    stages: list[str] = []
    networks = fit_pixel_networks(data, 0.9, 3, stages.append)
    assert len(stages) == 4 and networks.inflation >= 1
    weights = [weight.detach().numpy() for weight in networks.network.network.parameters()]
    assert all((weight == weight.astype(np.float16)).all() for weight in weights)


def test_pixels_without_data_are_left_out(
    make_scenes: Callable[..., SceneDataset], make_cube: Callable[..., Array], camera: object
) -> None:
    cube = make_cube(16, 16)
    cube[3, :8] = np.nan
    (pixels,) = sample(make_scenes(camera, cube), {"copy": lambda frame: np.zeros_like(cube)}, step=4)
    assert pixels.frame.shape == (3, 8) and np.isfinite(pixels.truth).all()
    assert pixels.estimates["copy"].shape == (31, 8)
