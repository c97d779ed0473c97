"""Frames to calibrate on: read, cropped, compared with each other, and chosen to differ.

A frame is (H, W, 3) uint8, uint16 or float32 in [0, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccnet.contract import CONTEXT, FRAME_SCALE, RGB, ArtifactFolder, CCNetError
from ccnet.runtime import Reconstructor
from ccnet.runtime.io.frames import Frame, frame_paths, read_frame, rgb_tensor
from ccnet.runtime.quality.sampling import farthest_points

Feed = dict[str, npt.NDArray[np.generic]]
"""A graph's inputs by name."""


def read_frames(sources: Iterable[Path], *, side: int, multiple: int, max_frames: int) -> dict[Path, Frame]:
    """Read the centre crops of the frames that differ most from each other.

    Args:
        sources: Frames, and folders of frames.
        side: Longest side of a crop, px.
        multiple: Both sides of a crop are multiples of this, px.
        max_frames: Most crops to return.

    Returns:
        The crops by path.

    Raises:
        CCNetError: There is no frame; a frame cannot be read or is smaller than ``multiple``; or a frame comes twice,
            which would make a set look larger without adding to it.
    """
    if side < multiple or side % multiple:
        raise CCNetError(f"side is {side} px, expected a multiple of {multiple} px")
    if max_frames < 1:
        raise CCNetError(f"at most {max_frames} frames, expected at least 1")
    paths = frame_paths(sources)
    frames = [_centre_crop(path, read_frame(path, as_stored=True), side, multiple) for path in paths]
    _refuse_repeats(paths, frames)
    return {paths[index]: frames[index] for index in select_diverse(frames, max_frames)}


def select_diverse(frames: Sequence[Frame], max_frames: int) -> list[int]:
    """Return the indices of frames that differ most from each other.

    The first frame is always taken, then each time the frame farthest from all that were taken. Frames are far apart
    if their contrast or their colours, as means of 4×4 blocks, differ (Euclidean distance).

    Args:
        frames: At least one frame.
        max_frames: Most indices to return.

    Returns:
        Indices in the order in which they were taken.
    """
    return farthest_points(np.stack([_feature(frame) for frame in frames]), 0, max_frames)


def decode_feeds(folder: ArtifactFolder, frames: Iterable[Frame]) -> list[Feed]:
    """Compute the inputs of an artifact folder's ``decode``, each frame with its own context.

    Args:
        folder: An artifact folder with FP32 graphs.
        frames: Frames whose sides are multiples of the manifest's ``size_multiple``.

    Returns:
        One feed a frame: ``rgb`` as the manifest's input form says, and ``context``.
    """
    with Reconstructor.open(folder, input_space="camera", backend="onnxruntime", precision="fp32") as reconstructor:
        return [
            {RGB: rgb_tensor(frame, folder.manifest.input), CONTEXT: reconstructor.encode(frame)} for frame in frames
        ]


def _centre_crop(path: Path, frame: Frame, side: int, multiple: int) -> Frame:
    spans = []
    for size in frame.shape[:2]:
        cropped = min(side, size // multiple * multiple)
        if not cropped:
            raise CCNetError(f"{path}: {frame.shape[1]}×{frame.shape[0]} px, expected at least {multiple} px a side")
        spans.append(slice((size - cropped) // 2, (size - cropped) // 2 + cropped))
    return np.ascontiguousarray(frame[spans[0], spans[1]])


def _refuse_repeats(paths: list[Path], frames: list[Frame]) -> None:
    first: dict[tuple[object, ...], Path] = {}
    for path, frame in zip(paths, frames, strict=True):
        key = (frame.shape, frame.dtype, hashlib.sha256(frame.tobytes()).digest())
        if key in first:
            raise CCNetError(f"{path}: same pixels as {first[key]}, expected different frames; leave one of them out")
        first[key] = path


def _feature(frame: Frame) -> npt.NDArray[np.float64]:
    scaled = np.divide(frame, FRAME_SCALE[frame.dtype.name], dtype=np.float64)
    rows, columns = (np.linspace(0, size, 5).astype(int) for size in scaled.shape[:2])
    means = [
        scaled[top:bottom, left:right].mean(axis=(0, 1))
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    return np.concatenate([*means, scaled.std(axis=(0, 1))])
