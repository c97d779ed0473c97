"""Metrics of methods on the same scenes, on whole frames and in NTIRE's centre crop, with means and spreads.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32. docs/metrics.md defines every metric.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ccnet import metrics
from ccnet.contract import BANDS_NM
from ccnet.contract.gaps import describe_gaps, known_values
from ccnet.data.camera import Array
from ccnet.data.masks import known_mean
from ccnet.data.patches import SceneDataset

from .methods import CORRECTED_SUFFIX, ENSEMBLE_SUFFIX, Method, with_corrections
from .selfcheck import compare_residual_and_error, rank_correlation

SCALAR_METRICS = ("mrae", "mrae_ntire", "rmse", "psnr", "sam", "psnr_scaled")
"""Fields of ``CubeMetrics`` that are one number."""

PROTOCOL = {
    "mrae": f"mean |d| / (Y + {metrics.MRAE_OFFSET})",
    "mrae_ntire": "mean |d| / Y; null where the truth holds zeros",
    "rmse": "over all pixels and bands",
    "psnr": "dB, peak 1, from the error over all bands",
    "sam": "degrees, mean over pixels where neither spectrum is black",
    "psnr_scaled": "PSNR of the estimate times the factor that minimises its squared error",
    "full": "whole frame, nothing clipped",
    "lit": f"pixels of the whole frame whose mean reflectance is above {metrics.LIT}; null without such pixels",
    "dimmed": "factor of the frame's brightness: metrics of the cube of the frame times the factor, divided by it",
    "without_data": "pixels and bands, nm, of a scene that count in no metric, because its file says they are no data",
    "ntire": "centre crop: a quarter of the longer side less on every side",
    "selfcheck": "reprojection residual, which needs no truth, against the true error; docs/selfcheck.md",
    "std": "sample standard deviation over scenes; null for one scene",
    "seconds": "wall time a scene; the first scene's includes all warm-up",
}
"""Key of a report → its definition; docs/metrics.md has the formulas."""


@dataclass(frozen=True, kw_only=True)
class CubeMetrics:
    """Metrics of one cube against the truth, or their mean or spread over several cubes.

    Attributes:
        mrae: Mean |d| / (Y + 0.02).
        mrae_ntire: Mean |d| / Y; inf where the truth holds zeros.
        rmse: Root mean square error, reflectance.
        psnr: Peak signal-to-noise ratio, dB.
        sam: Spectral angle, degrees.
        psnr_scaled: PSNR after the best factor for the estimate (``ccnet.metrics.best_factor``), dB.
        band_mrae: MRAE of each of the 31 bands.
        band_rmse: RMSE of each of the 31 bands, reflectance.
    """

    mrae: float
    mrae_ntire: float
    rmse: float
    psnr: float
    sam: float
    psnr_scaled: float
    band_mrae: tuple[float, ...]
    band_rmse: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Metrics over scenes.

    Attributes:
        mean: Mean of each metric.
        std: Sample standard deviation of each metric (n - 1); NaN for a single scene.
    """

    mean: CubeMetrics
    std: CubeMetrics


@dataclass(frozen=True, kw_only=True)
class SceneScore:
    """Result of one method on one scene.

    Attributes:
        scene: Name of the scene.
        full: Metrics of the whole frame.
        ntire: Metrics of NTIRE's centre crop.
        seconds: Wall time.
        lit: Metrics of the lit pixels of the whole frame; None where there are none.
        dimmed: Factor of brightness → metrics of the whole frame's cube at that brightness, divided by the factor.
        selfcheck: How well the reprojection residual predicts the true error (``ccnet.evaluation.selfcheck``); None
            where the camera's response is not known, and for corrected cubes.
        without_data: Number of pixels and the bands, nm, that do not count because the truth has no data there; None
            if all count.
    """

    scene: str
    full: CubeMetrics
    ntire: CubeMetrics
    seconds: float
    lit: CubeMetrics | None = None
    dimmed: Mapping[float, CubeMetrics] = field(default_factory=dict)
    selfcheck: Mapping[str, float] | None = None
    without_data: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cube that one method estimates for one scene, beside the truth.

    Attributes:
        index: Index of the scene in the data set.
        method: Name of the method.
        frame: (3, H, W).
        truth: (31, H, W).
        cube: Estimated cube (31, H, W).
        score: Metrics of the estimate.
    """

    index: int
    method: str
    frame: Array
    truth: Array
    cube: Array
    score: SceneScore


def evaluate_methods(
    methods: Mapping[str, Method],
    scenes: SceneDataset,
    brightness: Sequence[float] = (),
    corrected: Collection[str] = (),
) -> Iterator[Estimate]:
    """Apply every method to every whole scene; cubes are not kept.

    Args:
        methods: Name → method.
        scenes: Scenes with known truth.
        brightness: Factors of a frame's brightness at which every method is applied once more.
        corrected: Names of the methods whose cubes are judged after their correction by the frame, too.

    Yields:
        The estimates, all methods of a scene before the next scene.
    """
    for index, scene in enumerate(scenes.scenes):
        frame, truth = scenes.pair(index)
        camera, without_data = scenes.camera_of(index), describe_gaps(truth)
        for name, method in with_corrections(methods, corrected, camera).items():
            start = time.perf_counter()
            cube = method(frame)
            seconds = time.perf_counter() - start
            # A corrected cube explains its frame however wrong it is
            response = None if camera is None or name.endswith(CORRECTED_SUFFIX) else camera.frame_response
            score = SceneScore(
                scene=scene.name,
                full=cube_metrics(truth, cube),
                ntire=cube_metrics(metrics.ntire_crop(truth), metrics.ntire_crop(cube)),
                seconds=seconds,
                lit=lit_metrics(truth, cube),
                dimmed={factor: cube_metrics(truth, dimmed(method, frame, factor)) for factor in brightness},
                selfcheck=None if response is None else compare_residual_and_error(frame, truth, cube, response),
                without_data=without_data,
            )
            yield Estimate(index=index, method=name, frame=frame, truth=truth, cube=cube, score=score)


def cube_metrics(truth: Array, estimate: Array) -> CubeMetrics:
    """Return every metric of a cube (31, H, W) where the truth has data, which is not NaN; nothing is clipped."""
    known = known_values(truth)
    return CubeMetrics(
        mrae=metrics.mrae(truth, estimate, known=known),
        mrae_ntire=metrics.mrae(truth, estimate, 0, known),
        rmse=metrics.rmse(truth, estimate, known),
        psnr=metrics.psnr(truth, estimate, known),
        sam=metrics.sam(truth, estimate, known),
        psnr_scaled=metrics.psnr(truth, metrics.best_factor(truth, estimate, known) * estimate, known),
        band_mrae=tuple(metrics.band_mrae(truth, estimate, known=known).tolist()),
        band_rmse=tuple(metrics.band_rmse(truth, estimate, known).tolist()),
    )


def lit_metrics(truth: Array, estimate: Array) -> CubeMetrics | None:
    """Return the metrics of the pixels whose mean reflectance is above ``metrics.LIT``; None if there are none."""
    lit = known_mean(truth, 0) > metrics.LIT  # NaN, where the truth has no data, is not
    return cube_metrics(truth[:, lit][:, None], estimate[:, lit][:, None]) if lit.any() else None


def dimmed(method: Method, frame: Array, factor: float) -> Array:
    """Return a method's cube of the frame times a factor, divided by the factor: equal for all factors at best."""
    scale = np.float32(factor)
    return method(frame * scale) / scale


def summarise(results: Sequence[CubeMetrics]) -> Summary:
    """Return mean and spread of every metric over scenes; the mean is inf where a scene's value is inf.

    The mean of a band is over the scenes that have data in it.
    """
    columns = {
        name: np.array([getattr(result, name) for result in results]) for name in CubeMetrics.__dataclass_fields__
    }
    with np.errstate(invalid="ignore"):  # the spread of inf is inf - inf, NaN
        means = {
            name: column.mean(axis=0) if column.ndim == 1 else known_mean(column, 0) for name, column in columns.items()
        }
        stds = {
            name: column.std(axis=0, ddof=1) if len(column) > 1 else np.full(column.shape[1:], np.nan)
            for name, column in columns.items()
        }
    return Summary(mean=_metrics_from(means), std=_metrics_from(stds))


def _metrics_from(columns: Mapping[str, Any]) -> CubeMetrics:
    values: dict[str, Any] = {
        name: float(value) if name in SCALAR_METRICS else tuple(value.tolist()) for name, value in columns.items()
    }
    return CubeMetrics(**values)


def ensemble_gain_lines(scores: Mapping[str, Sequence[SceneScore]]) -> list[str]:
    """Return a line for each self-ensemble: its gain over the network alone on whole scenes, and its cost."""
    lines = []
    for method, ensemble in scores.items():
        single = scores.get(method.removesuffix(ENSEMBLE_SUFFIX), ensemble)
        if single is not ensemble:
            before, after = (summarise([score.full for score in part]).mean for part in (single, ensemble))
            cost = sum(score.seconds for score in ensemble) / sum(score.seconds for score in single)
            gain = f"MRAE {after.mrae - before.mrae:+.4f}, PSNR {after.psnr - before.psnr:+.2f} dB"
            lines.append(f"{method}: {gain}, for {cost:.1f} times the time")
    return lines


def selfcheck_lines(scores: Mapping[str, Sequence[SceneScore]]) -> list[str]:
    """Return a line for each method: its reprojection residual, and how well that ranks the true error."""
    lines = []
    for method, method_scores in scores.items():
        checks = [score.selfcheck for score in method_scores if score.selfcheck is not None]
        if checks:
            mean = {key: float(np.mean([check[key] for check in checks])) for key in checks[0]}
            order = _scene_order(method_scores) if len(checks) == len(method_scores) > 2 else ""
            lines.append(
                f"{method}: reprojection residual {mean['score']:.1%}, which ranks the true relative error with rho"
                f" {mean['rho relative']:.2f} (blocks {mean['block rho relative']:.2f}), AUC"
                f" {mean['auc relative']:.2f}; it cannot see {mean['unseen']:.1%} of the squared error{order}"
            )
    return lines


def _scene_order(scores: Sequence[SceneScore]) -> str:
    """Return how the mean residual ranks the scenes by MRAE and by spectral angle; at least three scenes."""
    residuals = np.array([score.selfcheck["score"] for score in scores if score.selfcheck is not None])
    by_mrae, by_angle = (
        rank_correlation(residuals, np.array([getattr(score.full, metric) for score in scores]))
        for metric in ("mrae", "sam")
    )
    return f"; it ranks the {len(scores)} scenes by MRAE with rho {by_mrae:.2f}, by SAM with rho {by_angle:.2f}"


def condition_summaries(scores: Sequence[SceneScore]) -> dict[str, Summary]:
    """Return ``lit`` and ``dimmed FACTOR`` → the summary of a method's scores; only what every scene has."""
    parts = {"lit": [score.lit for score in scores]}
    for factor in scores[0].dimmed:
        parts[f"dimmed {factor:g}"] = [score.dimmed.get(factor) for score in scores]
    present = {part: [result for result in results if result is not None] for part, results in parts.items()}
    return {part: summarise(results) for part, results in present.items() if len(results) == len(scores)}


def json_report(scores: Mapping[str, Sequence[SceneScore]]) -> dict[str, Any]:
    """Return the protocol, and method → its summaries and scores; plain values for JSON."""
    methods = {
        method: {
            "seconds": float(np.mean([score.seconds for score in method_scores])),
            "full": asdict(summarise([score.full for score in method_scores])),
            "ntire": asdict(summarise([score.ntire for score in method_scores])),
            **{part: asdict(summary) for part, summary in condition_summaries(method_scores).items()},
            "scenes": [asdict(score) for score in method_scores],
        }
        for method, method_scores in scores.items()
    }
    return {"protocol": PROTOCOL, "wavelengths_nm": list(BANDS_NM), "methods": methods}
