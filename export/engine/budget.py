"""The memory of engines: sides of ``encode`` and ``decode`` within a budget, and what a built engine needs.

While an engine runs, it needs scratch memory in proportion to the pixels of its input. All engines share one block of
it, as they never run at the same time, so each of them may take the whole budget. ``full`` takes frames that fit both
of the other engines, and needs less than ``encode``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from ccnet.contract import BANDS_NM, CCNetError

ENCODE_SIDE = 640
"""Longest side, px, that ``encode`` takes by default. The runtime gives it at most 512×512 px, which may be 640×360 or
600×400."""

DECODE_SIDE = 512
"""Longest side of a tile, px, by default."""

BYTES_PER_PIXEL: Mapping[tuple[str, str], int] = MappingProxyType(
    {("encode", "fp32"): 3300, ("decode", "fp16"): 2300, ("decode", "fp32"): 3500, ("decode", "int8"): 3500}
)
"""Graph and precision → memory of a pixel, with a tenth to spare. TensorRT-RTX 1.7.1 reports 2961 bytes of scratch
memory for ``encode``, 1491 for ``decode`` in FP16 and 2985 in FP32; a pixel of frame and cube takes 136 more. The entry
of FP16 is still that of a graph which took 1825."""


def side_within(memory: int, kind: str, precision: str, multiple: int, least: int) -> int:
    """Return the longest side of a square that an engine can take within a memory budget.

    Args:
        memory: Budget, bytes.
        kind: ``encode`` or ``decode``.
        precision: Precision of the graph.
        multiple: Grid of the side, px.
        least: Shortest side that is useful, px.

    Returns:
        The side, px.

    Raises:
        CCNetError: The budget is too small.
    """
    pixel = BYTES_PER_PIXEL[kind, precision]
    side = math.isqrt(max(memory, 0) // pixel) // multiple * multiple
    if side < least:
        need = math.ceil(least**2 * pixel / 1e6)
        raise CCNetError(
            f"memory is {memory / 1e6:.0f} MB, expected at least {need} MB, for {kind} of {least}×{least} px"
        )
    return side


def bytes_per_pixel(kind: str, scratch: int, pixels: int, packed: bool) -> int:
    """Return the memory that a built engine takes for a pixel of its largest input, with its input and output.

    Args:
        kind: ``encode`` or ``decode``.
        scratch: Scratch memory for the largest input, bytes.
        pixels: Pixels of the largest input.
        packed: The input is uint8 instead of float32.

    Returns:
        The memory, bytes.
    """
    frame = 3 if packed else 12
    cube = 0 if kind == "encode" else 4 * len(BANDS_NM)
    return math.ceil(scratch / pixels) + frame + cube
