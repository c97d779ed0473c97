"""Which context a stream's frame is decoded under: its own, that of an earlier frame, or a running mean of both.

A context is the weights of a few mixtures of bands (``docs/decisions.md``). Refreshed at every frame it costs an
``encode`` and may flicker; kept for too long it belongs to another scene.
"""

from __future__ import annotations

import re
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE, CCNetError
from ccnet.metrics import MRAE_OFFSET
from ccnet.runtime.io.frames import Frame

Array = npt.NDArray[np.float32]

SCENE_CHANGE = 0.10
"""Relative change of the signature at which a scene is another one; ``docs/stream.md`` has what it costs and brings."""

SMOOTHING = 0.2
"""Weight of the newest context in the running mean: about the last nine frames count."""

_SAMPLES = 64  # pixels a side that the signature looks at, at most
_DECILES = np.linspace(0.1, 0.9, 9)


class Encoder(Protocol):
    """What makes contexts: a Reconstructor."""

    def encode(self, frame: Frame) -> Array: ...


class ContextPolicy:
    """``every:N``: encode each N-th frame; ``scene``: encode when the scene changed; ``smooth``: encode each frame and
    mix it into a running mean, which starts anew when the scene changed.

    All start anew when a frame has another size. One stream has one; one thread at a time.
    """

    def __init__(self, text: str) -> None:
        """CCNetError for anything but ``every:N``, ``scene`` and ``smooth``."""
        match = re.fullmatch(r"every:([1-9][0-9]{0,8})|scene|smooth", text)
        if match is None:
            raise CCNetError(f"the context is {text!r}, expected every:N such as every:1, scene or smooth")
        self.name = text
        self.encoded = 0
        """How many frames were encoded."""
        self._every = int(match[1]) if match[1] else None
        self._context: Array | None = None
        self._signature = np.zeros((9, 3), np.float32)
        self._shape: tuple[int, ...] = ()
        self._age = 0

    def __call__(self, encoder: Encoder, frame: Frame) -> Array:
        """The context (1, N) of this frame, the next one of the stream."""
        fresh = self._context is None or frame.shape != self._shape
        self._age += 1
        now = self._signature
        if self._every is not None:
            again = fresh or self._age >= self._every
        else:
            now = signature(frame)
            fresh = fresh or change(self._signature, now) > SCENE_CHANGE
            again = fresh or self.name == "smooth"
        if again or self._context is None:
            # An encode that fails changes nothing else, so that the next frame is encoded in its place
            self._context = self._mixed(encoder.encode(frame), fresh)
            self._shape, self._age, self._signature = frame.shape, 0, now
            self.encoded += 1
        return self._context

    def _mixed(self, context: Array, fresh: bool) -> Array:
        if fresh or self._context is None or self.name != "smooth":
            return context
        # The attention's rows sum to 1, and so do those of a mean of such
        mean: Array = self._context + np.float32(SMOOTHING) * (context - self._context)
        return mean


def signature(frame_HWC: Frame) -> Array:
    """The deciles of each channel over at most 64×64 pixels, (9, 3) float32 in [0, 1].

    A pan hardly changes them, as it hardly changes a context: neither knows where anything is.
    """
    height, width = frame_HWC.shape[:2]
    sparse = frame_HWC[:: -(-height // _SAMPLES), :: -(-width // _SAMPLES)].reshape(-1, 3)
    deciles: Array = (np.quantile(sparse, _DECILES, axis=0) / FRAME_SCALE[frame_HWC.dtype.name]).astype(np.float32)
    return deciles


def change(before: Array, after: Array) -> float:
    """Mean of |after - before| / (before + 0.02) over two signatures."""
    return float(np.mean(np.abs(after - before) / (before + np.float32(MRAE_OFFSET))))
