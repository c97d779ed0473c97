"""The memory that frames take on the GPU, so that their tiles stay within a budget. Lengths are px, memory is bytes."""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from ccnet.contract import BANDS_NM, CCNetError, padded_size
from ccnet.runtime.backends.loading import SizeLimits
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.tiles.context_encoder import block_side
from ccnet.runtime.tiles.memory import full_bytes, tile_bytes
from ccnet.runtime.tiles.planner import FramePlan, TileRules, plan_frame

from .pixels import PixelLayout

FRAME_BYTES = 256_000_000
"""Maximum size of the pixels on the GPU; a larger frame is uploaded and decoded section by section."""

_FLOAT = 4


class EncodeInput(NamedTuple):
    """Input of ``encode`` for a frame, and of ``full``."""

    side: int
    """Side of the blocks whose means it reads; 1 for the pixels themselves."""
    height: int
    """Height of its input."""
    width: int
    """Width of its input."""


class GpuPlan(NamedTuple):
    """The way of a frame through the engines."""

    tiles: FramePlan
    """Tiles of ``decode``, with all memory that the frame takes on the GPU."""
    full: EncodeInput | None
    """Input of ``full``, the whole frame: a single tile that is not reduced, in the limits of the engine and of the
    budget. None: the frame takes ``encode`` and ``decode``."""


@dataclass(frozen=True)
class GpuMemory:
    """Memory that a ``Pipeline`` allocates for a frame, beside the engines' weights.

    That is a frame, or a section of a large one; the means of its blocks; the input of ``encode``; pixels and cube of
    each of two tiles; and one block of scratch memory, as large as ``encode``, ``full`` or a tile needs.

    Attributes:
        layout: Layout of the pixels.
        multiple: Grid of the sides of inputs.
        context_size: Number of values of the context.
        encode_limits: Shortest and longest side that ``encode`` takes.
        encode_bytes: Memory of a pixel while ``encode`` runs.
        full_limits: Shortest and longest side that ``full`` takes; None if there is no such engine.
        full_bytes: Memory of a pixel while ``full`` runs.
    """

    layout: PixelLayout
    multiple: int
    context_size: int
    encode_limits: SizeLimits
    encode_bytes: int
    full_limits: SizeLimits | None = None
    full_bytes: int = 0

    @classmethod
    def of(cls, selection: Selection) -> GpuMemory:
        """Return the memory of the engines that were selected."""
        manifest = selection.folder.manifest
        return cls(
            layout=PixelLayout(manifest.input),
            multiple=manifest.size_multiple,
            context_size=manifest.context_size,
            encode_limits=SizeLimits.of(selection.encode, manifest.size_multiple),
            encode_bytes=tile_bytes(selection.encode),
            full_limits=SizeLimits.of(selection.full, manifest.size_multiple) if selection.full else None,
            full_bytes=full_bytes(selection),
        )

    def rules(self, rules: TileRules) -> TileRules:
        """Return rules for two tiles at a time."""
        return replace(rules, slot_bytes=self.layout.nbytes(1, 1) + _FLOAT * len(BANDS_NM))

    def encode_input(self, height: int, width: int, max_pixels: int) -> EncodeInput:
        """Return the input of ``encode`` for a frame, of at most ``max_pixels`` pixels or of its means."""
        limits = self.encode_limits
        side = block_side(height, width, max_pixels, limits.most)
        read = (max(padded_size(math.ceil(size / side), self.multiple), limits.least) for size in (height, width))
        return EncodeInput(side, *read)

    def can_be_full(self, read: EncodeInput) -> bool:
        """Return whether there is a ``full`` that takes inputs of this size, of pixels and not of means."""
        limits = self.full_limits
        if limits is None or read.side > 1:
            return False
        return limits.least <= min(read.height, read.width) and max(read.height, read.width) <= limits.most

    def plan(self, height: int, width: int, rules: TileRules, max_pixels: int) -> GpuPlan:
        """Return the way of a frame.

        Args:
            height: Height of the frame.
            width: Width of the frame.
            rules: The sizes that tiles may have, and the budget.
            max_pixels: Maximum of pixels of a frame that ``encode`` reads as it is.

        Returns:
            The plan.

        Raises:
            CCNetError: The frame does not fit the budget.
        """
        return _plan(self, height, width, rules, max_pixels)


@functools.lru_cache(maxsize=64)
def _plan(memory: GpuMemory, height: int, width: int, rules: TileRules, max_pixels: int) -> GpuPlan:
    read, layout = memory.encode_input(height, width, max_pixels), memory.layout
    frame = _frame_pixels(memory, height, width, rules, read) + layout.nbytes(read.height, read.width)
    numbers = memory.context_size + math.ceil(height / memory.multiple) * math.ceil(width / memory.multiple) + 2

    def planned(bytes_per_pixel: int) -> FramePlan:
        scratch = max(bytes_per_pixel, 0) * read.height * read.width
        return plan_frame(height, width, frame + _FLOAT * numbers, replace(memory.rules(rules), shared_bytes=scratch))

    encode = memory.encode_bytes - layout.nbytes(1, 1)
    if memory.can_be_full(read):
        with contextlib.suppress(CCNetError):  # the budget may be enough for two passes
            found = planned(max(encode, memory.full_bytes - layout.nbytes(1, 1) - _FLOAT * len(BANDS_NM)))
            if found.tiles == 1:
                return GpuPlan(found, read)
    return GpuPlan(planned(encode), None)


def _frame_pixels(memory: GpuMemory, height: int, width: int, rules: TileRules, read: EncodeInput) -> int:
    """Return the memory of the frame's pixels that are on the GPU at a time, and of the means for ``encode``."""
    layout = memory.layout
    height, width = (max(padded_size(size, memory.multiple), rules.least) for size in (height, width))
    if read.side == 1:
        return layout.nbytes(max(height, read.height), max(width, read.width))
    tallest_tile = min(rules.most, height) if rules.tile is None else rules.tile
    rows = min(height, max(FRAME_BYTES // layout.nbytes(1, width), tallest_tile))
    return layout.nbytes(rows, width) + layout.nbytes(read.height, read.width)
