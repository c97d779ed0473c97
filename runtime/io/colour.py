"""The colour space that a picture declares: an ICC profile, colour chunks of PNG, AVIF and HEIC, EXIF.

No other space is read as sRGB silently: it is converted to sRGB by Little CMS, through Pillow, or refused with the
remedy.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ccnet.contract import CCNetError

from .files import optional_module

_SRGB_LEVELS = 2
"""Largest difference, in levels of 255, between a profile and sRGB that counts as sRGB: profiles are rounded."""

_SRGB_GAMMA = 0.45455, 0.001
"""PNG's gAMA of sRGB, and how far another may be from it."""

_BT709 = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""PNG's cHRM of sRGB: white, red, green and blue as CIE x, y."""

_SRGB_CICP = (1, 13, 0, 1)

_SRGB_NCLX = {1, 2, 5, 6}, {1, 2, 4, 6, 13}
"""Primaries and transfer characteristics of AVIF's and HEIC's ``nclx`` (ITU-T H.273) that are shown as sRGB."""

_NCLX_BYTES = 1 << 16
"""Length of the start of a file that holds its properties."""

_EXIF_IFD, _EXIF_COLOUR_SPACE, _INTEROP_IFD, _INTEROP_INDEX = 0x8769, 0xA001, 0xA005, 1


class Colour:
    """The colour space that a picture declares.

    Attributes:
        name: Description of the space.
        profile: Its ICC profile, to convert by; None for sRGB.
    """

    def __init__(self, name: str, profile: Any = None) -> None:
        self.name, self.profile = name, profile

    def to_srgb(self, path: Path, image: Any, deep: bool) -> Any:
        """Return the picture in sRGB.

        Args:
            path: The file, for the error message.
            image: Pillow's image, in mode RGB.
            deep: The picture has 16 bits, which Little CMS cannot convert through Pillow.

        Returns:
            The image, or a converted copy.

        Raises:
            CCNetError: The picture cannot be converted.
        """
        if self.profile is None:
            return image
        if deep:
            raise CCNetError(
                f"{path}: 16 bits in {self.name}, expected sRGB; convert it to sRGB, or use --input-space camera if its"
                " values are linear and of the weights' camera"
            )
        cms = optional_module("PIL.ImageCms")
        return cms.profileToProfile(image, self.profile, cms.createProfile("sRGB"))

    def describe(self) -> str:
        """Return the space and what becomes of it, for a cube's metadata."""
        return self.name if self.profile is None else f"{self.name}, converted to sRGB"


def declared_colour(path: Path, image: Any) -> Colour:
    """Return the colour space that a picture declares; sRGB is assumed where it declares none.

    Args:
        path: The file.
        image: Pillow's image of it.

    Returns:
        The space.

    Raises:
        CCNetError: The declaration is damaged, or of a space that cannot be converted here.
    """
    if image.format == "PNG" and (cicp := _png_chunk(path, b"cICP")):
        if tuple(cicp) != _SRGB_CICP:
            _refuse(path, f"PNG's cICP says {tuple(cicp)}")
        return Colour("sRGB (cICP)")
    if icc := image.info.get("icc_profile"):
        return _of_profile(path, icc)
    if image.format == "PNG":
        return _of_png(path, image.info)
    if image.format in ("AVIF", "HEIF"):
        _check_nclx(path)
    return _of_exif(path, image)


def _of_profile(path: Path, icc: bytes) -> Colour:
    cms = optional_module("PIL.ImageCms")
    try:
        profile = cms.ImageCmsProfile(io.BytesIO(icc))
        space, name = profile.profile.xcolor_space.strip(), " ".join(cms.getProfileDescription(profile).split())
        if space != "RGB":
            _refuse(path, f"its ICC profile {name[:60]!r} is of {space}")
        levels = np.stack(np.meshgrid(*3 * [np.arange(0, 256, 17, dtype=np.uint8)]), -1).reshape(-1, 16, 3)
        same = optional_module("PIL.Image").fromarray(levels)
        converted = np.asarray(cms.profileToProfile(same, profile, cms.createProfile("sRGB")))
    except (cms.PyCMSError, OSError, TypeError) as error:
        _refuse(path, f"its ICC profile is damaged ({' '.join(str(error).split())[:80]})")
    if np.abs(converted.astype(int) - levels).max() <= _SRGB_LEVELS:
        return Colour(f"sRGB (ICC profile {name[:60]})")
    return Colour(f"ICC profile {name[:60]}", profile)


def _of_png(path: Path, info: dict[str, Any]) -> Colour:
    if "srgb" in info:
        return Colour("sRGB (sRGB chunk)")
    gamma, chromaticity = info.get("gamma"), info.get("chromaticity")
    expected, slack = _SRGB_GAMMA
    if gamma is not None and abs(gamma - expected) > slack:
        _refuse(path, f"PNG's gAMA is {gamma:g}, not sRGB's {expected:g}")
    if chromaticity is not None and not np.allclose(chromaticity, _BT709, atol=0.002):
        _refuse(path, "PNG's cHRM has other primaries than sRGB's")
    return Colour("sRGB (assumed)" if gamma is None and chromaticity is None else "sRGB (gAMA, cHRM)")


def _check_nclx(path: Path) -> None:
    """Refuse a picture whose ``nclx`` property has other primaries or another transfer than sRGB's."""
    with path.open("rb") as file:
        _, found, values = file.read(_NCLX_BYTES).partition(b"colrnclx")
    if found and len(values) >= 4:
        codes = struct.unpack(">HH", values[:4])
        if not all(code in accepted for code, accepted in zip(codes, _SRGB_NCLX, strict=True)):
            _refuse(path, f"its nclx says primaries and transfer {codes}")


def _of_exif(path: Path, image: Any) -> Colour:
    exif = image.getexif()
    space = exif.get_ifd(_EXIF_IFD).get(_EXIF_COLOUR_SPACE)
    interop = str(exif.get_ifd(_INTEROP_IFD).get(_INTEROP_INDEX, ""))
    if space == 2 or interop.startswith("R03"):
        _refuse(path, "its EXIF says Adobe RGB")
    return Colour("sRGB (EXIF)" if space == 1 else "sRGB (assumed)")


def _png_chunk(path: Path, name: bytes) -> bytes:
    """Return the content of the first chunk of a name before the pixels, or nothing."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == name:
                return file.read(min(length, 64))
            if kind == b"IDAT":
                break
            file.seek(length + 4, io.SEEK_CUR)
    return b""


def _refuse(path: Path, why: str) -> NoReturn:
    raise CCNetError(
        f"{path}: {why}, expected sRGB; convert it to sRGB, or use --input-space camera if its values are linear and of"
        " the weights' camera"
    )
