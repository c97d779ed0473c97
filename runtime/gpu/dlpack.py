"""DLPack in Python: the C structures of an array in host or GPU memory, and the capsules that carry them.

A capsule is consumed once. Whoever consumes it calls its deleter once, when the memory is no longer needed; a capsule
that nobody consumes does so itself. Versions before 1.0 and versions 1.x have different structures.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from ctypes import (
    PYFUNCTYPE,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
    py_object,
    pythonapi,
)
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccnet.contract import CCNetError

CPU, CUDA = 1, 2  # DLDeviceType
VERSION = (1, 1)
_READ_ONLY, _IS_COPIED = 1, 2  # DLPACK_FLAG_BITMASK_*
_KINDS = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}  # DLDataTypeCode of numpy's kinds
_NAME, _VERSIONED = b"dltensor", b"dltensor_versioned"
_NUMPY_HAS_VERSIONS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
_USED = {_NAME: b"used_dltensor", _VERSIONED: b"used_dltensor_versioned"}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", ctypes.POINTER(c_int64)),
        ("strides", ctypes.POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", c_void_p), ("deleter", c_void_p))


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", _Tensor),
    )


@dataclass(frozen=True)
class Tensor:
    """An array that a capsule carries.

    Attributes:
        address: Address of the first value, on the host or on the device.
        shape: Length of each axis.
        strides: Bytes from one value to the next along each axis.
        dtype: Type of a value.
        device: DLDeviceType and number of the device.
        owner: Object that keeps the memory alive.
        read_only: Nobody may write to the memory.
        is_copy: The memory belongs to the consumer alone.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]
    owner: object
    read_only: bool = False
    is_copy: bool = False


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides in bytes of an array in C order."""
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _api(name: str, result: Any, *args: Any) -> Any:
    # A prototype of its own: setting argtypes on pythonapi would change them for every library of the process.
    return PYFUNCTYPE(result, *args)((name, pythonapi))


_is_valid = _api("PyCapsule_IsValid", c_int, py_object, c_char_p)
_pointer = _api("PyCapsule_GetPointer", c_void_p, py_object, c_char_p)
_rename = _api("PyCapsule_SetName", c_int, py_object, c_char_p)


class _Memory:
    """An interface for numpy to memory at any address; numpy's array keeps this object, and so the owner, alive."""

    def __init__(self, tensor: Tensor) -> None:
        self._owner = tensor.owner
        self.__array_interface__ = {
            "data": (tensor.address, tensor.read_only),
            "shape": tensor.shape,
            "strides": tensor.strides,
            "typestr": tensor.dtype.str,
            "version": 3,
        }


def to_capsule(tensor: Tensor, max_version: tuple[int, int] | None = None) -> Any:
    """Return a capsule that carries an array, and keeps its owner alive until the consumer is done with it.

    Args:
        tensor: The array.
        max_version: Newest DLPack version that the consumer knows; None for a version before 1.0.

    Returns:
        The capsule, of version 1.0 if the consumer and numpy (2.1 and later) know it.

    Raises:
        BufferError: The array is read-only, which versions before 1.0 cannot say, or its type or strides do not fit.
    """
    # numpy writes the structure: its deleter and its destructor are C functions. Those of ctypes would run Python while
    # a consumer that refuses the capsule has its exception set, which would be lost.
    if max_version is not None and max_version[0] >= 1 and _NUMPY_HAS_VERSIONS:
        capsule: Any = np.asarray(_Memory(tensor)).__dlpack__(max_version=max_version)
    else:
        capsule = np.asarray(_Memory(tensor)).__dlpack__()
    _, managed = _open(capsule)
    managed.tensor.device_type, managed.tensor.device_id = tensor.device
    if tensor.is_copy and isinstance(managed, _ManagedVersioned):
        managed.flags |= _IS_COPIED
    return capsule


def _open(capsule: Any) -> tuple[bytes, _Managed | _ManagedVersioned]:
    """Return the name of a capsule that nobody consumed, and its structure; a CCNetError otherwise."""
    name = next((name for name in _USED if _is_valid(capsule, name)), None)
    if name is None:
        raise CCNetError("the DLPack capsule was consumed before, or is none: call __dlpack__ again")
    structure = _ManagedVersioned if name == _VERSIONED else _Managed
    return name, structure.from_address(_pointer(capsule, name))


def from_capsule(capsule: Any) -> Tensor:
    """Consume a capsule: return its array, whose owner calls the deleter when it is collected.

    Args:
        capsule: What ``__dlpack__`` returned.

    Returns:
        The array.

    Raises:
        CCNetError: The capsule was consumed before, or carries something else than an array of numbers.
    """
    name, managed = _open(capsule)
    _rename(capsule, _USED[name])
    owner = _Owner()
    if managed.deleter:
        weakref.finalize(owner, PYFUNCTYPE(None, c_void_p)(managed.deleter), ctypes.addressof(managed))
    if isinstance(managed, _ManagedVersioned) and managed.major > VERSION[0]:
        raise CCNetError(f"the DLPack capsule has version {managed.major}.{managed.minor}, expected 1.x")
    content = managed.tensor
    dtype = _dtype(content)
    shape = tuple(content.shape[: content.ndim])
    if content.strides:
        strides = tuple(stride * dtype.itemsize for stride in content.strides[: content.ndim])
    else:
        strides = contiguous_strides(shape, dtype.itemsize)
    flags = managed.flags if isinstance(managed, _ManagedVersioned) else 0
    return Tensor(
        address=(content.data or 0) + content.byte_offset,
        shape=shape,
        strides=strides,
        dtype=dtype,
        device=(content.device_type, content.device_id),
        owner=owner,
        read_only=bool(flags & _READ_ONLY),
        is_copy=bool(flags & _IS_COPIED),
    )


class _Owner:
    """A reference to the memory of a capsule; its finalizer calls the deleter."""


def _dtype(content: _Tensor) -> np.dtype[Any]:
    kind = next((kind for kind, code in _KINDS.items() if code == content.code), None)
    if content.lanes != 1 or kind is None or content.bits % 8:
        raise CCNetError(
            f"the DLPack array has type code {content.code} of {content.bits} bits and {content.lanes} lanes,"
            " expected plain numbers: convert it to uint8, uint16 or float32"
        )
    try:
        return np.dtype(f"{kind}{content.bits // 8}")
    except TypeError as error:
        raise CCNetError(f"the DLPack array has numbers of {content.bits} bits: convert it") from error
