"""Frames from arrays of other libraries: DLPack in host memory shares the memory, arrays on a GPU are downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.devices import Device
from ccnet.runtime.gpu.exchange import device_array, device_of
from ccnet.runtime.gpu.streams import Stream

from .frames import Frame


def as_frame(array: Any) -> Frame:
    """Return the pixels as a numpy array. The Reconstructor checks dtype and shape.

    Args:
        array: numpy; DLPack in host memory (``torch``, CuPy's pinned); an array on any GPU by DLPack, which is
            preferred, or by ``__cuda_array_interface__`` (``torch.cuda``, CuPy, Numba); or a ``DeviceArray``. The work
            that writes an array on a GPU is waited for, see ``gpu.exchange.device_array``.

    Returns:
        The array's own memory; a copy for arrays on a GPU, because tiles are cut on the host.

    Raises:
        CCNetError: The array is none of these, or cannot be read.
    """
    if isinstance(array, np.ndarray):
        return array
    if not any(hasattr(array, name) for name in ("__dlpack__", "__cuda_array_interface__")):
        raise CCNetError(f"frame is a {type(array).__name__}, expected numpy, DLPack or __cuda_array_interface__")
    try:
        device = device_of(array)
        pixels: Any = np.from_dlpack(array) if device is None else _download(array, device)
        return pixels
    except CCNetError:
        raise
    except (AttributeError, BufferError, KeyError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise CCNetError(f"frame cannot be read ({why}): pass it detached, in host memory or on a GPU") from error


def _download(array: Any, device: Device) -> Frame:
    stream = Stream(device)
    try:
        return device_array(array, stream).download(stream)
    finally:
        stream.close()


def output_array(out: Any, shape: tuple[int, ...], device: Device | None = None) -> Any:
    """Return the array to fill.

    Args:
        out: Array of the caller; None for a new numpy array.
        shape: Its shape; that of an array on a GPU is checked when it is written.
        device: GPU whose memory can be written; None for arrays of the host alone.

    Returns:
        The array, ``out`` itself if it is not None.

    Raises:
        CCNetError: ``out`` is no writeable float32 array of this shape, or it is on another GPU.
    """
    if out is None:
        return np.empty(shape, np.float32)
    if (place := device_of(out)) is not None:
        if place is not device:
            writes = device.name if device else "the host"
            raise CCNetError(f"out is on {place.name}, expected memory of {writes}, where this backend writes")
        return out
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32 or not out.flags.writeable:
        kind = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise CCNetError(f"out is {kind}, expected a writeable float32 {shape}")
    return out
