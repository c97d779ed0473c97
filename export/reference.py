"""The outputs that are right for a frame: as PyTorch computes them now, or as it did when a bundle was made."""

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
"""Name of the references in an artifact folder, for machines without torch."""

_MAX_REFERENCES = 64


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A frame as the graphs take it, and the outputs that are right for it.

    Attributes:
        source: The frame's name, for people.
        made_by: What computed context and cube, such as ``torch 2.6``.
        frame: (H, W, 3).
        context: (1, N), float32.
        cube: (31, H, W), float32, reflectance.
    """

    source: str
    made_by: str
    frame: Frame
    context: Array
    cube: Array


def by_torch(model: CCNet, frame: Frame, source: str) -> Reference:
    """Compute a reference on the whole frame at once, in float32, without the compiled kernels, which it must judge."""
    import torch

    from ccnet.ops.kernels import reference_ops

    with reference_ops(), torch.inference_mode():
        cube, context = (
            tensor.numpy() for tensor in model.eval().run(torch.from_numpy(rgb_tensor(frame, "float32")), None)
        )
    return Reference(source=source, made_by=f"torch {torch.__version__}", frame=frame, context=context, cube=cube[0])


def pack(references: Sequence[Reference]) -> bytes:
    """Return the references as a ``.npz`` of plain arrays."""
    arrays: dict[str, Any] = {
        "sources": np.array([reference.source for reference in references]),
        "made_by": np.array([reference.made_by for reference in references]),
    }
    for index, reference in enumerate(references):
        arrays[f"frame{index}"] = reference.frame
        arrays[f"context{index}"] = reference.context
        arrays[f"cube{index}"] = reference.cube
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def golden(data: bytes, manifest: Manifest) -> list[Reference]:
    """Read the references of a ``golden.npz``.

    Args:
        data: The file's content.
        manifest: Describes the network that the references must be for.

    Returns:
        At least one reference.

    Raises:
        CCNetError: It is damaged, empty, or of another network.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            sources, made_by = (arrays[name].tolist() for name in ("sources", "made_by"))
            references = [
                Reference(source=source, made_by=maker, **_arrays(arrays, index))
                for index, (source, maker) in enumerate(zip(sources[:_MAX_REFERENCES], made_by, strict=True))
            ]
    except Exception as error:  # numpy's and zipfile's errors on hostile bytes have no common base
        raise CCNetError(f"{GOLDEN}: not golden outputs ({error}): make the bundle again") from error
    for reference in references:
        _check(reference, manifest)
    if not references:
        raise CCNetError(f"{GOLDEN}: holds no frame: make the bundle again")
    return references


def _arrays(arrays: Mapping[str, Any], index: int) -> dict[str, Any]:
    return {name: arrays[f"{name}{index}"] for name in ("frame", "context", "cube")}


def _check(reference: Reference, manifest: Manifest) -> None:
    frame, context_shape = reference.frame, (1, manifest.context_size)
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype.name not in FRAME_SCALE:
        raise CCNetError(f"{GOLDEN}: a frame is {frame.dtype} {frame.shape}, expected (H, W, 3): make the bundle again")
    shapes = (context_shape, (len(BANDS_NM), *frame.shape[:2]))
    for array, shape in zip((reference.context, reference.cube), shapes, strict=True):
        if array.dtype != np.float32 or array.shape != shape:
            raise CCNetError(
                f"{GOLDEN}: an output is {array.dtype} {array.shape}, expected float32 {shape}: make the bundle again"
            )
