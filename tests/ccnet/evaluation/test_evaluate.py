"""Metrics of methods on scenes, against the same figures computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest

from ccnet import metrics
from ccnet.contract import CCNetError, strict_json
from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.evaluate import (
    CubeMetrics,
    Estimate,
    SceneScore,
    cube_metrics,
    ensemble_gain_lines,
    evaluate_methods,
    json_report,
    lit_metrics,
    selfcheck_lines,
    summarise,
)
from ccnet.evaluation.methods import with_corrections
from ccnet.evaluation.selfcheck import compare_residual_and_error
from ccnet.metrics.correction import corrected
from tests.ccnet.evaluation.conftest import grey

MakeCube = Callable[..., Array]


def test_selfcheck_says_how_the_residual_ranks_scenes(two_scenes: SceneDataset) -> None:
    first, *_ = [estimate.score for estimate in evaluate_methods({"grey": grey}, two_scenes)]

    def scored(residual: float, mrae: float, sam: float) -> SceneScore:
        check = {**(first.selfcheck or {}), "score": residual}
        return replace(first, full=replace(first.full, mrae=mrae, sam=sam), selfcheck=check)

    scores = [scored(0.01, 0.3, 4), scored(0.02, 0.2, 5), scored(0.03, 0.1, 6)]
    (line,) = selfcheck_lines({"grey": scores})
    assert line.endswith("it ranks the 3 scenes by MRAE with rho -1.00, by SAM with rho 1.00")
    assert "it ranks" not in selfcheck_lines({"grey": scores[:2]})[0]


def test_cube_metrics_are_those_of_ccnet_metrics(make_cube: MakeCube) -> None:
    truth, estimate = make_cube(8, 9), make_cube(8, 9, 1)
    truth[3, 2, 1] = 0
    measured = cube_metrics(truth, estimate)
    assert measured.mrae == metrics.mrae(truth, estimate)
    assert measured.mrae_ntire == math.inf
    assert (measured.rmse, measured.psnr) == (metrics.rmse(truth, estimate), metrics.psnr(truth, estimate))
    assert measured.sam == metrics.sam(truth, estimate)
    factor = float((truth * estimate).sum(dtype=np.float64) / np.square(estimate, dtype=np.float64).sum())
    assert measured.psnr_scaled == pytest.approx(metrics.psnr(truth, factor * estimate), rel=1e-5)
    assert measured.psnr_scaled == pytest.approx(cube_metrics(truth, estimate * 3).psnr_scaled, rel=1e-5)
    assert len(measured.band_mrae) == len(measured.band_rmse) == 31
    assert measured.band_rmse[7] == pytest.approx(float(np.sqrt(np.mean((truth[7] - estimate[7]) ** 2))), rel=1e-5)


def test_summary_is_mean_and_sample_deviation(make_cube: MakeCube) -> None:
    results = [cube_metrics(make_cube(6, 6), make_cube(6, 6, seed)) for seed in (1, 2, 3)]
    summary = summarise(results)
    errors = [result.mrae for result in results]
    mean = sum(errors) / 3
    assert summary.mean.mrae == pytest.approx(mean)
    assert summary.std.mrae == pytest.approx(math.sqrt(sum((error - mean) ** 2 for error in errors) / 2))
    assert summary.mean.band_rmse[30] == pytest.approx(sum(result.band_rmse[30] for result in results) / 3)
    assert len(summary.std.band_mrae) == 31 and min(summary.std.band_mrae) > 0


def test_one_scene_has_no_spread_and_inf_has_an_infinite_mean(make_cube: MakeCube) -> None:
    lit, dark = make_cube(6, 6), make_cube(6, 6)
    dark[0, 0, 0] = 0
    alone = summarise([cube_metrics(lit, lit / 2)])
    assert alone.mean == cube_metrics(lit, lit / 2)
    assert math.isnan(alone.std.psnr) and all(map(math.isnan, alone.std.band_mrae))
    both = summarise([cube_metrics(lit, lit / 2), cube_metrics(dark, lit / 2)])
    assert both.mean.mrae_ntire == math.inf and math.isnan(both.std.mrae_ntire)
    assert math.isfinite(both.mean.mrae) and math.isfinite(both.std.mrae)


def test_lit_pixels_are_judged_apart(make_cube: MakeCube) -> None:
    truth, estimate = make_cube(8, 9), make_cube(8, 9, 1)
    truth[:, :5] *= 0.01 / truth[:, :5].mean()
    lit, below = lit_metrics(truth, estimate), cube_metrics(truth[:, 5:], estimate[:, 5:])
    assert lit is not None
    assert (lit.mrae, lit.psnr, lit.sam) == pytest.approx((below.mrae, below.psnr, below.sam))
    assert lit_metrics(truth * 0, estimate) is None


def test_cubes_of_dimmed_frames_are_brought_back(two_scenes: SceneDataset) -> None:
    """A method in proportion to the frame has the same metrics at each brightness, one with an offset has not."""
    methods = {"grey": grey, "offset": lambda frame: grey(frame) + np.float32(0.01)}
    for estimate in evaluate_methods(methods, two_scenes, (0.5, 0.25)):
        score = estimate.score
        expected = estimate.cube if estimate.method == "grey" else grey(estimate.frame) + np.float32(0.04)
        assert list(score.dimmed) == [0.5, 0.25]
        assert score.dimmed[0.25].psnr == pytest.approx(cube_metrics(estimate.truth, expected).psnr, rel=1e-5)


def test_report_has_lit_and_dimmed_only_where_every_scene_has(make_cube: MakeCube) -> None:
    cube = make_cube(6, 6)
    results = cube_metrics(cube, cube / 2)
    score = SceneScore(scene="a", full=results, ntire=results, seconds=1, lit=results, dimmed={0.5: results})
    report = json_report({"m": [score, replace(score, lit=None)]})["methods"]["m"]
    assert report["dimmed 0.5"]["mean"]["mrae"] == pytest.approx(results.mrae) and "lit" not in report
    assert json_report({"m": [score]})["methods"]["m"]["lit"]["mean"]["psnr"] == pytest.approx(results.psnr)


def test_every_method_gets_every_scene(two_scenes: SceneDataset) -> None:
    frames = []

    def spy(frame: Array) -> Array:
        frames.append(frame)
        return grey(frame)

    estimates = list(evaluate_methods({"spy": spy, "half": lambda frame: grey(frame) / 2}, two_scenes))
    assert [(each.index, each.score.scene, each.method) for each in estimates] == [
        (0, "0", "spy"), (0, "0", "half"), (1, "1", "spy"), (1, "1", "half")
    ]  # fmt: skip
    for estimate, frame in zip(estimates[::2], frames, strict=True):
        expected, truth = two_scenes.pair(estimate.index)
        np.testing.assert_array_equal(frame, expected)
        np.testing.assert_array_equal(estimate.truth, truth)
        assert estimate.score.full == cube_metrics(truth, grey(frame))
        assert estimate.score.ntire == cube_metrics(metrics.ntire_crop(truth), metrics.ntire_crop(grey(frame)))
        assert estimate.score.full != estimate.score.ntire
        assert estimate.score.seconds > 0
        expected_check = compare_residual_and_error(frame, truth, estimate.cube, two_scenes.cameras[0].response)
        assert estimate.score.selfcheck == pytest.approx(expected_check, nan_ok=True)


def test_corrected_cubes_follow_their_method_and_are_not_self_checked(two_scenes: SceneDataset) -> None:
    methods = {"grey": grey, "half": lambda frame: grey(frame) / 2}
    estimates = list(evaluate_methods(methods, two_scenes, (0.5,), corrected=["grey"]))
    assert [each.method for each in estimates[:3]] == ["grey", "grey, corrected", "half"] and len(estimates) == 6
    plain, better = estimates[:2]
    expected = corrected(grey(plain.frame), plain.frame, two_scenes.cameras[0].frame_response)
    np.testing.assert_array_equal(better.cube, expected)
    assert plain.score.selfcheck is not None and better.score.selfcheck is None
    assert better.score.full.mrae < plain.score.full.mrae
    assert better.score.dimmed[0.5].mrae == pytest.approx(better.score.full.mrae, rel=0.02)


def test_published_frames_cannot_correct_cubes() -> None:
    with pytest.raises(CCNetError, match="--correct needs a --camera"):
        with_corrections({"grey": grey}, ["grey"], None)
    assert with_corrections({"grey": grey}, [], None) == {"grey": grey}


def score_scenes(two_scenes: SceneDataset, **methods: Callable[[Array], Array]) -> dict[str, list[SceneScore]]:
    estimates: list[Estimate] = list(evaluate_methods(methods, two_scenes))
    return {name: [each.score for each in estimates if each.method == name] for name in methods}


def test_json_report_holds_all_scores_as_plain_values(two_scenes: SceneDataset) -> None:
    scores = score_scenes(two_scenes, grey=grey, half=lambda frame: grey(frame) / 2)
    document = json_report(scores)
    assert list(document["methods"]) == ["grey", "half"]
    assert document["wavelengths_nm"] == list(range(400, 701, 10))
    assert document["protocol"].keys() == {
        "mrae", "mrae_ntire", "rmse", "psnr", "sam", "psnr_scaled", "full", "lit", "dimmed", "ntire", "selfcheck",
        "std", "seconds",
        "without_data",
    }  # fmt: skip
    method = document["methods"]["grey"]
    assert [scene["scene"] for scene in method["scenes"]] == ["0", "1"]
    assert method["full"]["mean"]["mrae"] == pytest.approx(
        np.mean([scene["full"]["mrae"] for scene in method["scenes"]])
    )
    assert method["ntire"]["std"].keys() == CubeMetrics.__dataclass_fields__.keys()
    assert method["seconds"] == pytest.approx(np.mean([scene["seconds"] for scene in method["scenes"]]))
    assert "Infinity" not in strict_json(document, 2) and "NaN" not in strict_json(document, 2)


def test_gain_line_has_gain_and_cost_of_an_ensemble(two_scenes: SceneDataset) -> None:
    scores = score_scenes(two_scenes, net=lambda frame: grey(frame) / 2)
    assert ensemble_gain_lines(scores) == []
    better = score_scenes(two_scenes, net=grey)["net"]
    (line,) = ensemble_gain_lines(scores | {"net + ensemble": better})
    before, after = (summarise([score.full for score in part]).mean for part in (scores["net"], better))
    cost = sum(score.seconds for score in better) / sum(score.seconds for score in scores["net"])
    assert line.startswith(f"net + ensemble: MRAE {after.mrae - before.mrae:+.4f}, PSNR +")
    assert line.endswith(f" dB, for {cost:.1f} times the time")


def test_gaps_count_nowhere(make_cube: MakeCube, camera: Camera, make_scenes: Callable[..., SceneDataset]) -> None:
    """Values without data may be estimated in any way, and the report says how many there are."""
    cube = make_cube(32, 32)
    cube[:, :9], cube[4] = np.nan, np.nan
    scenes = make_scenes(camera, cube, make_cube(32, 32, 1))

    def wild(frame: Array) -> Array:
        estimate = grey(frame)
        if not frame[:, :9].any():
            estimate[:, :9], estimate[4] = 1e3, -1e3
        return estimate

    found = score_scenes(scenes, grey=grey, wild=wild)
    for plain, other in zip(found["grey"], found["wild"], strict=True):
        for part in ("full", "ntire"):
            np.testing.assert_equal(asdict(getattr(plain, part)), asdict(getattr(other, part)))
        check, other_check = dict(plain.selfcheck or {}), dict(other.selfcheck or {})
        assert check.pop("unseen") == other_check.pop("unseen")
    assert found["grey"][0].without_data == {"pixels": 9 * 32, "bands": [440]}
    assert found["grey"][1].without_data is None
    mean = json_report(found)["methods"]["grey"]["full"]["mean"]
    assert mean["band_rmse"][4] == found["grey"][1].full.band_rmse[4]  # of the scene that has the band
    assert np.isfinite([value for value in mean.values() if isinstance(value, float)]).all()
