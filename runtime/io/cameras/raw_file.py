"""Raw files of cameras by LibRaw: linear, white-balanced as shot, no tone curve; with the camera's colour matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, decode_errors_as, prefix_errors
from ccnet.runtime.io.files import as_text, native_messages, optional_module, read_head
from ccnet.runtime.io.frames import MAX_PIXELS, check_size
from ccnet.runtime.io.sensor import Radiometry

from .dng import adobe_matrices, camera_name, dng_matrices, read_tags
from .matrices import CameraMatrices, find_camera

RAW_SUFFIXES = (".dng", ".cr2", ".nef", ".arw")
"""Suffixes of raw files: Adobe's and phones', Canon's, Nikon's and Sony's."""


@dataclass(frozen=True, kw_only=True)
class RawColour:
    """White balance and colour matrix of a raw file.

    Attributes:
        white_balance: Factors of R, G and B, as multiples of G's.
        radiometry: The colour matrix of the camera in the light of this white balance, if one is known.
        source: Origin of the matrix, or why there is none.
        file: Name of the file that was shot with this white balance.
    """

    white_balance: tuple[float, float, float]
    radiometry: Radiometry
    source: str
    file: str

    def metadata(self) -> dict[str, str]:
        """Return the white balance for the cube's metadata."""
        factors = " ".join(f"{factor:.4f}" for factor in self.white_balance)
        return {"white balance": f"{factors}, as shot in {self.file}"}


class DevelopedFrame(np.ndarray[Any, np.dtype[Any]]):
    """A developed raw file: (H, W, 3) uint16 of full range, linear, white-balanced, in the camera's own channels.

    Attributes:
        colour: The white balance that it was developed with, and the colour matrix for it.
    """

    colour: RawColour

    def __array_finalize__(self, parent: Any) -> None:
        """Give a view the colour of its frame."""
        if isinstance(parent, DevelopedFrame) and hasattr(parent, "colour"):
            self.colour = parent.colour


def is_raw(path: Path) -> bool:
    """Return True for the suffix of a raw file."""
    return path.suffix.lower() in RAW_SUFFIXES


def own_colour(colour: RawColour) -> RawColour:
    """Return the colour itself: each file keeps its white balance as shot."""
    return colour


def read_raw(
    path: Path, *, max_pixels: int = MAX_PIXELS, choose_colour: Callable[[RawColour], RawColour] = own_colour
) -> DevelopedFrame:
    """Develop a raw file without anything that depends on its content.

    Black level, full scale, demosaic, white balance, clipped highlights; no tone curve, no automatic brightness, the
    camera's own channels. The matrix is, in this order, that of a known camera of this name, that of the DNG,
    interpolated between its two lights, or that of LibRaw's table.

    Args:
        path: The file.
        max_pixels: Largest H·W.
        choose_colour: Returns the colour to develop the file with, from the file's own.

    Returns:
        The frame, upright, with its colour.

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
            with native_messages():  # LibRaw prints that the file ends too early
                raw.unpack()
            colour = choose_colour(_colour_as_shot(path, raw, tags))
            pixels = raw.postprocess(
                user_wb=[*colour.white_balance, 0],  # 0: a second green has the factor of the first
                no_auto_bright=True,
                adjust_maximum_thr=0.0,  # LibRaw would take the full scale from the brightest pixel
                gamma=(1, 1),
                output_bps=16,
                output_color=rawpy.ColorSpace.raw,
            )
    frame: DevelopedFrame = pixels.view(DevelopedFrame)
    frame.colour = colour
    return frame


def _colour_as_shot(path: Path, raw: Any, tags: Any) -> RawColour:
    """Return the colour that the camera wrote into an open file."""
    multipliers = np.array(raw.camera_whitebalance[:3], np.float64)
    if raw.num_colors != 3 or not (np.isfinite(multipliers).all() and (multipliers > 0).all()):
        raise CCNetError(f"{path}: {raw.num_colors} colours without a white balance, expected a colour camera")
    matrices = _matrices(tags, raw.rgb_xyz_matrix)
    red, green, blue = (multipliers / multipliers[1]).tolist()
    return RawColour(
        white_balance=(red, green, blue),
        radiometry=_radiometry(matrices, multipliers, camera_name(tags)),
        source=matrices.source if matrices else "none is known",
        file=as_text(path.name),
    )


def _matrices(tags: Any, adobe: npt.NDArray[Any]) -> CameraMatrices | None:
    name = camera_name(tags)
    known = find_camera(name) if name else None
    return known or dng_matrices(tags) or adobe_matrices(name or "camera", np.asarray(adobe))


def _radiometry(matrices: CameraMatrices | None, multipliers: npt.NDArray[np.float64], name: str | None) -> Radiometry:
    """Return the camera's matrix, and response if known, in the light that the white balance was set for."""
    if matrices is None:
        return Radiometry(camera=name)
    neutral = multipliers[1] / multipliers
    chosen = matrices.in_light_of(neutral.tolist())
    return Radiometry(
        camera=matrices.name,
        light=chosen.light,
        target=matrices.target,
        matrix=chosen.matrix,
        response=chosen.response,
    )
