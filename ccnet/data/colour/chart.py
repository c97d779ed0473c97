"""A colour matrix from the 24 patches of a ColorChecker, with the light's unevenness estimated beside it.

Legend: 24 patches row by row, from dark skin to black; colours are linear (R, G, B).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, decode_errors_as
from ccnet.data.camera import Camera

from .matrix import fit_colours, read_surfaces

Colours = npt.NDArray[np.float64]

PATCHES = (
    *("dark skin", "light skin", "blue sky", "foliage", "blue flower", "bluish green"),
    *("orange", "purplish blue", "moderate red", "purple", "yellow green", "orange yellow"),
    *("blue", "green", "red", "yellow", "magenta", "cyan"),
    *("white", "neutral 8", "neutral 6.5", "neutral 5", "neutral 3.5", "black"),
)
"""Names of the patches."""

NEUTRALS = slice(19, 23)
"""The greys that the white balance is taken from: neither white, which may be clipped, nor black, which is noisy."""

CHART_COLOURS = Path(__file__).with_name("chart.json")
"""The patches as the shipped weights' camera sees them in equal energy, (24, 3), with their source."""

LARGEST_RESIDUAL, LARGEST_PATCH_RESIDUAL = 0.035, 0.10
"""Root mean square and largest residual of a chart, as shares of white, above which it is refused."""

_CLIPPED, _DARK = 0.98, 0.002
_ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class ChartFit:
    """The matrix of a photograph of a chart.

    Attributes:
        gains: White balance: factors of R, G and B, G's is 1.
        matrix: (3, 3), for white-balanced values; white is preserved.
        residuals: (24,) distance of each patch from its colour, as a share of white.
        falloff: Darkest light on a patch as a share of the brightest.
    """

    gains: tuple[float, float, float]
    matrix: Colours
    residuals: npt.NDArray[np.float64]
    falloff: float

    @property
    def residual(self) -> float:
        """Root mean square of the residuals."""
        return float(np.sqrt(np.mean(self.residuals**2)))


@functools.cache
def _shipped() -> dict[str, Any]:
    with decode_errors_as(CHART_COLOURS, "the package's chart: install it again"):
        return dict(json.loads(CHART_COLOURS.read_bytes()))


def chart_colours(target: Camera, spectra: Path | None) -> Colours:
    """Return the colours (24, 3) of the patches that the weights' camera sees.

    Args:
        target: The weights' camera.
        spectra: ``.npz`` or ``.npy`` of the patches' reflectances (24, 31), row by row; None for the shipped colours.

    Returns:
        The colours.

    Raises:
        CCNetError: The shipped colours are for another camera, or the file does not hold 24 spectra.
    """
    if spectra is not None:
        surfaces = read_surfaces(spectra)
        if len(surfaces) != len(PATCHES):
            raise CCNetError(f"{spectra}: {len(surfaces)} spectra, expected {len(PATCHES)}, the chart's row by row")
        return np.asarray(surfaces @ target.response, np.float64)
    document = _shipped()
    if document["target"] != target.name:
        raise CCNetError(
            f"the shipped chart is for the camera {document['target']}, the weights are for {target.name}: give the"
            " patches' reflectances with --spectra"
        )
    return np.array(document["colours"], np.float64)


def fit_chart(measured: Colours, wanted: Colours, places: Colours) -> ChartFit:
    """Fit white balance and matrix to the patches of a photograph.

    Light that falls off towards an edge, or a lens that does, changes the patches' brightness, not their colour. So
    a smooth factor over the picture (a quadratic polynomial) and the matrix are fitted in turns.

    Args:
        measured: (24, 3) linear means of the patches.
        wanted: (24, 3) colours of the weights' camera.
        places: (24, 2) positions x, y of the patches, from -1 to 1 over the picture.

    Returns:
        The fit.

    Raises:
        CCNetError: Patches are clipped or dark, or the residuals are too large for a chart.
    """
    _check_exposure(measured)
    balance = _white_balance(measured)
    colours = measured * balance
    x, y = places.T
    terms = np.stack([np.ones(len(places)), x, y, x**2 + y**2], axis=1)
    light = np.ones(len(places))
    for _ in range(_ROUNDS):
        even = colours / light[:, None]
        even *= wanted[NEUTRALS].mean() / even[NEUTRALS].mean()
        matrix = fit_colours(even, wanted)
        ratio = np.log(np.maximum((colours @ matrix.T).mean(1), 1e-6) / wanted.mean(1))
        weights = np.sqrt(wanted.mean(1))  # the black patch tells little of the light
        light = np.exp(terms @ np.linalg.lstsq(terms * weights[:, None], ratio * weights, rcond=None)[0])
    residuals = np.sqrt(np.mean((even @ matrix.T - wanted) ** 2, axis=1))
    red, green, blue = balance.tolist()
    fit = ChartFit(
        gains=(red, green, blue), matrix=matrix, residuals=residuals, falloff=float(light.min() / light.max())
    )
    _check_residuals(fit)
    return fit


def _white_balance(measured: Colours) -> Colours:
    grey = measured[NEUTRALS].mean(0)
    return np.asarray(grey[1] / grey)


def _check_exposure(measured: Colours) -> None:
    for name, colour in zip(PATCHES, measured, strict=True):
        if colour.max() > _CLIPPED:
            raise CCNetError(f"the patch {name} is clipped ({colour.max():.2f} of full scale): expose less")
    if (lowest := measured[NEUTRALS].min()) < _DARK:
        raise CCNetError(f"the grey patches are dark ({lowest:.4f} of full scale): expose more")


def _check_residuals(fit: ChartFit) -> None:
    worst = int(fit.residuals.argmax())
    if fit.residual > LARGEST_RESIDUAL or fit.residuals[worst] > LARGEST_PATCH_RESIDUAL:
        raise CCNetError(
            f"the patches do not have the chart's colours: {fit.residual:.1%} of white off (RMS), {PATCHES[worst]}"
            f" {fit.residuals[worst]:.1%}, expected at most {LARGEST_RESIDUAL:.1%} and {LARGEST_PATCH_RESIDUAL:.0%}:"
            " use linear values, one light, no reflections"
        )
