"""The context that a stream's frame is decoded with: its own, that of an earlier frame, or a running mean.

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
"""Relative change of the signature at which a new scene begins; ``docs/stream.md`` has its cost and benefit."""

SMOOTHING = 0.2
"""Weight of the newest context in the running mean: about the last nine frames count."""

_MAX_SAMPLES = 64  # pixels of the signature per side
_DECILES = np.linspace(0.1, 0.9, 9)


class Encoder(Protocol):
    """The method of a Reconstructor that computes contexts."""

    def encode(self, frame: Frame) -> Array:
        """Return the context (1, N) of a frame."""


class ContextPolicy:
    """A policy that chooses the context of each frame of one stream; use it from one thread at a time.

    - ``every:N`` encodes each N-th frame; ``every:1`` leaves contexts to the Reconstructor, for which one pass may be
      enough.
    - ``scene`` encodes a frame when the scene has changed.
    - ``smooth`` encodes each frame and mixes it into a running mean, which starts again when the scene has changed.

    All start again when the size of the frames changes.
    """

    def __init__(self, text: str) -> None:
        """Start a policy.

        Args:
            text: ``every:N``, ``scene`` or ``smooth``.

        Raises:
            CCNetError: The text is anything else.
        """
        match = re.fullmatch(r"every:([1-9][0-9]{0,8})|scene|smooth", text)
        if match is None:
            raise CCNetError(f"the context is {text!r}, expected every:N such as every:1, scene or smooth")
        self.name = text
        self.encoded = 0
        """Number of frames with a context of their own."""
        self._every = int(match[1]) if match[1] else None
        self._context: Array | None = None
        self._signature = np.zeros((9, 3), np.float32)
        self._shape: tuple[int, ...] = ()
        self._age = 0

    def __call__(self, encoder: Encoder, frame: Frame) -> Array | None:
        """Return the context of the stream's next frame.

        Args:
            encoder: Object that encodes a frame where the policy wants it.
            frame: (H, W, 3) uint8, uint16 or float32 in [0, 1].

        Returns:
            Context (1, N) float32; None for the frame's own.
        """
        if self._every == 1:
            self.encoded += 1
            return None
        restart = self._context is None or frame.shape != self._shape
        self._age += 1
        new_signature = self._signature
        if self._every is not None:
            encode = restart or self._age >= self._every
        else:
            new_signature = signature(frame)
            restart = restart or change(self._signature, new_signature) > SCENE_CHANGE
            encode = restart or self.name == "smooth"
        if encode or self._context is None:
            # An encode that fails changes nothing else, so that the next frame is encoded in its place
            self._context = self._smoothed(encoder.encode(frame), restart)
            self._shape, self._age, self._signature = frame.shape, 0, new_signature
            self.encoded += 1
        return self._context

    def _smoothed(self, context: Array, restart: bool) -> Array:
        if restart or self._context is None or self.name != "smooth":
            return context
        # The rows of an attention matrix sum to 1, and so do the rows of a mean of such matrices
        return self._context + np.float32(SMOOTHING) * (context - self._context)


def signature(frame_HWC: Frame) -> Array:
    """Return the deciles of each channel, which a pan of the camera hardly changes: they know no positions.

    Args:
        frame_HWC: (H, W, 3) uint8, uint16 or float32 in [0, 1], of which at most 64×64 pixels are read.

    Returns:
        (9, 3) float32 in [0, 1].
    """
    height, width = frame_HWC.shape[:2]
    sparse = frame_HWC[:: -(-height // _MAX_SAMPLES), :: -(-width // _MAX_SAMPLES)].reshape(-1, 3)
    deciles = np.quantile(sparse, _DECILES, axis=0) / FRAME_SCALE[frame_HWC.dtype.name]
    return deciles.astype(np.float32)


def change(before: Array, after: Array) -> float:
    """Return the mean of |after - before| / (before + 0.02) over two signatures (9, 3)."""
    return float(np.mean(np.abs(after - before) / (before + np.float32(MRAE_OFFSET))))
