"""Methods judged on the same scenes: every metric, whole and in NTIRE's crop, with spread over scenes and time.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32. docs/metrics.md defines every figure.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ccnet import metrics
from ccnet.contract import BANDS_NM
from ccnet.data.camera import Array
from ccnet.data.patches import SceneDataset
from ccnet.model import CCNet
from ccnet.training.trainer import infer

from .baselines import fit_regressions, fit_relative
from .selfcheck import prediction

Infer = Callable[[Array], Array]
"""frame (3, H, W) → cube (31, H, W)."""

SCALARS = ("mrae", "mrae_ntire", "rmse", "psnr", "sam")
"""The fields of Measures that are one number."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One cube against its truth, or the mean or spread of many.

    mrae: |d| / (Y + 0.02). mrae_ntire: |d| / Y, inf where the truth holds zeros. psnr: dB. sam: degrees.
    band_mrae, band_rmse: of each of the 31 bands.
    """

    mrae: float
    mrae_ntire: float
    rmse: float
    psnr: float
    sam: float
    band_mrae: tuple[float, ...]
    band_rmse: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Over scenes: the mean, and the sample standard deviation (n - 1; NaN for a single scene)."""

    mean: Measures
    std: Measures


@dataclass(frozen=True, kw_only=True)
class Score:
    """One method on one scene: the whole frame, NTIRE's centre crop, and the wall time in seconds.

    selfcheck: how well the check that needs no truth predicts the true error (``ccnet.evaluation.selfcheck``); None
    where the camera's response is not known.
    """

    scene: str
    full: Measures
    ntire: Measures
    seconds: float
    selfcheck: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one method made of one scene, beside the truth. index: the scene's place in the data."""

    index: int
    method: str
    frame: Array
    truth: Array
    cube: Array
    score: Score


REGRESSIONS = {"linear": 1, "root-polynomial 2": 2, "root-polynomial 3": 3}
"""Method → degree."""

RELATIVE = "root-poly. 3, rel."
"""The same with relative weights, ``fit_relative``."""

PROTOCOL = {
    "mrae": f"mean |d| / (Y + {metrics.MRAE_OFFSET})",
    "mrae_ntire": "mean |d| / Y; null where the truth holds zeros",
    "rmse": "of all pixels and bands",
    "psnr": "dB, peak 1, of the error over all bands",
    "sam": "degrees, mean over pixels where neither spectrum is black",
    "full": "whole frame, nothing clipped",
    "ntire": "centre crop: a quarter of the longer side less on every side",
    "selfcheck": "the check without truth against the true error; docs/selfcheck.md",
    "std": "sample standard deviation over scenes; null for one scene",
    "seconds": "wall time a scene, the first one's with all warm-up",
}
"""What the figures of a report are, in its own words; docs/metrics.md has the formulas."""

_ENSEMBLE = " + ensemble"


def method_names(weights: Sequence[Path]) -> dict[str, Path]:
    """What to call files of weights: one is CCNet, each of several its stem, or its path where stems are not enough."""
    if len(weights) == 1:
        return {"CCNet": weights[0]}
    stems = {path.stem: path for path in weights}
    unique = len(stems.keys() - {*REGRESSIONS, RELATIVE}) == len(weights)
    return stems if unique else {str(path): path for path in weights}


def networks(models: Mapping[str, CCNet], scales: Sequence[float] = ()) -> dict[str, Infer]:
    """The methods that networks are; with scales, each one's ensemble after it."""
    methods: dict[str, Infer] = {}
    for name, model in models.items():
        methods[name] = once = partial(infer, model)
        if scales:
            methods[name + _ENSEMBLE] = partial(ensemble, once, scales=scales)
    return methods


def regressions(views: SceneDataset) -> dict[str, Infer]:
    """What needs no network, fitted on every whole scene, which is read twice."""

    def pairs() -> Iterator[tuple[Array, Array]]:
        return map(views.pair, range(len(views)))

    fitted = [*fit_regressions(pairs(), list(REGRESSIONS.values())), fit_relative(pairs())]
    return dict(zip((*REGRESSIONS, RELATIVE), fitted, strict=True))


def measure(truth: Array, estimate: Array) -> Measures:
    """Every metric of a cube (31, H, W), nothing clipped."""
    return Measures(
        mrae=metrics.mrae(truth, estimate),
        mrae_ntire=metrics.mrae(truth, estimate, 0),
        rmse=metrics.rmse(truth, estimate),
        psnr=metrics.psnr(truth, estimate),
        sam=metrics.sam(truth, estimate),
        band_mrae=tuple(metrics.band_mrae(truth, estimate).tolist()),
        band_rmse=tuple(metrics.band_rmse(truth, estimate).tolist()),
    )


def summarise(measures: Sequence[Measures]) -> Summary:
    """Mean and spread of every figure over scenes (or over seeds); inf where one of them is inf."""
    columns = {name: np.array([getattr(one, name) for one in measures]) for name in Measures.__dataclass_fields__}
    with np.errstate(invalid="ignore"):  # inf - inf: no spread
        means = {name: column.mean(axis=0) for name, column in columns.items()}
        stds = {
            name: column.std(axis=0, ddof=1) if len(column) > 1 else np.full(column.shape[1:], np.nan)
            for name, column in columns.items()
        }
    return Summary(mean=_measures(means), std=_measures(stds))


def _measures(columns: Mapping[str, Any]) -> Measures:
    values: dict[str, Any] = {n: float(v) if n in SCALARS else tuple(v.tolist()) for n, v in columns.items()}
    return Measures(**values)


def compare(methods: Mapping[str, Infer], views: SceneDataset) -> Iterator[Estimate]:
    """Every method on every whole scene; all methods of a scene, then the next scene, and nothing is kept."""
    for index, scene in enumerate(views.scenes):
        frame, truth = views.pair(index)
        for method, estimate in methods.items():
            start = time.perf_counter()
            cube = estimate(frame)
            seconds = time.perf_counter() - start
            whole, crop = measure(truth, cube), measure(metrics.ntire_crop(truth), metrics.ntire_crop(cube))
            camera = views.camera_of(index)
            checked = prediction(frame, truth, cube, camera.response) if camera else None
            score = Score(scene=scene.name, full=whole, ntire=crop, seconds=seconds, selfcheck=checked)
            yield Estimate(index=index, method=method, frame=frame, truth=truth, cube=cube, score=score)


def ensemble(estimate: Infer, frame: Array, scales: Sequence[float] = (1.0,)) -> Array:
    """The mean cube of a frame's eight mirrored and rotated views, at each scale, each brought back.

    frame (3, H, W) → cube (31, H, W), for eight times the work a scale. MST++'s toolbox does the same at scale 1.
    """
    size = frame.shape[1:]
    total = np.zeros((1, *size), np.float64)
    for scale, turns, mirrored in itertools.product(scales, range(4), (False, True)):
        view = _resized(frame, tuple(max(1, round(scale * side)) for side in size))
        view = np.rot90(view[:, :, ::-1] if mirrored else view, turns, axes=(1, 2))
        cube = np.rot90(estimate(np.ascontiguousarray(view)), -turns, axes=(1, 2))
        total = total + _resized(np.ascontiguousarray(cube[:, :, ::-1] if mirrored else cube), size)
    return np.asarray(total / (8 * len(scales)), np.float32)


def _resized(image: Array, size: tuple[int, ...]) -> Array:
    """Bilinear, over the pixels that a smaller one covers."""
    if image.shape[1:] == size:
        return image
    shape = [size[0], size[1]]
    resized: Array = F.interpolate(torch.from_numpy(image)[None], shape, mode="bilinear", antialias=True)[0].numpy()
    return resized


def gains(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """One line for each ensemble: what it gains over whole scenes, and what it costs."""
    lines = []
    for method, of_method in scores.items():
        alone = scores.get(method.removesuffix(_ENSEMBLE), of_method)
        if alone is not of_method:
            before, after = (summarise([score.full for score in those]).mean for those in (alone, of_method))
            times = sum(score.seconds for score in of_method) / sum(score.seconds for score in alone)
            gain = f"MRAE {after.mrae - before.mrae:+.4f}, PSNR {after.psnr - before.psnr:+.2f} dB"
            lines.append(f"{method}: {gain}, for {times:.1f} times the time")
    return lines


def selfchecks(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """One line for each method: what the check that needs no truth says, and how well it ranks the true error."""
    lines = []
    for method, of_method in scores.items():
        checks = [score.selfcheck for score in of_method if score.selfcheck is not None]
        if checks:
            mean = {key: float(np.mean([check[key] for check in checks])) for key in checks[0]}
            lines.append(
                f"{method}: reprojection residual {mean['score']:.1%}, which ranks the true relative error with rho"
                f" {mean['rho relative']:.2f} (blocks {mean['block rho relative']:.2f}), AUC"
                f" {mean['auc relative']:.2f}; it cannot see {mean['unseen']:.1%} of the squared error"
            )
    return lines


def report(scores: Mapping[str, Sequence[Score]]) -> dict[str, Any]:
    """The protocol, and method → summaries and every scene's figures; plain values for JSON."""
    methods = {
        method: {
            "seconds": float(np.mean([score.seconds for score in of_method])),
            "full": asdict(summarise([score.full for score in of_method])),
            "ntire": asdict(summarise([score.ntire for score in of_method])),
            "scenes": [asdict(score) for score in of_method],
        }
        for method, of_method in scores.items()
    }
    return {"protocol": PROTOCOL, "wavelengths_nm": list(BANDS_NM), "methods": methods}
