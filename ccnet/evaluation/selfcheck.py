"""How well the reprojection residual (``ccnet.metrics.reprojection``) predicts the true error, where that is known.

Legend: a frame is (3, H, W), a cube (31, H, W), a response (31, 3); a map is (H, W), larger where worse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.metrics import MRAE_OFFSET
from ccnet.metrics.reprojection import residual

Cube = npt.NDArray[np.floating]
Map = npt.NDArray[np.float64]

BLOCK = 16
"""Side, px, of the blocks whose means are ranked, too: a user looks at regions."""

WORST = 0.1
"""Share of the pixels that are to be found."""


def prediction(frame: Cube, cube: Cube, estimate: Cube, response: npt.NDArray[np.float32]) -> dict[str, float]:
    """How the residual of an estimate ranks its pixels, against how the true error does; saturated pixels left out.

    cube: the truth. The keys, of which those of the errors come for ``relative`` (MRAE with offset 0.02) and
    ``absolute`` (mean |Y - Ŷ|), per pixel:

    - ``score``: mean residual;
    - ``unseen``: see ``unseen_share``;
    - ``rho ERROR``, ``block rho ERROR``: Spearman's rank correlation, of pixels and of the means of 16×16 blocks;
    - ``auc ERROR``: chance that a pixel of the worst tenth has the larger residual than one of the others.

    NaN where nothing can be ranked: all the same, all saturated, or less than two blocks.
    """
    guess = residual(frame, estimate, response).astype(np.float64)
    distance = np.abs(estimate.astype(np.float64) - cube)
    errors = {"relative": (distance / (np.abs(cube) + MRAE_OFFSET)).mean(0), "absolute": distance.mean(0)}
    lit = np.isfinite(guess)
    result = {
        "score": float(guess[lit].mean()) if lit.any() else float("nan"),
        "unseen": unseen_share(cube, estimate, response),
    }
    for name, error in errors.items():
        result[f"rho {name}"] = spearman(guess[lit], error[lit])
        result[f"block rho {name}"] = spearman(*_blocks(guess, error))
        result[f"auc {name}"] = auc(guess[lit], error[lit])
    return result


def unseen_share(cube: Cube, estimate: Cube, response: npt.NDArray[np.float32]) -> float:
    """Share of the squared error in the null space of the response, which no check against the frame can see."""
    error = estimate.reshape(len(estimate), -1).astype(np.float64) - cube.reshape(len(cube), -1)
    basis, _ = np.linalg.qr(response.astype(np.float64))  # (31, 3), orthonormal: what the camera sees
    total = np.square(error).sum()
    return float(1 - np.square(basis.T @ error).sum() / total) if total else float("nan")


def spearman(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Rank correlation, ties at their mean rank; NaN where one of them is constant, or there is none."""
    if not a.size:
        return float("nan")
    ranks = np.array([_ranks(a), _ranks(b)])
    deviations = ranks - ranks.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.square(deviations).sum(axis=1).prod())
    return float(deviations.prod(axis=0).sum() / norm) if norm else float("nan")


def auc(guess: npt.NDArray[Any], error: npt.NDArray[Any], share: float = WORST) -> float:
    """Area under the ROC curve of ``guess`` for finding the ``share`` of largest errors; 0.5 is chance."""
    if not error.size:
        return float("nan")
    worst = error > np.quantile(error, 1 - share)
    found, others = np.count_nonzero(worst), np.count_nonzero(~worst)
    if not found or not others:
        return float("nan")
    # Mann and Whitney's U from the ranks, which start at 1
    return float((_ranks(guess)[worst].sum() - found * (found + 1) / 2) / (found * others))


def _ranks(values: npt.NDArray[Any]) -> Map:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Map = (np.cumsum(counts) - (counts - 1) / 2)[inverse.ravel()]
    return ranks


def _blocks(guess: Map, error: Map) -> tuple[Map, Map]:
    """Means over whole blocks that have pixels to judge, each over the same pixels of both."""
    rows, columns = (size // BLOCK for size in guess.shape)

    def sums(values: npt.NDArray[Any]) -> Map:
        cut = values[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
        total: Map = cut.reshape(rows, BLOCK, columns, BLOCK).sum(axis=(1, 3)).ravel()
        return total

    lit = np.isfinite(guess)
    counts = sums(lit)
    some = counts > 0
    first, second = (sums(np.where(lit, values, 0))[some] / counts[some] for values in (guess, error))
    return first, second
