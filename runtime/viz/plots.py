"""What people look at: a cube in colour, and one picture of a frame, its cube, some bands and some spectra.

Legend: a frame is (H, W, 3), a cube (31, H, W) float, reflectance; a mark is a pixel (y, x).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, FRAME_SCALE, CCNetError, write_atomic
from ccnet.runtime.io.files import optional_module
from ccnet.runtime.io.frames import Frame
from ccnet.runtime.quality.sampling import farthest_points

Cube = npt.NDArray[np.floating]
Image = npt.NDArray[np.uint8]

LONGEST = 1024
"""Longest side of what a picture shows, px; larger frames and cubes are thinned to every n-th pixel."""

SHOWN_NM = (450, 520, 590, 660)

_WIDTH = 12.6  # of a picture, inches

_MOST_SHOWN = 0.2  # of relative residuals
_UNJUDGED = "#56b4e9"

_TILE = 96  # px, of a comparison's worst tile

_ROWS = 64  # of a cube that are rendered at a time

_MARK_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7")  # Okabe and Ito's, told apart by all eyes
_MARK_SIGNS = "osD^"
_MARK_GRID = 48  # longest side of the grid of pixels among which marks are chosen
_LIT = 0.25  # a mark's least brightness, of the frame's brightest
_PLACE = 0.1  # weight of a mark's place beside its chromaticity, which alone cannot choose in a grey frame

# fmt: off
_D65 = (
    82.75, 91.49, 93.43, 86.68, 104.87, 117.01, 117.81, 114.86, 115.92, 108.81, 109.35, 107.80, 104.79, 107.69, 104.41,
    104.05, 100.00, 96.33, 95.79, 88.69, 90.01, 89.60, 87.70, 83.29, 83.70, 80.03, 80.21, 82.28, 78.28, 69.72, 71.61,
)
# fmt: on
"""Relative power of CIE's standard illuminant D65 in the 31 bands. sRGB's white is D65: nothing is adapted."""

_LOBES = (
    ((1.056, 599.8, 37.9, 31.0), (0.362, 442.0, 16.0, 26.7), (-0.065, 501.1, 20.4, 26.2)),
    ((0.821, 568.8, 46.9, 40.5), (0.286, 530.9, 16.3, 31.1)),
    ((1.217, 437.0, 11.8, 36.0), (0.681, 459.0, 26.0, 13.8)),
)
"""CIE 1931 x̄, ȳ, z̄ as sums of lobes: height, peak (nm), width (nm) below and above it.

Wyman, Sloan and Shirley, "Simple Analytic Approximations to the CIE XYZ Color Matching Functions", JCGT 2(2), 2013.
"""

_XYZ_TO_SRGB = (
    (3.2406, -1.5372, -0.4986),
    (-0.9689, 1.8758, 0.0415),
    (0.0557, -0.2040, 1.0570),
)
"""XYZ → linear sRGB, IEC 61966-2-1."""


def render(cube: Cube) -> Image:
    """The cube in colour under daylight (D65), (H, W, 3) sRGB; reflectance 1 in all bands is white, the rest clips."""
    matrix = _reflectance_to_srgb()
    image = np.empty((*cube.shape[1:], 3), np.uint8)
    for top in range(0, image.shape[0], _ROWS):
        image[top : top + _ROWS] = _encode(np.tensordot(cube[:, top : top + _ROWS], matrix, axes=(0, 1)))
    return image


def _reflectance_to_srgb() -> npt.NDArray[np.float32]:
    """(3, 31) matrix to linear sRGB."""
    nm = np.array(BANDS_NM, float)
    matching = np.array([sum(_lobe(nm, *lobe) for lobe in lobes) for lobes in _LOBES])
    matrix = np.array(_XYZ_TO_SRGB) @ (matching * np.array(_D65))
    # White is exact, also with a spectrum that is cut at 400 and 700 nm and sampled every 10
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), np.float32)


def _lobe(nm: npt.NDArray[Any], height: float, peak: float, below: float, above: float) -> npt.NDArray[Any]:
    width = np.where(nm < peak, below, above)
    return height * np.exp(-0.5 * ((nm - peak) / width) ** 2)


def _encode(linear: npt.NDArray[Any]) -> Image:
    """Linear light in [0, 1], clipped, with sRGB's transfer function as uint8."""
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * encoded), np.uint8)


class Thumbnail:
    """Every n-th pixel of a cube that goes by strip by strip; a CubeWriter, for frames whose cube no memory holds."""

    def __init__(self, height: int, width: int, bands: int = len(BANDS_NM)) -> None:
        self._step = _step(height, width)
        self.cube = np.zeros((bands, -(-height // self._step), -(-width // self._step)), np.float32)

    def write(self, top: int, strip: npt.NDArray[np.float32]) -> None:
        """Rows ``top`` to ``top + h`` of the cube, from a strip (bands, h, W)."""
        first = -(-top // self._step)
        kept = strip[:, first * self._step - top :: self._step, :: self._step]
        self.cube[:, first : first + kept.shape[1]] = kept

    def thin(self, frame: Frame) -> Frame:
        """The frame's pixels where the cube's are."""
        return frame[:: self._step, :: self._step]


def _step(height: int, width: int) -> int:
    return math.ceil(max(height, width) / LONGEST)


def picture(frame: Frame, cube: Cube, path: Path, *, marks: Sequence[tuple[int, int]] | None = None) -> None:
    """Draw a PNG: the frame beside the cube in daylight, three bands in grey, and the spectra of marked pixels.

    All scales are fixed: reflectance 0 is black and 1 is white, in colour and in grey. ``marks`` are up to four
    pixels; None chooses four of different colours, always the same ones. CCNetError where it cannot be written.
    """
    check_picture(path)
    if cube.shape[1:] != frame.shape[:2]:
        raise ValueError(f"cube is {cube.shape}, expected it as high and wide as the frame, {frame.shape}")
    step = _step(*frame.shape[:2])
    frame, cube = frame[::step, ::step], cube[:, ::step, ::step]
    places = choose_marks(frame) if marks is None else [(y // step, x // step) for y, x in marks]

    save_figure(_figure(frame, cube, places), path)


def heat_map(frame: Frame, residuals: npt.NDArray[np.floating], title: str, path: Path) -> None:
    """Draw a PNG: the frame beside a map (H, W) of relative residuals on a fixed scale; NaN, where saturated, is blue.

    CCNetError where it cannot be written.
    """
    check_picture(path)
    if residuals.shape != frame.shape[:2]:
        raise ValueError(f"map is {residuals.shape}, expected it as high and wide as the frame, {frame.shape}")
    aspect = min(max(frame.shape[0] / frame.shape[1], 0.5), 1.5)
    figure = new_figure(_WIDTH, aspect * _WIDTH / 2 + 0.6)
    left, right = figure.subplots(1, 2)
    _show(left, "RGB frame", _bytes(frame))
    colours = optional_module("matplotlib").colormaps["magma"].with_extremes(bad=_UNJUDGED, over="white")
    image = right.imshow(100 * residuals, cmap=colours, vmin=0, vmax=100 * _MOST_SHOWN, interpolation="nearest")
    right.set_title(title)
    right.set_axis_off()
    figure.colorbar(image, ax=right, extend="max", label="|reprojected - frame| / (frame + 0.02), %")
    save_figure(figure, path)


def difference(
    frame: Frame,
    differences: npt.NDArray[np.floating],
    pixel: tuple[int, int],
    expected: npt.NDArray[np.floating],
    found: npt.NDArray[np.floating],
    title: str,
    path: Path,
) -> None:
    """Draw a PNG: where a cube differs from its reference, its worst tile enlarged, and the worst pixel's spectra.

    differences: (H, W), the largest over the bands; of every tile the largest is shown, so that none is thinned away.
    pixel: (y, x) of the largest. expected, found: spectra (31,) there. CCNetError where it cannot be written.
    """
    check_picture(path)
    (height, width), (y, x) = differences.shape, pixel
    top, left = (max(0, min(at - _TILE // 2, size - _TILE)) for at, size in ((y, height), (x, width)))
    tile = np.s_[top : top + _TILE, left : left + _TILE]
    figure = new_figure(_WIDTH, 6.6)
    (whole, pixels), (enlarged, spectra) = figure.subplots(2, 2)
    scale = {"cmap": "magma", "vmin": 0, "vmax": float(differences.max()) or 1.0, "interpolation": "nearest"}
    step = _step(height, width)
    blocks = np.maximum.reduceat(
        np.maximum.reduceat(differences, np.arange(0, height, step)), np.arange(0, width, step), 1
    )
    image = whole.imshow(blocks, extent=(-0.5, width - 0.5, height - 0.5, -0.5), **scale)
    box = optional_module("matplotlib.patches").Rectangle
    whole.add_patch(box((left, top), min(_TILE, width), min(_TILE, height), fill=False, color=_UNJUDGED, linewidth=1.5))
    whole.set_title(title)
    _show(pixels, "Worst tile of the frame", _bytes(frame[tile]))
    enlarged.imshow(differences[tile], **scale)
    enlarged.set_title("Worst tile, enlarged")
    for axes in (whole, enlarged):
        axes.set_axis_off()
    figure.colorbar(image, ax=whole, label="largest |difference| of the bands")
    spectra.plot(BANDS_NM, expected, color="0.2", linewidth=3, label="reference")
    spectra.plot(BANDS_NM, found, color=_MARK_COLOURS[0], linewidth=1.5, linestyle="--", label="compared")
    spectra.set(title=f"Spectra at the worst pixel, x {x}, y {y}", xlabel="wavelength / nm", ylabel="reflectance")
    spectra.legend(frameon=False)
    spectra.grid(color="0.9")
    spectra.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def check_picture(path: Path) -> None:
    """CCNetError where ``path`` cannot become a picture, before hours go into what it is to show."""
    if path.suffix.lower() != ".png":
        raise CCNetError(f"{path}: unknown picture format {path.suffix!r}, expected .png")
    if path.is_dir():
        raise CCNetError(f"{path}: is a directory, expected a file name for the picture")
    if not path.parent.is_dir():
        raise CCNetError(f"{path}: the folder {path.parent} does not exist; make it first")


def choose_marks(frame: Frame) -> list[tuple[int, int]]:
    """Up to four pixels, each as far from the others in chromaticity as can be (farthest-point sampling).

    They are the centres of grid cells that are lit and of even colour: a spectrum on an edge is of no material.
    """
    sizes = frame.shape[:2]
    y_step, x_step = (math.ceil(size / _MARK_GRID) for size in sizes)
    rows, columns = sizes[0] // y_step, sizes[1] // x_step
    cells = frame[: rows * y_step, : columns * x_step].reshape(rows, y_step, columns, x_step, 3).astype(np.float32)
    colours, spread = cells.mean(axis=(1, 3)), cells.std(axis=(1, 3)).max(axis=-1)
    brightness = colours.max(axis=-1)
    good = (brightness >= _LIT * brightness.max()) & (spread <= np.median(spread))
    if not good.any():
        good = brightness == brightness.max()

    places = np.argwhere(good) * (y_step, x_step) + (y_step // 2, x_step // 2)
    chromaticity = colours[good] / np.maximum(colours[good].sum(axis=1, keepdims=True), 1e-9)
    features = np.hstack([chromaticity, _PLACE * places / sizes])
    first = int(np.linalg.norm(features - features.mean(axis=0), axis=1).argmax())
    chosen = farthest_points(features, first, len(_MARK_COLOURS))
    return [(int(y), int(x)) for y, x in places[chosen]]


def _figure(frame: Frame, cube: Cube, marks: Sequence[tuple[int, int]]) -> Any:
    """Frame, colours and spectra above, the bands below, as high as the frame's shape asks for."""
    aspect = min(max(frame.shape[0] / frame.shape[1], 0.5), 1.5)
    heights = [aspect * _WIDTH / 3 + 0.6, aspect * _WIDTH / len(SHOWN_NM) + 0.3]
    figure = new_figure(_WIDTH, sum(heights))
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    left, middle, right = above.subplots(1, 3)

    _show(left, "RGB frame", _bytes(frame))
    _show(middle, "Reconstructed cube in daylight (D65)", render(cube))
    _plot(left, right, cube, marks)
    for axes, nm in zip(below.subplots(1, len(SHOWN_NM)), SHOWN_NM, strict=True):
        _show(axes, f"{nm} nm", _encode(cube[BANDS_NM.index(nm)]))
    return figure


def _show(axes: Any, title: str, image: Image) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title)
    axes.set_axis_off()


def _plot(image_axes: Any, axes: Any, cube: Cube, marks: Sequence[tuple[int, int]]) -> None:
    """The marks on the frame, and their spectra."""
    for (y, x), colour, sign in zip(marks, _MARK_COLOURS, _MARK_SIGNS, strict=False):
        style = {"color": colour, "marker": sign, "markeredgecolor": "white"}
        image_axes.plot(x, y, markersize=11, markeredgewidth=1.6, **style)
        axes.plot(BANDS_NM, cube[:, y, x], linewidth=2, markersize=7, markevery=5, clip_on=False, **style)
    spectra = np.array([cube[:, y, x] for y, x in marks])
    axes.set_ylim(min(0, spectra.min()), max(1.05 * spectra.max(), 0.1))
    axes.set_xlim(BANDS_NM[0], BANDS_NM[-1])
    axes.set(title="Spectra at the marks", xlabel="wavelength / nm", ylabel="reflectance")
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def new_figure(width: float, height: float) -> Any:
    """An empty figure of matplotlib's, in inches; without pyplot, and so without global state."""
    figure = optional_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    optional_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """As a PNG, whole or not at all; CCNetError where it cannot be written."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    write_atomic(path, file.getvalue())


def _bytes(frame: Frame) -> Image:
    scale = 255 / FRAME_SCALE[frame.dtype.name]
    return np.asarray(np.rint(frame * np.float32(scale)), np.uint8)
