"""Frames of other libraries: anything with DLPack in host memory is taken as it is, CUDA arrays are downloaded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ccnet.contract import CCNetError
from ccnet.runtime.backends.cuda import Device

from .frames import Frame

_LEGACY_STREAM = 1  # as __cuda_array_interface__ and CUDA number it


def as_frame(given: Any) -> Frame:
    """A numpy array of the pixels: the same memory, but for CUDA arrays, whose windows are cut on the host.

    given: numpy, DLPack in host memory (``torch``, ``cupy``'s pinned), or ``__cuda_array_interface__`` (``torch.cuda``,
    CuPy, Numba), which waits for the stream that the array names. CCNetError for anything else; dtype and shape are the
    Reconstructor's to check.
    """
    if isinstance(given, np.ndarray):
        return given
    if hasattr(given, "__cuda_array_interface__"):
        return _download(given.__cuda_array_interface__)
    if not hasattr(given, "__dlpack__"):
        raise CCNetError(f"frame is a {type(given).__name__}, expected numpy, DLPack or __cuda_array_interface__")
    try:
        pixels: Any = np.from_dlpack(given)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise CCNetError(f"frame cannot be read through DLPack ({why}): give it in host memory, detached") from error
    frame: Frame = pixels
    return frame


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
