"""Checks of predicted errors on scenes with known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ccnet.evaluation.error.judge import SceneCheck, check_scene, report, summary
from ccnet.evaluation.error.samples import ScenePixels
from ccnet.metrics.predicted_error import ErrorModel

CHECK = SceneCheck(scene="a", coverage=0.9, rho=0.7, rho_relative=0.6, score=0.2, mrae=0.1, sam=5)


def test_score_orders_scenes() -> None:
    checks = [replace(CHECK, score=score, mrae=score / 2, sam=5 - score) for score in (0.1, 0.3, 0.2)]
    found = report(checks)
    assert found["order_mrae"] == pytest.approx(1) and found["order_sam"] == pytest.approx(-1)
    assert found["in_range"] == 3 and [scene["score"] for scene in found["scenes"]] == [0.1, 0.3, 0.2]
    assert "by MRAE with rho 1.00, by SAM with -1.00" in summary(checks)
    assert np.isnan(report(checks[:2])["order_mrae"])


def test_coverage_outside_the_range_is_counted() -> None:
    checks = [replace(CHECK, coverage=coverage) for coverage in (0.84, 0.86, 0.94, 0.96)]
    assert report(checks)["in_range"] == 2 and report(checks)["coverage"] == pytest.approx(0.9)


def test_coverage_is_the_share_of_values_within_the_half_width() -> None:
    frame = np.full((3, 4), 0.48, np.float32)  # scale 0.5
    truth = np.full((31, 4), 0.5, np.float32)
    estimate = truth + np.array([0.01, 0.04, 0.06, 0.1], np.float32)
    coefficients = np.zeros((10, 31), np.float32)
    coefficients[0] = np.log(0.1)  # half width 0.05
    model = ErrorModel(
        pixel_layers=(np.zeros((31, 3), np.float32),),
        mean=np.zeros(9, np.float32),
        spread=np.ones(9, np.float32),
        coefficients=coefficients,
        weights_sha256="00" * 32,
    )
    check = check_scene(model, ScenePixels(name="a", frame=frame, truth=truth, estimates={"net": estimate}), "net")
    assert check.coverage == 0.5 and check.mrae == pytest.approx(0.0525 / 0.52, rel=1e-4)
    assert np.isnan(check.rho) and check.score == pytest.approx(np.mean(0.05 / (estimate[0] + 0.02)), rel=1e-4)
