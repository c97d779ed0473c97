"""How well predicted errors do on scenes with known truth: coverage, rank correlation, and the order of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccnet.metrics import MRAE_OFFSET, sam
from ccnet.metrics.predicted_error import ErrorModel, relative_half_width

from ..selfcheck import rank_correlation
from .samples import ScenePixels

if TYPE_CHECKING:
    from rich.table import Table

COVERAGE_RANGE = (0.85, 0.95)
"""Coverage of a scene that counts as right for a 90 % interval."""


@dataclass(frozen=True, kw_only=True)
class SceneCheck:
    """The predicted error of one scene beside the true error.

    Attributes:
        scene: Name of the scene.
        coverage: Share of the values whose true error is within the half width.
        rho: Spearman's rank correlation over pixels of half width and true error, both means over the bands.
        rho_relative: The same of the half width and the error relative to the spectrum.
        score: Mean relative half width, the number of the frame.
        mrae: MRAE of the pixels, |d| / (Y + 0.02).
        sam: Mean spectral angle, degrees.
    """

    scene: str
    coverage: float
    rho: float
    rho_relative: float
    score: float
    mrae: float
    sam: float


def check_scene(model: ErrorModel, pixels: ScenePixels, method: str) -> SceneCheck:
    """Compare the half widths of a model with the true errors of a method on one scene."""
    estimate, truth = pixels.estimates[method], pixels.truth
    half_width, error = model.half_width(pixels.frame, estimate), np.abs(estimate - truth)
    width = half_width.mean(axis=0)
    relative = relative_half_width(width, estimate.mean(axis=0))
    relative_error = (error / (np.abs(truth) + MRAE_OFFSET)).mean(axis=0)
    return SceneCheck(
        scene=pixels.name,
        coverage=float((error <= half_width).mean()),
        rho=rank_correlation(width, error.mean(axis=0)),
        rho_relative=rank_correlation(relative, relative_error),
        score=float(relative.mean()),
        mrae=float(relative_error.mean()),
        sam=sam(truth[:, None], estimate[:, None]),
    )


def report(checks: Sequence[SceneCheck]) -> dict[str, Any]:
    """Return the checks and their summary as plain values for JSON.

    Args:
        checks: Checks of scenes.

    Returns:
        ``scenes``, the number of them whose coverage is ``in_range``, and the rank correlations over scenes of the
        score with MRAE and SAM, and of these two with each other; NaN for fewer than three scenes.
    """
    columns = {name: np.array([getattr(check, name) for check in checks]) for name in ("score", "mrae", "sam")}
    pairs = {"order_mrae": ("score", "mrae"), "order_sam": ("score", "sam"), "mrae_sam": ("mrae", "sam")}
    low, high = COVERAGE_RANGE
    return {
        "coverage": float(np.mean([check.coverage for check in checks])),
        "in_range": sum(low <= check.coverage <= high for check in checks),
        **{
            name: rank_correlation(columns[a], columns[b]) if len(checks) > 2 else float("nan")
            for name, (a, b) in pairs.items()
        },
        "scenes": [asdict(check) for check in checks],
    }


def table(title: str, checks: Sequence[SceneCheck]) -> Table:
    """Lay out checks for a terminal of 80 columns."""
    from rich.table import Table

    found = Table(title=title, title_justify="left")
    found.add_column("scene", overflow="fold")
    for heading in ("coverage\n/ %", "rho\nabsolute", "rho\nrelative", "score\n/ %", "MRAE\n+0.02", "SAM\n/ °"):
        found.add_column(heading, justify="right", no_wrap=True)
    for check in checks:
        found.add_row(
            check.scene,
            f"{check.coverage:.1%}".rstrip("%"),
            f"{check.rho:.2f}",
            f"{check.rho_relative:.2f}",
            f"{check.score:.1%}".rstrip("%"),
            f"{check.mrae:.4f}",
            f"{check.sam:.2f}",
        )
    return found


def summary(checks: Sequence[SceneCheck]) -> str:
    """Return one line: coverage over the scenes, the smallest rank correlation, and the order of the scenes."""
    values, (low, high) = report(checks), COVERAGE_RANGE
    return (
        f"coverage {values['coverage']:.1%}, {values['in_range']} of {len(checks)} scenes within {low:.0%} to"
        f" {high:.0%}; rho of pixels at least {min(check.rho for check in checks):.2f}; the score ranks the scenes by"
        f" MRAE with rho {values['order_mrae']:.2f}, by SAM with {values['order_sam']:.2f} (MRAE by SAM:"
        f" {values['mrae_sam']:.2f})"
    )
