"""Raw files of cameras by LibRaw: linear, white-balanced as shot, no tone curve; with the camera's colour matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, decode_errors_as, prefix_errors
from ccnet.runtime.io.files import optional_module, read_head
from ccnet.runtime.io.frames import MAX_PIXELS, check_size
from ccnet.runtime.io.sensor import Radiometry

from .dng import adobe_matrices, camera_name, dng_matrices, read_tags
from .matrices import CameraMatrices, find_camera

RAW_SUFFIXES = (".dng", ".cr2", ".nef", ".arw")
"""Suffixes of raw files: Adobe's and phones', Canon's, Nikon's and Sony's."""


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """A developed raw file.

    Attributes:
        pixels: (H, W, 3) uint16 of full range: linear, white-balanced as shot, in the camera's own channels.
        radiometry: The colour matrix of the camera, if one is known.
        source: Origin of the matrix, or why there is none.
    """

    pixels: npt.NDArray[np.uint16]
    radiometry: Radiometry
    source: str


def is_raw(path: Path) -> bool:
    """Return True for the suffix of a raw file."""
    return path.suffix.lower() in RAW_SUFFIXES


def read_raw(path: Path, *, max_pixels: int = MAX_PIXELS) -> RawFile:
    """Develop a raw file without anything that depends on its content.

    Black level, full scale, demosaic, white balance as shot, clipped highlights; no tone curve, no automatic
    brightness, the camera's own channels. The matrix is, in this order, that of a known camera of this name, that of
    the DNG, interpolated between its two lights, or that of LibRaw's table.

    Args:
        path: The file.
        max_pixels: Largest H·W.

    Returns:
        Pixels, upright, and the colour matrix.

    Raises:
        CCNetError: rawpy is not installed, or the file is damaged, too large or no colour picture.
    """
    read_head(path, "a raw file")
    with prefix_errors(path):
        rawpy = optional_module("rawpy", "raw")
    with decode_errors_as(path, "a whole raw file (DNG, CR2, NEF or ARW) that LibRaw reads"):
        tags = read_tags(path)
        with rawpy.imread(str(path)) as raw:
            check_size(path, raw.sizes.iheight, raw.sizes.iwidth, max_pixels)
            multipliers = np.array(raw.camera_whitebalance[:3], np.float64)
            if raw.num_colors != 3 or not (np.isfinite(multipliers).all() and (multipliers > 0).all()):
                raise CCNetError(f"{path}: {raw.num_colors} colours without a white balance, expected a colour camera")
            pixels = raw.postprocess(
                use_camera_wb=True,
                no_auto_bright=True,
                adjust_maximum_thr=0.0,  # LibRaw would take the full scale from the brightest pixel
                gamma=(1, 1),
                output_bps=16,
                output_color=rawpy.ColorSpace.raw,
            )
            matrices = _matrices(tags, raw.rgb_xyz_matrix)
    radiometry = _radiometry(matrices, multipliers, camera_name(tags))
    return RawFile(pixels=pixels, radiometry=radiometry, source=matrices.source if matrices else "none is known")


def _matrices(tags: Any, adobe: npt.NDArray[Any]) -> CameraMatrices | None:
    name = camera_name(tags)
    known = find_camera(name) if name else None
    return known or dng_matrices(tags) or adobe_matrices(name or "camera", np.asarray(adobe))


def _radiometry(matrices: CameraMatrices | None, multipliers: npt.NDArray[np.float64], name: str | None) -> Radiometry:
    """Return the camera's matrix in the light that the white balance was set for."""
    if matrices is None:
        return Radiometry(camera=name)
    neutral = multipliers[1] / multipliers
    chosen = matrices.in_light_of(neutral.tolist())
    return Radiometry(camera=matrices.name, light=chosen.light, matrix=chosen.matrix, target=matrices.target)
