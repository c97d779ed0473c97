"""The frames that ``ccnet check`` compares on and ``ccnet bundle`` stores, with the outputs that are right for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccnet.contract import SHIPPED_WEIGHTS, ArtifactFolder, CCNetError
from ccnet.runtime.io.srgb import InputSpace

if TYPE_CHECKING:
    from ccnet.export.reference import Reference
    from ccnet.model import CCNet
    from ccnet.runtime.io.frames import Frame


@dataclass(frozen=True, kw_only=True)
class ReferenceFrame:
    """A frame's name, its pixels as people see them, and the reference outputs for it."""

    name: str
    picture: Frame
    reference: Reference


def reference_frames(
    folder: ArtifactFolder,
    paths: list[Path],
    weights: Path | None,
    input_space: InputSpace,
    side: int | None = None,
) -> Iterator[ReferenceFrame]:
    """Yield the frames of ``paths`` with PyTorch's outputs, or without paths the folder's golden outputs.

    Args:
        folder: Artifact folder.
        paths: Files of frames.
        weights: Weights that the folder was exported from; None for those that the package ships.
        input_space: Input colour space of the frames.
        side: Longest side in px; larger frames, and those that PyTorch cannot hold at once, are cut to their centres.

    Yields:
        Each frame with its reference.

    Raises:
        CCNetError: There are neither paths nor golden outputs, or the folder was exported from other weights.
    """
    from ccnet.export.reference import golden

    if paths:
        yield from _computed_by_torch(folder, paths, weights, input_space, side)
        return
    if not any(artifact.kind == "golden" for artifact in folder.manifest.artifacts):
        raise CCNetError(f"{folder.path}: no frames, and no golden outputs of a bundle: give --frames")
    for stored in golden(folder.read(folder.find("golden", format="npz")), folder.manifest):
        yield ReferenceFrame(name=stored.source, picture=stored.frame, reference=stored)


def _computed_by_torch(
    folder: ArtifactFolder, paths: list[Path], weights: Path | None, input_space: InputSpace, side: int | None
) -> Iterator[ReferenceFrame]:
    from ccnet.export.reference import by_torch
    from ccnet.runtime.io.frames import read_frame
    from ccnet.runtime.io.srgb import to_camera_rgb

    model = _exported_model(folder, weights)
    for path in paths:
        picture = _centre(read_frame(path, as_stored=True), side)
        yield ReferenceFrame(
            name=path.name,
            picture=picture,
            reference=by_torch(model, to_camera_rgb(picture, input_space, folder.manifest), path.name),
        )


def _exported_model(folder: ArtifactFolder, weights: Path | None) -> CCNet:
    from ccnet.model.checkpoint import load_checkpoint, weights_hash

    model = load_checkpoint(weights or SHIPPED_WEIGHTS)
    if weights_hash(model) != folder.manifest.weights_sha256:
        raise CCNetError(f"{folder.path}: exported from other weights; name them with --weights, or export again")
    return model


def _centre(frame: Frame, side: int | None) -> Frame:
    """Return the frame's centre, at most ``side`` px a side or as large as PyTorch can hold at once."""
    from ccnet.export.verify import MAX_PIXELS

    height, width = frame.shape[:2]
    shrink = min(1.0, math.sqrt(MAX_PIXELS / (height * width)))
    rows, columns = (min(size, side or max(16, int(size * shrink))) for size in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return frame[top : top + rows, left : left + columns].copy()
