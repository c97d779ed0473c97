"""The patches of a colour chart in a photograph, found by OpenCV's detector (Macbeth ColorChecker module)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE, CCNetError
from ccnet.runtime.io.cameras.raw_file import is_raw, read_raw
from ccnet.runtime.io.files import optional_module, read_head
from ccnet.runtime.io.frames import picture_kind, read_frame

from .chart import PATCHES, Colours

Picture = npt.NDArray[np.float32]

SEARCH_SIDES = (1000, 2000)
"""Longest sides of the copies of a picture that the chart is searched in, one after the other, px."""

PATCH_SHARE = 0.7
"""Side of the middle of the detector's quadrangle whose pixels count."""

LARGEST_SPREAD = 0.15
"""Largest standard deviation within a bright patch, as a share of its mean: more is an edge, a shadow or a mistake."""

_SMALLEST_PATCH = 25
"""Fewest pixels of a patch."""


@dataclass(frozen=True, kw_only=True)
class ChartPatches:
    """The patches of a chart in a picture.

    Attributes:
        colours: (24, 3) linear means.
        places: (24, 2) middles x, y, from -1 to 1 over the picture.
        pixels: Pixels of the smallest patch.
    """

    colours: Colours
    places: Colours
    pixels: int


def read_linear(path: Path) -> tuple[Picture, str | None]:
    """Read a photograph of linear values.

    Args:
        path: A raw file; or PNG, TIFF or ``.npy`` of linear values. JPEG and its relatives have a tone curve.

    Returns:
        (H, W, 3) in [0, 1], and the camera's name if the file has it.

    Raises:
        CCNetError: The file cannot be read, or has a tone curve.
    """
    if is_raw(path):
        raw = read_raw(path)
        return np.asarray(raw) / np.float32(65535), raw.colour.radiometry.camera
    kind = picture_kind(path, read_head(path, "a photograph of a chart"))
    if kind not in ("Png", "Tiff", "npy"):
        raise CCNetError(f"{path}: {kind.upper()} has a tone curve, expected a raw file, or linear PNG, TIFF or .npy")
    frame = read_frame(path, as_stored=True)
    return np.divide(frame, FRAME_SCALE[frame.dtype.name], dtype=np.float32), None


def find_patches(picture: Picture) -> ChartPatches:
    """Find the chart's patches and their mean colours.

    Args:
        picture: (H, W, 3), linear, in [0, 1].

    Returns:
        The patches, in the chart's order however it is turned.

    Raises:
        CCNetError: There is no chart of 24 patches, its patches are small or uneven, or OpenCV is older than 5.
    """
    if not hasattr(optional_module("cv2"), "mcc"):
        raise CCNetError('this OpenCV cannot find charts: pip install "opencv-python-headless>=5"')
    side = max(picture.shape[:2])
    scales = (min(1.0, SEARCH_SIDES[0] / side), SEARCH_SIDES[1] / side)
    try:
        return _measure(picture, _find_corners(picture, scales[0]))
    except CCNetError:  # the detector misses small charts, and misplaces their patches, which are uneven then
        return _measure(picture, _find_corners(picture, scales[1]))


def _find_corners(picture: Picture, scale: float) -> npt.NDArray[np.float64]:
    """Return the corners (24, 4, 2) x, y of the patches in the picture, from a search in a copy of another size."""
    cv2 = optional_module("cv2")
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    copy = np.clip(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=interpolation), 0, 1)
    detector = cv2.mcc.CCheckerDetector_create()
    detector.setColorChartType(cv2.mcc.MCC24)
    if not detector.process(_for_detector(copy), 1):
        raise CCNetError("no ColorChecker of 24 patches found: let it fill a third of the picture, whole and sharp")
    corners = np.array(detector.getBestColorChecker().getColorCharts(), np.float64).reshape(-1, 4, 2) / scale
    if len(corners) != len(PATCHES):
        raise CCNetError(f"found a chart of {len(corners)} patches, expected {len(PATCHES)}")
    return corners


def _for_detector(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return the picture in 8 bits, BGR and gamma-encoded, with each channel at full scale."""
    high = np.maximum(np.percentile(picture.reshape(-1, 3), 99.5, axis=0), 1e-4)
    encoded = np.clip(picture / high, 0, 1) ** (1 / 2.2)
    return np.ascontiguousarray(np.rint(255 * encoded[..., ::-1]).astype(np.uint8))


def _measure(picture: Picture, corners: npt.NDArray[np.float64]) -> ChartPatches:
    cv2 = optional_module("cv2")
    height, width = picture.shape[:2]
    colours, counts = [], []
    middles = corners.mean(1)
    for name, middle, quadrangle in zip(PATCHES, middles, corners, strict=True):
        mask = np.zeros((height, width), np.uint8)
        inner = middle + PATCH_SHARE * (quadrangle - middle)
        cv2.fillConvexPoly(mask, np.rint(inner).astype(np.int32), 1)
        pixels = picture[mask > 0].astype(np.float64)
        if len(pixels) < _SMALLEST_PATCH:
            raise CCNetError(f"the patch {name} has {len(pixels)} px, expected {_SMALLEST_PATCH}: go nearer")
        mean = np.median(pixels, axis=0)
        if mean.max() > 0.1 and (spread := float(pixels.std(0).max() / mean.max())) > LARGEST_SPREAD:
            raise CCNetError(f"the patch {name} varies by {spread:.0%}: avoid shadows, reflections and blur")
        colours.append(pixels.mean(0))
        counts.append(len(pixels))
    places = 2 * middles / (width, height) - 1
    return ChartPatches(colours=np.array(colours), places=places, pixels=min(counts))
