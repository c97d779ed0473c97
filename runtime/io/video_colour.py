"""The colour space that a video file declares: primaries, transfer function, matrix and range, read through PyAV.

OpenCV, which decodes the frames, honours matrix and range and does not tell the rest.
"""

from __future__ import annotations

from pathlib import Path

from ccnet.contract import CCNetError

from .files import optional_module

_UNSPECIFIED = (0, 2)

_PRIMARIES = {
    1: "BT.709",
    4: "BT.470 M",
    5: "BT.470 BG",
    6: "SMPTE 170M",
    7: "SMPTE 240M",
    8: "film",
    9: "BT.2020",
    10: "SMPTE 428",
    11: "DCI-P3",
    12: "Display P3",
    22: "EBU 3213",
}
"""Code of ITU-T H.273 → name."""

_TRANSFERS = {
    1: "BT.709",
    4: "gamma 2.2",
    5: "gamma 2.8",
    6: "SMPTE 170M",
    7: "SMPTE 240M",
    8: "linear",
    9: "logarithmic",
    10: "logarithmic",
    11: "xvYCC",
    12: "BT.1361",
    13: "sRGB",
    14: "BT.2020",
    15: "BT.2020",
    16: "PQ",
    17: "SMPTE 428",
    18: "HLG",
}
"""Code of ITU-T H.273 → name."""

_SRGB_PRIMARIES, _SRGB_TRANSFERS = {1, 5, 6, 22}, {1, 4, 6, 13}
"""Codes that are shown as sRGB by convention: those of standard dynamic range with the primaries of BT.709 or near."""


def video_colour(path: Path, as_stored: bool = False) -> str:
    """Return the colour space that a video declares, and what becomes of it, for a cube's metadata.

    Args:
        path: The video.
        as_stored: The values are taken as they are stored, so that the transfer function does not matter.

    Returns:
        The description; sRGB is assumed where the file declares nothing, or PyAV cannot tell.

    Raises:
        CCNetError: The video declares another space than sRGB.
    """
    try:
        av = optional_module("av", "camera")
    except CCNetError:
        return "sRGB (assumed, as PyAV, which reads what a video declares, is not installed)"
    try:
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            primaries, transfer = int(context.color_primaries), int(context.color_trc)
    except (av.FFmpegError, OSError, ValueError, IndexError, AttributeError):
        return "sRGB (assumed, as PyAV cannot read what the video declares)"
    _refuse_unless(path, "primaries", primaries, _SRGB_PRIMARIES, _PRIMARIES)
    if as_stored:
        return "as stored"
    _refuse_unless(path, "transfer characteristics", transfer, _SRGB_TRANSFERS, _TRANSFERS)
    declared = [
        f"{names.get(code, code)} {what}"
        for what, code, names in (("primaries", primaries, _PRIMARIES), ("transfer", transfer, _TRANSFERS))
        if code not in _UNSPECIFIED
    ]
    return f"sRGB (the video's {', '.join(declared)})" if declared else "sRGB (assumed)"


def _refuse_unless(path: Path, what: str, code: int, accepted: set[int], names: dict[int, str]) -> None:
    if code not in accepted and code not in _UNSPECIFIED:
        raise CCNetError(
            f"{path}: its {what} are {names.get(code, code)}, expected BT.709 or sRGB; convert it, for example with the"
            " filters zscale and tonemap of ffmpeg"
        )
