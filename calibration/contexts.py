"""The cost of a cheaper context: the cube under it, compared with the cube under the context of all pixels.

Legend: a frame is (H, W, 3) of the weights' camera; a context is (1, N) float32.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccnet.contract import ArtifactFolder
from ccnet.metrics import mrae, sam
from ccnet.runtime import Reconstructor
from ccnet.runtime.io.frames import Frame, block_mean

Context = npt.NDArray[np.float32]

MEANS_SIDES = (512, 256, 128, 64)
"""Frames are reduced to means of at most the squares of these numbers of blocks."""

SAMPLED_TILES = (64, 32)
"""Sides of the tiles, px, of which one in four is encoded."""

MOVES = (16, 64, 128)
"""Distances, px, by which the frame before is moved along both axes."""


@dataclass(frozen=True)
class CheapContext:
    """A context of one frame that reads fewer pixels than all of them.

    Attributes:
        name: The scheme.
        pixels: Pixels that ``encode`` reads for this frame.
        context: The context.
    """

    name: str
    pixels: int
    context: Context


@dataclass(frozen=True)
class ContextCost:
    """Savings and cost of a scheme over all frames that it fits.

    Attributes:
        name: The scheme.
        frames: Number of frames.
        share: Largest share of a frame's pixels that ``encode`` reads.
        mrae: MRAE between the cubes, median over the frames.
        worst_mrae: The largest MRAE.
        worst_sam: The largest spectral angle, degrees.
    """

    name: str
    frames: int
    share: float
    mrae: float
    worst_mrae: float
    worst_sam: float


def measure(
    folder: ArtifactFolder,
    frames: Sequence[Frame],
    side: int,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[ContextCost]:
    """Measure all schemes on some frames, in FP32 on the CPU.

    ``decode`` is local, so that the centre of a frame says how far two contexts are apart: only that is decoded.

    Args:
        folder: An artifact folder with FP32 graphs.
        frames: Whole frames of the weights' camera.
        side: Longest side of the centre that is decoded, px.
        on_progress: Called with a phase, the number of a frame and the number of frames.

    Returns:
        The costs, one a scheme.
    """
    errors: dict[str, list[tuple[float, float, float]]] = {}
    with Reconstructor.open(folder, input_space="camera", backend="onnxruntime", precision="fp32") as run:
        contexts = []
        for index, frame in enumerate(frames):
            on_progress("whole frames", index, len(frames))
            contexts.append(_encode(run, frame))
        for index, frame in enumerate(frames):
            on_progress("cheaper contexts", index, len(frames))
            centre = _centre(frame, side)
            expected = run(centre, contexts[index])
            others = [context for number, context in enumerate(contexts) if number != index]
            for cheap in (*cheaper_contexts(run, frame), *_foreign_contexts(others)):
                cube = run(centre, cheap.context)
                figures = cheap.pixels / frame[..., 0].size, mrae(expected, cube), sam(expected, cube)
                errors.setdefault(cheap.name, []).append(figures)
    return [_summary(name, figures) for name, figures in errors.items()]


def cheaper_contexts(run: Reconstructor, frame: Frame) -> Iterator[CheapContext]:
    """Yield the contexts of a frame that read fewer pixels of it, or an earlier view of the same scene."""
    pixels = frame[..., 0].size
    for side in MEANS_SIDES:
        if side * side < pixels:
            means = block_mean(frame, _block_side(frame, side * side))
            yield CheapContext(f"means of at most {side}² blocks", means[..., 0].size, _encode(run, means))
    for side in SAMPLED_TILES:
        if (sampled := sample_tiles(frame, side)).size:
            yield CheapContext(f"one tile in four, {side} px", sampled[..., 0].size, _encode(run, sampled))
    for distance in MOVES:
        if distance < min(frame.shape[:2]) // 2:
            before = np.ascontiguousarray(frame[distance:, distance:])
            yield CheapContext(f"the frame before, moved by {distance} px", 0, _encode(run, before))


def sample_tiles(frame: Frame, side: int) -> Frame:
    """Return every second tile of every second row of tiles, moved together; empty for a frame that is too small.

    Args:
        frame: The frame (H, W, 3).
        side: Side of a tile, px.

    Returns:
        The sampled tiles (h, w, 3), of about a quarter of the pixels.
    """
    rows, columns = (size // (2 * side) for size in frame.shape[:2])
    tiles = frame[: rows * 2 * side, : columns * 2 * side].reshape(rows, 2, side, columns, 2, side, 3)
    return np.ascontiguousarray(tiles[:, 0, :, :, 0].reshape(rows * side, columns * side, 3))


def _foreign_contexts(others: Sequence[Context]) -> Iterator[CheapContext]:
    """Yield contexts that know nothing of the frame: they bound what any context is worth."""
    if others:
        mean: Context = np.stack(others).mean(axis=0, dtype=np.float64).astype(np.float32)
        yield CheapContext("the mean of other frames' contexts", 0, mean)
        yield CheapContext("another frame's context", 0, others[0])


def _encode(run: Reconstructor, frame: Frame) -> Context:
    """Return the context of all pixels of a frame."""
    run.encode_pixels = frame[..., 0].size
    return run.encode(frame)


def _block_side(frame: Frame, max_blocks: int) -> int:
    """Return the side, px, of the smallest square blocks of which at most ``max_blocks`` cover the frame."""
    side = 1
    while math.prod(math.ceil(size / side) for size in frame.shape[:2]) > max_blocks:
        side += 1
    return side


def _centre(frame: Frame, side: int) -> Frame:
    spans = [slice((size - min(size, side)) // 2, (size + min(size, side)) // 2) for size in frame.shape[:2]]
    return np.ascontiguousarray(frame[spans[0], spans[1]])


def _summary(name: str, figures: Sequence[tuple[float, float, float]]) -> ContextCost:
    shares, errors, angles = zip(*figures, strict=True)
    return ContextCost(name, len(figures), max(shares), statistics.median(errors), max(errors), max(angles))


def as_rows(costs: Sequence[ContextCost]) -> Iterator[Mapping[str, str]]:
    """Yield the rows of the table: title → cell."""
    for cost in costs:
        yield {
            "context": cost.name,
            "frames": str(cost.frames),
            "pixels read": f"{cost.share:.1%}",
            "MRAE, median": f"{cost.mrae:.1e}",
            "worst": f"{cost.worst_mrae:.1e}",
            "SAM °, worst": f"{cost.worst_sam:.2f}",
        }
