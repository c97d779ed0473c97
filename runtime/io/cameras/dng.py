"""Colour matrices from the tags of a DNG file, or from Adobe's matrix of a camera, by way of CIE XYZ.

The weights' camera is taken for CIE's standard observer, which the shipped weights' camera is, with each channel scaled
to give 1 for white (``ccnet.runtime.io.srgb`` does the same for photographs).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.runtime.io.files import optional_module

from .matrices import DAYLIGHT, TUNGSTEN, CameraMatrices, LightMatrix, to_matrix

Array = npt.NDArray[np.float64]

MAKE, MODEL = 271, 272
_UNIQUE_MODEL, _COLOUR, _FORWARD, _ILLUMINANT = 50708, (50721, 50722), (50964, 50965), (50778, 50779)

_LIGHTS = {
    **dict.fromkeys((1, 4, 9, 20), ("5500K", (0.3324, 0.3474))),
    **dict.fromkeys((2, 14), ("4150K", (0.3726, 0.3747))),
    **dict.fromkeys((3, 17), (TUNGSTEN, (0.44757, 0.40745))),
    **dict.fromkeys((10, 12, 21), (DAYLIGHT, (0.31271, 0.32902))),
    **dict.fromkeys((11, 22), ("7500K", (0.29902, 0.31485))),
    **dict.fromkeys((13, 23), ("5000K", (0.34567, 0.3585))),
    15: ("3450K", (0.4091, 0.3937)),
    18: ("4870K", (0.34842, 0.35161)),
    19: ("6770K", (0.31006, 0.31616)),
    24: ("3200K", (0.4234, 0.3990)),
}
"""EXIF's code of a light source → its name and chromaticity x, y (CIE 1931)."""

_D65, _D50 = 21, 23

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""The cones of Bradford's chromatic adaptation, which DNG uses."""


def read_tags(path: Path) -> Mapping[int, Any]:
    """Return the tags of the first directory of a raw file that is a TIFF, as Pillow decodes them; empty for others."""
    tiff = optional_module("PIL.TiffImagePlugin")
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # Pillow warns about tags that are not used here
        head = file.read(8)
        if head[:4] not in (b"II*\0", b"MM\0*"):
            return {}
        directory = tiff.ImageFileDirectory_v2(head)
        file.seek(directory.next)
        directory.load(io.BufferedReader(file))
        return dict(directory)


def camera_name(tags: Mapping[int, Any]) -> str | None:
    """Return make and model in a raw file's tags, or DNG's unique name of the camera; None without either."""
    words = [str(tags[tag]).strip("\0 ") for tag in (MAKE, MODEL) if tag in tags]
    name = " ".join(words) or str(tags.get(_UNIQUE_MODEL, "")).strip("\0 ")
    return name if name and name.isprintable() else None


def dng_matrices(tags: Mapping[int, Any]) -> CameraMatrices | None:
    """Return the matrices of a DNG's tags for one or two lights; None if it has none that can be used."""
    lights = []
    for colour, forward, illuminant in zip(_COLOUR, _FORWARD, _ILLUMINANT, strict=True):
        xyz_to_camera = _three_by_three(tags.get(colour))
        if xyz_to_camera is None:
            continue
        code = int(tags.get(illuminant, _D65))
        camera_to_d50 = _three_by_three(tags.get(forward))
        lights.append(_light_matrix(xyz_to_camera, camera_to_d50, code if code in _LIGHTS else _D65))
    if not lights:
        return None
    name = camera_name(tags) or "camera of the DNG"
    return CameraMatrices(name=name, source="the DNG's own matrices", target=None, lights=tuple(lights))


def adobe_matrices(name: str, xyz_to_camera: npt.NDArray[Any]) -> CameraMatrices | None:
    """Return the matrix of LibRaw's table for daylight; None if the camera is not in the table."""
    matrix = _three_by_three(xyz_to_camera[:3].ravel())
    if matrix is None:
        return None
    light = _light_matrix(matrix, None, _D65)
    return CameraMatrices(name=name, source="LibRaw's table of Adobe's matrices", target=None, lights=(light,))


def _three_by_three(values: Any) -> Array | None:
    """Return nine numbers of a tag as an invertible matrix, or None."""
    numbers = np.array([float(value) for value in values] if values is not None else [])
    if numbers.size != 9 or not np.isfinite(numbers).all():
        return None
    matrix = numbers.reshape(3, 3)
    return matrix if abs(np.linalg.det(matrix)) > 1e-6 else None


def _light_matrix(xyz_to_camera: Array, camera_to_d50: Array | None, code: int) -> LightMatrix:
    """Return the matrix from white-balanced sensor values to XYZ, adapted to equal energy, white kept."""
    light, white = _LIGHTS[code][0], _white(code)
    neutral = np.maximum(xyz_to_camera @ white, 1e-3)
    if camera_to_d50 is not None:
        matrix = _adaptation(_white(_D50)) @ camera_to_d50
    else:
        matrix = _adaptation(white) @ np.linalg.inv(xyz_to_camera) @ np.diag(neutral)
    red, green, blue = (neutral / neutral[1]).tolist()
    kept = matrix / matrix.sum(1, keepdims=True)
    return LightMatrix(light=light, neutral=(red, green, blue), matrix=to_matrix(kept))


def _white(code: int) -> Array:
    x, y = _LIGHTS[code][1]
    return np.array([x / y, 1, (1 - x - y) / y])


def _adaptation(white: Array) -> Array:
    """Return Bradford's adaptation (3, 3) of XYZ from a white to equal energy."""
    scale = _BRADFORD.sum(1) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD)
