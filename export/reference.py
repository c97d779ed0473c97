"""What a frame's cube should be: as PyTorch computes it here, or as it did when the bundle was made."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, FRAME_SCALE, CCNetError, Manifest
from ccnet.runtime.io.frames import Frame, rgb_tensor

if TYPE_CHECKING:
    from ccnet.model import CCNet

Array = npt.NDArray[np.float32]

GOLDEN = "golden.npz"
"""References in an artifact folder, for machines without torch."""

_MOST = 64  # references in a file


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A frame (H, W, 3) as the graphs take it, and what is right for it: context (1, N), cube (31, H, W), float32.

    source: of the frame, for people. made_by: what computed context and cube.
    """

    source: str
    made_by: str
    frame: Frame
    context: Array
    cube: Array


def by_torch(model: CCNet, frame: Frame, source: str) -> Reference:
    """The whole frame at once, in float32, by torch's own layers: kernels of ours are what is to be judged."""
    import torch

    from ccnet.ops.kernels import reference_ops

    with reference_ops(), torch.inference_mode():
        cube, context = (
            tensor.numpy() for tensor in model.eval().run(torch.from_numpy(rgb_tensor(frame, "float32")), None)
        )
    return Reference(source=source, made_by=f"torch {torch.__version__}", frame=frame, context=context, cube=cube[0])


def pack(references: Sequence[Reference]) -> bytes:
    """As a ``.npz`` of plain arrays."""
    arrays: dict[str, Any] = {
        "sources": np.array([one.source for one in references]),
        "made_by": np.array([one.made_by for one in references]),
    }
    for index, one in enumerate(references):
        arrays |= {f"frame{index}": one.frame, f"context{index}": one.context, f"cube{index}": one.cube}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def golden(folder_data: bytes, manifest: Manifest) -> list[Reference]:
    """The references of a ``golden.npz``; CCNetError where it is not one of the manifest's network."""
    try:
        with np.load(io.BytesIO(folder_data), allow_pickle=False) as arrays:
            sources, made_by = (arrays[name].tolist() for name in ("sources", "made_by"))
            found = [
                Reference(source=source, made_by=maker, **_arrays(arrays, index))
                for index, (source, maker) in enumerate(zip(sources[:_MOST], made_by, strict=True))
            ]
    except Exception as error:  # numpy's and zipfile's errors on hostile bytes have no common base
        raise CCNetError(f"{GOLDEN}: not golden outputs ({error}): make the bundle again") from error
    for one in found:
        _check(one, manifest)
    if not found:
        raise CCNetError(f"{GOLDEN}: holds no frame: make the bundle again")
    return found


def _arrays(arrays: Mapping[str, Any], index: int) -> dict[str, Any]:
    return {name: arrays[f"{name}{index}"] for name in ("frame", "context", "cube")}


def _check(one: Reference, manifest: Manifest) -> None:
    frame, shapes = one.frame, ((1, manifest.context_size), (len(BANDS_NM), *one.frame.shape[:2]))
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype.name not in FRAME_SCALE:
        raise CCNetError(f"{GOLDEN}: a frame is {frame.dtype} {frame.shape}, expected (H, W, 3): make the bundle again")
    for array, shape in zip((one.context, one.cube), shapes, strict=True):
        if array.dtype != np.float32 or array.shape != shape:
            raise CCNetError(
                f"{GOLDEN}: an output is {array.dtype} {array.shape}, expected float32 {shape}: make the bundle again"
            )
