"""The frames that a network is calibrated on: real, all different, and as diverse as they come.

A frame is (H, W, 3) uint8, uint16 or float32 in [0, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccnet.contract import CONTEXT, FRAME_SCALE, RGB, CCNetError, Manifest
from ccnet.runtime import Reconstructor
from ccnet.runtime.io.frames import Frame, frame_paths, read_frame, rgb_tensor
from ccnet.runtime.quality.sampling import farthest_points

Feed = dict[str, npt.NDArray[np.generic]]
"""A graph's inputs by name."""


def read_frames(given: Iterable[Path], *, side: int, multiple: int, most: int) -> dict[Path, Frame]:
    """Centre crops by path, at most ``most`` of them, those that differ most from each other.

    given: frames, and folders of frames. side: the crops' longest, px; both sides are multiples of ``multiple``.
    CCNetError where there is no frame, for one that cannot be read or is too small, and for a frame that comes twice:
    a repeated frame adds nothing but the look of a larger set.
    """
    if side < multiple or side % multiple:
        raise CCNetError(f"side is {side} px, expected a multiple of {multiple} px")
    if most < 1:
        raise CCNetError(f"at most {most} frames, expected at least 1")
    paths = frame_paths(given)
    frames = [_centre(path, read_frame(path), side, multiple) for path in paths]
    _refuse_repeats(paths, frames)
    return {paths[index]: frames[index] for index in diverse(frames, most)}


def diverse(frames: Sequence[Frame], most: int) -> list[int]:
    """Indices of at most ``most`` frames: the first, then each time the one farthest from all that were taken.

    Far apart are frames whose contrast or colours, as means of 4×4 blocks, differ (Euclidean).
    """
    return farthest_points(np.stack([_feature(frame) for frame in frames]), 0, most)


def feeds_of(folder: Path, frames: Iterable[Frame]) -> list[Feed]:
    """``decode``'s inputs in an artifact folder, each frame with its own context.

    frames: sides are multiples of the manifest's ``size_multiple``. CCNetError for a folder that is not whole.
    """
    manifest = Manifest.read(folder)
    with Reconstructor.open(folder, input_space="camera", backend="onnxruntime", precision="fp32") as reconstructor:
        return [{RGB: rgb_tensor(frame, manifest.input), CONTEXT: reconstructor.encode(frame)} for frame in frames]


def _centre(path: Path, frame: Frame, side: int, multiple: int) -> Frame:
    spans = []
    for size in frame.shape[:2]:
        kept = min(side, size // multiple * multiple)
        if not kept:
            raise CCNetError(f"{path}: {frame.shape[1]}×{frame.shape[0]} px, expected at least {multiple} px a side")
        spans.append(slice((size - kept) // 2, (size - kept) // 2 + kept))
    return np.ascontiguousarray(frame[spans[0], spans[1]])


def _refuse_repeats(paths: list[Path], frames: list[Frame]) -> None:
    seen: dict[tuple[object, ...], Path] = {}
    for path, frame in zip(paths, frames, strict=True):
        key = (frame.shape, frame.dtype, hashlib.sha256(frame.tobytes()).digest())
        if key in seen:
            raise CCNetError(f"{path}: shows what {seen[key]} shows, expected different frames; leave one of them out")
        seen[key] = path


def _feature(frame: Frame) -> npt.NDArray[np.float64]:
    scaled = np.divide(frame, FRAME_SCALE[frame.dtype.name], dtype=np.float64)
    rows, columns = (np.linspace(0, size, 5).astype(int) for size in scaled.shape[:2])
    means = [
        scaled[top:bottom, left:right].mean(axis=(0, 1))
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    return np.concatenate([*means, scaled.std(axis=(0, 1))])
