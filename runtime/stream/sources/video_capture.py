"""The source of videos and cameras that OpenCV opens."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import native_messages, optional_module
from ccnet.runtime.io.video_colour import video_colour

from .source import Pixels, SourceDisconnectedError


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
