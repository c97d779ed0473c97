"""The sources that a text on the command line names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ccnet.contract import CCNetError
from ccnet.runtime.io.cameras.raw_file import is_raw
from ccnet.runtime.io.frames import describe_colour, is_picture, read_frame
from ccnet.runtime.io.mosaic import read_mosaic

from .aravis import aravis_source
from .genicam import genicam_source
from .pictures import Pictures
from .raw_video import RawVideo, parse_size
from .rosbag import bag_source, is_bag
from .source import SourceOptions, SourceSpec
from .video_capture import VideoCapture

SCHEMES: dict[str, Callable[[str, SourceOptions], SourceSpec]] = {
    "aravis": aravis_source,
    "genicam": genicam_source,
    "rosbag": bag_source,
}
"""Word before the first colon of a source's text → the function that returns the source for the whole text."""


def parse_sources(
    texts: Sequence[str],
    size: str | None = None,
    *,
    bits: int = 8,
    bayer: str | None = None,
    as_stored: bool = False,
) -> SourceSpec:
    """Return the source that one text names, or that of several pictures and raw files, in their order.

    Args:
        texts: One text as for ``parse_source``, or the paths of several files, whose source has the name of their
            common folder.
        size: As for ``parse_source``.
        bits: As for ``parse_source``.
        bayer: As for ``parse_source``.
        as_stored: As for ``parse_source``.

    Returns:
        The source, not opened yet.

    Raises:
        CCNetError: A text names nothing that can be opened, or one of several is no picture and no raw file.
    """
    if len(texts) == 1:
        return parse_source(texts[0], size, bits=bits, bayer=bayer, as_stored=as_stored)
    paths = [Path(text) for text in texts]
    for path in paths:
        if not path.is_file() or is_bag(path) or not _is_frame(path):
            raise CCNetError(f"{path}: is no picture and no raw file, expected one source, or files of frames only")
    if size is not None:
        raise CCNetError("--size is for raw video on stdin, expected the source '-' alone")
    folders = {path.parent for path in paths}
    name = folders.pop() if len(folders) == 1 else os.path.commonpath([path.parent.absolute() for path in paths])
    return _pictures(str(name), paths, SourceOptions(bits=bits, bayer=bayer, as_stored=as_stored))


def parse_source(
    text: str, size: str | None = None, *, bits: int = 8, bayer: str | None = None, as_stored: bool = False
) -> SourceSpec:
    """Return the source that a text names.

    Args:
        text: ``-`` for raw video on stdin; a picture, a raw file or a folder of them; a video file; a ROS 2 bag, also
            as ``rosbag:PATH?topic=NAME``; a camera's number or ``/dev/video*``; a URL such as ``rtsp://…``; a GStreamer
            pipeline with `` ! `` in it, for an OpenCV with GStreamer.
        size: ``WxH`` of raw video, px.
        bits: Bits of a raw video's sample, see ``Radiometry``: 1 byte for 8 bits, else 2 bytes, little-endian.
        bayer: Colours of the first 2×2 px, such as RGGB, for frames with one sample per pixel; None for R, G, B.
        as_stored: Read the stored values; False converts a declared colour space to sRGB, or refuses it.

    Returns:
        The source, not opened yet: a missing camera is noticed when it is opened.

    Raises:
        CCNetError: The text names none of these, or the size does not fit it.
    """
    if (size is not None) != (text == "-"):
        raise CCNetError(
            "--size WxH and the source '-' belong together: raw video has no header, other sources have one"
        )
    options = SourceOptions(bits=bits, bayer=bayer, as_stored=as_stored)
    if text == "-":
        return _raw_video(str(size), options)
    scheme, colon, _ = text.partition(":")
    if colon and (open_scheme := SCHEMES.get(scheme)):
        return open_scheme(text, options)
    if text.isdecimal() or text.startswith("/dev/") or " ! " in text or "://" in text:
        return SourceSpec(text, True, lambda: VideoCapture(text, live=True, colour=options.colour))
    path = Path(text)
    if not (path.is_dir() or path.is_file()):
        raise CCNetError(f"{text}: no such file or folder, expected one, a camera's number, a URL, or - for stdin")
    if is_bag(path):
        return bag_source(text, options)
    if path.is_dir() or _is_frame(path):
        return _pictures(text, [path], options)
    return SourceSpec(text, False, lambda: VideoCapture(text, live=False, colour=options.colour))


def _is_frame(path: Path) -> bool:
    return is_raw(path) or is_picture(path)


def _raw_video(size: str, options: SourceOptions) -> SourceSpec:
    height, width = parse_size(size)
    shape = (height, width) if options.bayer else (height, width, 3)
    dtype = "u1" if options.bits == 8 else "<u2"
    return SourceSpec("stdin", False, lambda: RawVideo(sys.stdin.fileno(), shape, dtype, options.colour))


def _pictures(name: str, paths: Sequence[Path], options: SourceOptions) -> SourceSpec:
    if options.bayer:
        return SourceSpec(name, False, lambda: Pictures(paths, read_mosaic))
    describe = None if options.as_stored else describe_colour
    read = partial(read_frame, as_stored=options.as_stored)
    return SourceSpec(name, False, lambda: Pictures(paths, read, describe))
