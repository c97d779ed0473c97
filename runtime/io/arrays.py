"""Frames from arrays of other libraries: DLPack in host memory shares the memory, CUDA arrays are downloaded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import Device

from .frames import Frame

_LEGACY_STREAM = 1  # its number in CUDA and in __cuda_array_interface__


def as_frame(array: Any) -> Frame:
    """Return the pixels as a numpy array. The Reconstructor checks dtype and shape.

    Args:
        array: numpy; DLPack in host memory (``torch``, ``cupy``'s pinned); or ``__cuda_array_interface__``
            (``torch.cuda``, CuPy, Numba), for which this call waits for the stream that the array names.

    Returns:
        The array's own memory; a copy for CUDA arrays, because tiles are cut on the host.

    Raises:
        CCNetError: The array is none of these, or cannot be read.
    """
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "__cuda_array_interface__"):
        return _download(array.__cuda_array_interface__)
    if not hasattr(array, "__dlpack__"):
        raise CCNetError(f"frame is a {type(array).__name__}, expected numpy, DLPack or __cuda_array_interface__")
    try:
        pixels: Any = np.from_dlpack(array)
        return pixels
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise CCNetError(f"frame cannot be read through DLPack ({why}): pass it in host memory, detached") from error


def _download(interface: dict[str, Any]) -> Frame:
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    frame: Frame = np.empty(shape, dtype)
    if interface.get("strides") not in (None, frame.strides):
        raise CCNetError("frame is a strided CUDA array, expected C order: make it contiguous")
    if not math.prod(shape):
        return frame
    stream = interface.get("stream") or _LEGACY_STREAM
    with Device() as device:
        device.call("cuMemcpyDtoHAsync_v2", frame.ctypes.data, interface["data"][0], frame.nbytes, stream)
        device.call("cuStreamSynchronize", stream)
    return frame


def output_array(out: npt.NDArray[np.float32] | None, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return ``out`` if it is a float32 array of this shape, or a new array; a CCNetError otherwise."""
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32 or not out.flags.writeable:
        kind = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise CCNetError(f"out is {kind}, expected a writeable float32 {shape}")
    return out
