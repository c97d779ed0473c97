"""The interface of a stream's sources, and the frames that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from ccnet.contract import CCNetError

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class CapturedFrame:
    """A frame as the source gave it."""

    frame_id: int
    """Number from 0 on, ascending over the whole stream, also after a camera came back."""
    name: str
    """Name of the cube; the id if it is empty."""
    arrived: float
    """Time of arrival, seconds since 1970, UTC."""
    pixels: Pixels | None
    """(H, W, 3), or (H, W) of a Bayer sensor; None for a damaged frame."""
    fault: str = ""
    """Reason why there are no pixels."""
    colour: str = ""
    """Colour space that the source declares and what became of it; empty if it does not matter."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Metadata from the source, such as the time when the frame was ``captured``; they replace the stream's."""


class SourceDisconnectedError(CCNetError):
    """The error of a camera that has disappeared and may come back."""


FRAME_TIMEOUT_S = 0.5
"""Longest wait for a camera's frame, after which the caller may stop."""


class FrameTimeoutError(CCNetError):
    """The error of a camera that is there and gave no frame for a moment, so that a stop is noticed."""


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
            FrameTimeoutError: No frame came yet; the next call waits again.
            SourceDisconnectedError: No more frames will come.
        """

    def close(self) -> None:
        """Free the source."""


@runtime_checkable
class DescribedSource(Protocol):
    """A source that knows more of its frames, such as a recording with the times of capture."""

    frame_metadata: Mapping[str, str]
    """Metadata of the last frame."""


@dataclass(frozen=True)
class SourceSpec:
    """A description of a source, so that it can be opened again."""

    name: str
    live: bool
    """True for a camera, which does not wait, has no end, and is opened again when it disappears."""
    open: Callable[[], Source]
    """Opens the source."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The samples that a source is expected to give."""

    bits: int = 8
    """Bits of a sample, see ``Radiometry``."""
    bayer: str | None = None
    """Colours of a Bayer sensor's first 2×2 px, such as RGGB: one sample per pixel. None for R, G, B."""
    as_stored: bool = False
    """True for the stored values; False for sRGB, to which a declared colour space is converted."""

    @property
    def colour(self) -> str:
        """Return the colour space of frames that declare none; empty if it does not matter."""
        return "" if self.as_stored or self.bayer else "sRGB (assumed)"
