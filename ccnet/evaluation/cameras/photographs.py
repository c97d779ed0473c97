"""The network on photographs (JPEG) that are rendered from cubes: what exposure, tone curve and white balance cost.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ccnet.contract import Manifest
from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset
from ccnet.evaluation.methods import Method
from ccnet.evaluation.validation import ValidationScore, mean_score, score_cube
from ccnet.metrics import best_factor
from ccnet.runtime.io.cameras.adjustment import Adjustment
from ccnet.runtime.io.cameras.preparation import FramePreparation
from ccnet.runtime.io.srgb import TO_CIE, encode, linear
from ccnet.runtime.viz.render import encode_srgb

Image = npt.NDArray[np.float64]

JPEG_QUALITY = 92
CLIPPED_SHARE = 99.0
"""Automatic exposure of a camera brings this percentile of the brightest channel to 1."""

WARM = np.array([1.25, 1.0, 0.65])
"""Gains of a white balance that leaves tungsten light warm."""


@dataclass(frozen=True)
class Photograph:
    """A way to take and to read a photograph.

    Attributes:
        name: Row of the table.
        take: (linear sRGB (H, W, 3)) → what the camera makes of it, linear, before the gamma.
        adjust: What ``--exposure`` and ``--white`` do afterwards: frame (linear) → an Adjustment.
    """

    name: str
    take: Callable[[Image], Image]
    adjust: Adjustment = Adjustment()  # noqa: RUF009 - frozen


def _auto_exposure(light: Image) -> Image:
    return light / max(float(np.percentile(light.max(2), CLIPPED_SHARE)), 1e-3)


def _tone_curve(light: Image) -> Image:
    """Return a usual rendering: an S-curve on the encoded values, and a fifth more saturation."""
    encoded = encode(np.clip(light, 0, 1))
    curved = encoded + 0.15 * np.sin(2 * np.pi * (encoded - 0.5)) * 0.5 * (1 - np.abs(2 * encoded - 1)) + 0.05 * encoded
    grey = curved.mean(2, keepdims=True)
    return linear(np.clip(grey + 1.2 * (curved - grey), 0, 1))


def _one_stop_brighter(light: Image) -> Image:
    return 2 * light


def _warm(light: Image) -> Image:
    return light * WARM


PHOTOGRAPHS = (
    Photograph("right exposure and white balance", lambda light: light),
    Photograph("automatic exposure", _auto_exposure),
    Photograph("automatic exposure, read with `--exposure auto`", _auto_exposure, Adjustment(exposure="auto")),
    Photograph("one EV too bright", _one_stop_brighter),
    Photograph("one EV too bright, read with `--exposure -1`", _one_stop_brighter, Adjustment(exposure=-1)),
    Photograph("warm white balance", _warm),
    Photograph("warm white balance, read with `--white auto`", _warm, Adjustment(white="auto")),
    Photograph("tone curve and saturation", _tone_curve),
)
"""Rows of the table."""


def study_photographs(
    network: Method, target: Camera, scenes: SceneDataset
) -> Iterator[tuple[str, ValidationScore, ValidationScore]]:
    """Judge the network on photographs of the scenes.

    Args:
        network: The network, for frames of the weights' camera.
        target: The weights' camera, whose frames the photographs are rendered from.
        scenes: Scenes with known truth.

    Yields:
        Name of the row, mean metrics, and mean metrics after the best factor for each scene.
    """
    manifest = Manifest(config={}, weights_sha256="", context_size=0, input="float32", tools={})
    for photograph in PHOTOGRAPHS:
        prepare = FramePreparation(manifest, "srgb", None, photograph.adjust)
        plain, scaled = [], []
        for scene in scenes.scenes:
            cube = scene.read_cube()
            frame = prepare(_jpeg(photograph.take(_linear_srgb(target.frame(cube)))))
            estimate = network(np.ascontiguousarray(frame.transpose(2, 0, 1)))
            plain.append(score_cube(cube, estimate))
            scaled.append(score_cube(cube, estimate * np.float32(best_factor(cube, estimate))))
        yield photograph.name, mean_score(plain), mean_score(scaled)


def _linear_srgb(frame: Array) -> Image:
    """Return linear sRGB (H, W, 3) of a frame (3, H, W) of the weights' camera, the inverse of reading a photograph."""
    return np.clip(frame.transpose(1, 2, 0).astype(np.float64) @ np.linalg.inv(TO_CIE).T, 0, None)


def _jpeg(light: Image) -> npt.NDArray[np.uint8]:
    """Return a photograph (H, W, 3) as it is decoded from a JPEG of linear light."""
    picture = np.ascontiguousarray(encode_srgb(light)[..., ::-1])
    _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
