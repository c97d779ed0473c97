"""Methods on scenes, judged by hand; the ensemble against networks whose answer to a turned frame is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ccnet import metrics
from ccnet.contract import strict_json
from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.evaluate import (
    REGRESSIONS,
    RELATIVE,
    Estimate,
    Measures,
    Score,
    compare,
    ensemble,
    gains,
    measure,
    method_names,
    networks,
    regressions,
    report,
    summarise,
)
from ccnet.evaluation.selfcheck import prediction
from ccnet.model import CCNet
from ccnet.training.trainer import infer

MakeCube = Callable[..., Array]
MakeViews = Callable[..., SceneDataset]


def grey(frame: Array) -> Array:
    """The mean channel in every band."""
    return np.broadcast_to(frame.mean(axis=0), (31, *frame.shape[1:])).copy()


def place(frame: Array) -> Array:
    """What a network would say that knows where a pixel is: its row, in every band."""
    rows = np.arange(frame.shape[1], dtype=np.float32)[:, None]
    return np.broadcast_to(rows, (31, *frame.shape[1:])).copy()


@pytest.fixture
def two(make_cube: MakeCube, camera: Camera, make_views: MakeViews) -> SceneDataset:
    return make_views(camera, make_cube(24, 20), make_cube(12, 30, 1))


def test_a_measure_is_the_metrics(make_cube: MakeCube) -> None:
    truth, estimate = make_cube(8, 9), make_cube(8, 9, 1)
    truth[3, 2, 1] = 0
    measured = measure(truth, estimate)
    assert measured.mrae == metrics.mrae(truth, estimate)
    assert measured.mrae_ntire == math.inf
    assert (measured.rmse, measured.psnr) == (metrics.rmse(truth, estimate), metrics.psnr(truth, estimate))
    assert measured.sam == metrics.sam(truth, estimate)
    assert len(measured.band_mrae) == len(measured.band_rmse) == 31
    assert measured.band_rmse[7] == pytest.approx(float(np.sqrt(np.mean((truth[7] - estimate[7]) ** 2))), rel=1e-5)


def test_a_summary_is_mean_and_sample_deviation(make_cube: MakeCube) -> None:
    measures = [measure(make_cube(6, 6), make_cube(6, 6, seed)) for seed in (1, 2, 3)]
    summary = summarise(measures)
    errors = [one.mrae for one in measures]
    middle = sum(errors) / 3
    assert summary.mean.mrae == pytest.approx(middle)
    assert summary.std.mrae == pytest.approx(math.sqrt(sum((error - middle) ** 2 for error in errors) / 2))
    assert summary.mean.band_rmse[30] == pytest.approx(sum(one.band_rmse[30] for one in measures) / 3)
    assert len(summary.std.band_mrae) == 31 and min(summary.std.band_mrae) > 0


def test_one_scene_has_no_spread_and_what_is_not_defined_has_no_mean(make_cube: MakeCube) -> None:
    lit, dark = make_cube(6, 6), make_cube(6, 6)
    dark[0, 0, 0] = 0
    (alone,) = [summarise([measure(lit, lit / 2)])]
    assert alone.mean == measure(lit, lit / 2)
    assert math.isnan(alone.std.psnr) and all(map(math.isnan, alone.std.band_mrae))
    both = summarise([measure(lit, lit / 2), measure(dark, lit / 2)])
    assert both.mean.mrae_ntire == math.inf and math.isnan(both.std.mrae_ntire)
    assert math.isfinite(both.mean.mrae) and math.isfinite(both.std.mrae)


def test_every_method_sees_every_scene(two: SceneDataset) -> None:
    seen = []

    def spy(frame: Array) -> Array:
        seen.append(frame)
        return grey(frame)

    estimates = list(compare({"spy": spy, "half": lambda frame: grey(frame) / 2}, two))
    assert [(one.index, one.score.scene, one.method) for one in estimates] == [
        (0, "0", "spy"), (0, "0", "half"), (1, "1", "spy"), (1, "1", "half")
    ]  # fmt: skip
    for one, frame in zip(estimates[::2], seen, strict=True):
        expected, truth = two.pair(one.index)
        np.testing.assert_array_equal(frame, expected)
        np.testing.assert_array_equal(one.truth, truth)
        assert one.score.full == measure(truth, grey(frame))
        assert one.score.ntire == measure(metrics.ntire_crop(truth), metrics.ntire_crop(grey(frame)))
        assert one.score.full != one.score.ntire
        assert one.score.seconds > 0
        expected_check = prediction(frame, truth, one.cube, two.cameras[0].response)
        assert one.score.selfcheck == pytest.approx(expected_check, nan_ok=True)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5)])
def test_an_ensemble_of_what_turns_with_the_frame_is_it(
    make_cube: MakeCube, camera: Camera, scales: tuple[float, ...]
) -> None:
    """Where half a scale loses nothing, on a frame that is the same all over."""
    frame = camera.frame(make_cube(10, 14))
    if scales != (1.0,):
        frame = np.broadcast_to(frame[:, :1, :1], frame.shape).copy()
    np.testing.assert_allclose(ensemble(grey, frame, scales), grey(frame), rtol=1e-5)


def test_an_ensemble_averages_over_eight_views_of_each_scale() -> None:
    sizes = []

    def spy(frame: Array) -> Array:
        sizes.append(frame.shape[1:])
        return place(frame)

    cube = ensemble(spy, np.zeros((3, 5, 9), np.float32))
    assert sorted(sizes) == [(5, 9)] * 4 + [(9, 5)] * 4
    # Rows of a frame on its side run along its columns: the mean over all views is the middle of both, everywhere
    np.testing.assert_allclose(cube, np.full((31, 5, 9), (4 / 2 + 8 / 2) / 2))
    sizes.clear()
    assert ensemble(spy, np.zeros((3, 5, 9), np.float32), (0.5, 2)).shape == (31, 5, 9)
    assert sorted(sizes) == [(2, 4)] * 4 + [(4, 2)] * 4 + [(10, 18)] * 4 + [(18, 10)] * 4


def test_the_views_of_an_ensemble_all_differ() -> None:
    seen = []

    def spy(frame: Array) -> Array:
        seen.append(frame.tobytes())
        return grey(frame)

    ensemble(spy, np.random.default_rng(0).random((3, 6, 6), np.float32))
    assert len(set(seen)) == 8


def test_networks_are_methods_alone_and_as_ensembles(network: CCNet, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = np.zeros((3, 5, 9), np.float32)
    np.testing.assert_array_equal(networks({"a": network})["a"](frame), infer(network, frame))
    monkeypatch.setattr("ccnet.evaluation.evaluate.infer", lambda model, frame: place(frame))
    assert list(networks({"a": network})) == ["a"]
    methods = networks({"a": network, "b": network}, (1.0, 0.5))
    assert list(methods) == ["a", "a + ensemble", "b", "b + ensemble"]
    np.testing.assert_array_equal(methods["b"](frame), place(frame))
    np.testing.assert_array_equal(methods["b + ensemble"](frame), ensemble(place, frame, (1.0, 0.5)))


def test_names_of_weights_are_short_and_tell_them_apart() -> None:
    assert method_names([Path("runs/x/best.safetensors")]) == {"CCNet": Path("runs/x/best.safetensors")}
    assert list(method_names([Path("a/x.safetensors"), Path("b/y.safetensors")])) == ["x", "y"]
    same = [Path("a/best.safetensors"), Path("b/best.safetensors")]
    assert method_names(same) == {str(path): path for path in same}
    taken = [Path("a/linear.safetensors"), Path("b/y.safetensors")]
    assert method_names(taken) == {str(path): path for path in taken}


def test_regressions_have_the_frames_that_are_judged(two: SceneDataset) -> None:
    fitted = regressions(two)
    assert list(fitted) == [*REGRESSIONS, RELATIVE]
    errors = []
    for method in fitted.values():
        residuals = [one.cube - one.truth for one in compare({"": method}, two)]
        errors.append(sum(np.square(residual, dtype=np.float64).sum() for residual in residuals))
    assert errors[2] < errors[1] < errors[0]  # seen in training, where more terms are never worse
    blind = sum(np.square(one.truth, dtype=np.float64).sum() for one in compare({"": grey}, two))
    assert errors[0] < 0.2 * blind


def judged(two: SceneDataset, **methods: Callable[[Array], Array]) -> dict[str, list[Score]]:
    estimates: list[Estimate] = list(compare(methods, two))
    return {name: [one.score for one in estimates if one.method == name] for name in methods}


def test_a_report_holds_everything_in_plain_json(two: SceneDataset) -> None:
    scores = judged(two, grey=grey, half=lambda frame: grey(frame) / 2)
    document = report(scores)
    assert list(document["methods"]) == ["grey", "half"]
    assert document["wavelengths_nm"] == list(range(400, 701, 10))
    assert document["protocol"].keys() == {
        "mrae", "mrae_ntire", "rmse", "psnr", "sam", "full", "ntire", "selfcheck", "std", "seconds"
    }  # fmt: skip
    one = document["methods"]["grey"]
    assert [scene["scene"] for scene in one["scenes"]] == ["0", "1"]
    assert one["full"]["mean"]["mrae"] == pytest.approx(np.mean([scene["full"]["mrae"] for scene in one["scenes"]]))
    assert one["ntire"]["std"].keys() == Measures.__dataclass_fields__.keys()
    assert one["seconds"] == pytest.approx(np.mean([scene["seconds"] for scene in one["scenes"]]))
    assert "Infinity" not in strict_json(document, 2) and "NaN" not in strict_json(document, 2)


def test_gains_name_what_an_ensemble_brings_and_costs(two: SceneDataset) -> None:
    scores = judged(two, net=lambda frame: grey(frame) / 2)
    assert gains(scores) == []
    better = judged(two, net=grey)["net"]
    (line,) = gains(scores | {"net + ensemble": better})
    before, after = (summarise([score.full for score in of]).mean for of in (scores["net"], better))
    times = sum(score.seconds for score in better) / sum(score.seconds for score in scores["net"])
    assert line.startswith(f"net + ensemble: MRAE {after.mrae - before.mrae:+.4f}, PSNR +")
    assert line.endswith(f" dB, for {times:.1f} times the time")
