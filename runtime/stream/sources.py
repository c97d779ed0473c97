"""Sources of a stream's frames: cameras and videos through OpenCV, folders of pictures, raw video on stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import native_messages, optional_module
from ccnet.runtime.io.frames import describe_colour, frame_paths, is_picture, read_frame, result_names
from ccnet.runtime.io.mosaic import read_mosaic
from ccnet.runtime.io.video_colour import video_colour

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class CapturedFrame:
    """A frame as the source gave it."""

    frame_id: int
    """Number from 0 on, ascending over the whole stream, also after a camera came back."""
    name: str
    """Name of the cube; the id if it is empty."""
    captured: float
    """Time of capture, seconds since 1970, UTC."""
    pixels: Pixels | None
    """(H, W, 3), or (H, W) of a Bayer sensor; None for a damaged frame."""
    fault: str = ""
    """Reason why there are no pixels."""
    colour: str = ""
    """Colour space that the source declares and what became of it; empty if it does not matter."""


class SourceDisconnectedError(CCNetError):
    """The error of a camera that has disappeared and may come back."""


class Source(Protocol):
    """A source of frames, used from one thread."""

    expected: int | None
    """Number of frames that the source says it has; None if it cannot know."""
    colour: str
    """Colour space that the last frame declares and what became of it; empty if it does not matter."""

    def read(self) -> tuple[str, Pixels] | None:
        """Read the next frame.

        Returns:
            Name and pixels, which the caller may keep; None at the end.

        Raises:
            CCNetError: The frame is damaged; the next one can be read.
            SourceDisconnectedError: No more frames will come.
        """

    def close(self) -> None:
        """Free the source."""


@dataclass(frozen=True)
class SourceSpec:
    """A description of a source, so that it can be opened again."""

    name: str
    live: bool
    """True for a camera, which does not wait, has no end, and is opened again when it disappears."""
    open: Callable[[], Source]
    """Opens the source."""


def parse_source(
    text: str, size: str | None = None, *, bits: int = 8, bayer: bool = False, as_stored: bool = False
) -> SourceSpec:
    """Return the source that a text names.

    Args:
        text: ``-`` for raw video on stdin; a picture or a folder of them; a video file; a camera's number or
            ``/dev/video*``; a URL such as ``rtsp://…``; a GStreamer pipeline with `` ! `` in it, for an OpenCV with
            GStreamer.
        size: ``WxH`` of raw video, px.
        bits: Bits of a raw video's sample, see ``Radiometry``: 1 byte for 8 bits, else 2 bytes, little-endian.
        as_stored: Read the stored values; False converts a declared colour space to sRGB, or refuses it.
        bayer: True for pictures and raw video with one sample per pixel, False for R, G, B.

    Returns:
        The source, not opened yet: a missing camera is noticed when it is opened.

    Raises:
        CCNetError: The text names none of these, or the size does not fit it.
    """
    if (size is not None) != (text == "-"):
        raise CCNetError(
            "--size WxH and the source '-' belong together: raw video has no header, other sources have one"
        )
    colour = "" if as_stored or bayer else "sRGB (assumed)"
    if text == "-":
        height, width = _size(str(size))
        shape, dtype = (height, width) if bayer else (height, width, 3), "u1" if bits == 8 else "<u2"
        return SourceSpec("stdin", False, lambda: RawVideo(sys.stdin.fileno(), shape, dtype, colour))
    if text.isdecimal() or text.startswith("/dev/") or " ! " in text or "://" in text:
        return SourceSpec(text, True, lambda: VideoCapture(text, live=True, colour=colour))
    path = Path(text)
    if not (path.is_dir() or path.is_file()):
        raise CCNetError(f"{text}: no such file or folder, expected one, a camera's number, a URL, or - for stdin")
    if path.is_dir() or is_picture(path):
        if bayer:
            return SourceSpec(text, False, lambda: Pictures(path, read_mosaic))
        describe = None if as_stored else describe_colour
        return SourceSpec(text, False, lambda: Pictures(path, partial(read_frame, as_stored=as_stored), describe))
    return SourceSpec(text, False, lambda: VideoCapture(text, live=False, colour=colour))


class Pictures:
    """A picture, or the pictures that a folder holds when it is opened, sorted by name."""

    def __init__(
        self, path: Path, read: Callable[[Path], Pixels] = read_frame, describe: Callable[[Path], str] | None = None
    ) -> None:
        """Find the pictures.

        Args:
            path: File or folder.
            read: Reads one picture.
            describe: Describes its colour space; None where that does not matter.
        """
        paths = frame_paths([path])
        self._describe, self.colour = describe, ""
        self._read, self._named = read, iter(list(zip(result_names(paths), paths, strict=True)))
        self.expected: int | None = len(paths)

    def read(self) -> tuple[str, Pixels] | None:
        """Return the name and pixels of the next picture; CCNetError if it is damaged, None at the end."""
        if (named := next(self._named, None)) is None:
            return None
        name, path = named
        pixels = self._read(path)
        self.colour = self._describe(path) if self._describe else ""
        return name, pixels

    def close(self) -> None:
        """Do nothing: no file is open between two frames."""


class VideoCapture:
    """A video or camera through OpenCV, 8-bit RGB; a damaged video ends where OpenCV stops."""

    def __init__(self, text: str, *, live: bool, colour: str = "") -> None:
        self._text, self._live = text, live
        self._cv2 = optional_module("cv2")
        api = self._cv2.CAP_GSTREAMER if " ! " in text else self._cv2.CAP_ANY
        with nullcontext() if live else native_messages():  # a camera may take minutes
            self._capture = self._cv2.VideoCapture(int(text) if text.isdecimal() else text, api)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceDisconnectedError(
                f"{text}: OpenCV cannot open it, expected a camera or video; check its name, permissions and codec"
            )
        try:
            self.colour = colour if live else video_colour(Path(text), as_stored=not colour)
        except CCNetError:
            self._capture.release()
            raise
        count = self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)
        self.expected: int | None = int(count) if not live and 0 < count < 1 << 31 else None

    def read(self) -> tuple[str, Pixels] | None:
        """Return an empty name and the next frame (H, W, 3) uint8; None at the end of a video.

        Returns:
            Name and frame, or None.

        Raises:
            SourceDisconnectedError: The camera gives no frames any more.
            CCNetError: The frame is not RGB.
        """
        success, pixels = self._capture.read()
        if not success and self._live:
            raise SourceDisconnectedError(f"{self._text}: the camera gives no frames any more")
        if not success:
            return None
        if pixels.ndim != 3 or pixels.shape[2] != 3:
            raise CCNetError(f"{self._text}: gives frames of shape {pixels.shape}, expected (H, W, 3)")
        return "", self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """Release the camera or file."""
        self._capture.release()


class RawVideo:
    """Frames without a header, one after another, from a file descriptor that the caller closes."""

    def __init__(self, descriptor: int, shape: tuple[int, ...], dtype: str, colour: str = "") -> None:
        self._descriptor, self._shape, self._dtype = descriptor, shape, np.dtype(dtype)
        self.expected: int | None = None
        self.colour = colour

    def read(self) -> tuple[str, Pixels] | None:
        """Return an empty name and the next frame; None at the end, CCNetError if the last frame is incomplete."""
        frame = np.empty(self._shape, self._dtype)
        buffer = memoryview(frame.data).cast("B")
        # From the descriptor, because a thread that waits in sys.stdin would block the interpreter's exit
        count = 0
        while count < len(buffer) and (received := os.readv(self._descriptor, [buffer[count:]])):
            count += received
        if 0 < count < len(buffer):
            raise CCNetError(
                f"stdin ends with {count} bytes, but a frame of {self._shape} has {len(buffer)}: check --size"
            )
        return ("", frame) if count else None

    def close(self) -> None:
        """Do nothing: the caller closes the descriptor."""


def _size(text: str) -> tuple[int, int]:
    """Return height and width from ``WxH``."""
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and int(width) * int(height)):
        raise CCNetError(f"--size is {text!r}, expected WxH in px, such as 1920x1080")
    return int(height), int(width)
