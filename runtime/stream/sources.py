"""Where a stream's frames come from: cameras and videos through OpenCV, folders of pictures, raw video on stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import optional_module
from ccnet.runtime.io.frames import frame_paths, read_frame

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class CapturedFrame:
    """One frame as it arrived.

    frame_id: ascending from 0 over the whole stream, also where a camera came back. captured: seconds since 1970, UTC.
    pixels: (H, W, 3), or (H, W) of a Bayer sensor; None where the source failed to give them, and ``fault`` says why.
    """

    frame_id: int
    name: str
    captured: float
    pixels: Pixels | None
    fault: str = ""


class SourceDisconnectedError(CCNetError):
    """A camera that was there has disappeared: it may come again."""


class Source(Protocol):
    """Frames, one at a time, from one thread."""

    def read(self) -> tuple[str, Pixels] | None:
        """Name and pixels of the next frame, the caller's to keep; None at the end.

        CCNetError for a damaged frame (the next one can be read); SourceDisconnectedError where no more will come.
        """

    def close(self) -> None: ...


@dataclass(frozen=True)
class SourceSpec:
    """A source by its name, so that it can be opened again."""

    name: str
    live: bool
    """A camera: it does not wait, has no end, and is tried again when it disappears."""
    open: Callable[[], Source]


def parse_source(text: str, size: str | None = None, *, bits: int = 8, bayer: bool = False) -> SourceSpec:
    """What a user calls a source.

    text: ``-`` for raw video on stdin; a folder of pictures; a video file; a camera's number or ``/dev/video*``; a URL
    such as ``rtsp://…``; a GStreamer pipeline with `` ! `` in it, for an OpenCV that was built with GStreamer.
    size: ``WxH`` of raw video, px. bits, bayer: of its samples, see ``Radiometry``: 1 byte for 8 bits, else 2,
    little-endian; R, G, B interleaved, or one sample a pixel.

    CCNetError where it is none of these; whether a camera is there shows when it is opened.
    """
    if (size is not None) != (text == "-"):
        raise CCNetError("--size WxH and the source '-' belong together: raw video has no header, all else has one")
    if text == "-":
        height, width = _size(str(size))
        shape = (height, width) if bayer else (height, width, 3)
        return SourceSpec("stdin", False, lambda: RawVideo(sys.stdin.fileno(), shape, "u1" if bits == 8 else "<u2"))
    if text.isdecimal() or text.startswith("/dev/") or " ! " in text or "://" in text:
        return SourceSpec(text, True, lambda: Capture(text, live=True))
    path = Path(text)
    if path.is_dir():
        return SourceSpec(text, False, lambda: Folder(path))
    if not path.is_file():
        raise CCNetError(f"{text}: no such file or folder, expected one, a camera's number, a URL, or - for stdin")
    return SourceSpec(text, False, lambda: Capture(text, live=False))


class Folder:
    """The pictures of a folder, sorted by name, those that are there when it is opened."""

    def __init__(self, folder: Path) -> None:
        self._paths = iter(frame_paths([folder]))

    def read(self) -> tuple[str, Pixels] | None:
        path = next(self._paths, None)
        return None if path is None else (path.stem, read_frame(path))

    def close(self) -> None:
        """Nothing is open between two frames."""


class Capture:
    """A video or camera through OpenCV, 8-bit RGB. A video that is damaged ends where OpenCV stops."""

    def __init__(self, text: str, *, live: bool) -> None:
        self._text, self._live = text, live
        self._cv2 = optional_module("cv2")
        api = self._cv2.CAP_GSTREAMER if " ! " in text else self._cv2.CAP_ANY
        self._capture = self._cv2.VideoCapture(int(text) if text.isdecimal() else text, api)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceDisconnectedError(
                f"{text}: OpenCV cannot open it, expected a camera or video; check its name, rights and codec"
            )

    def read(self) -> tuple[str, Pixels] | None:
        there, pixels = self._capture.read()
        if not there and self._live:
            raise SourceDisconnectedError(f"{self._text}: the camera gives no frames any more")
        if not there:
            return None
        if pixels.ndim != 3 or pixels.shape[2] != 3:
            raise CCNetError(f"{self._text}: gives frames of shape {pixels.shape}, expected (H, W, 3)")
        return "", self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        self._capture.release()


class RawVideo:
    """Frames without any header, one after another, from a file descriptor that somebody else closes."""

    def __init__(self, descriptor: int, shape: tuple[int, ...], dtype: str) -> None:
        self._descriptor, self._shape, self._dtype = descriptor, shape, np.dtype(dtype)

    def read(self) -> tuple[str, Pixels] | None:
        frame = np.empty(self._shape, self._dtype)
        space = memoryview(frame.data).cast("B")
        # By the descriptor, for a thread that waits in sys.stdin would block the interpreter's exit
        got = 0
        while got < len(space) and (count := os.readv(self._descriptor, [space[got:]])):
            got += count
        if 0 < got < len(space):
            raise CCNetError(
                f"stdin ends with {got} bytes, a frame of {self._shape} has {len(space)}: is --size right?"
            )
        return ("", frame) if got else None

    def close(self) -> None:
        """The descriptor is not ours."""


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and int(width) * int(height)):
        raise CCNetError(f"--size is {text!r}, expected WxH in px, such as 1920x1080")
    return int(height), int(width)
