"""The CUDA driver library: the functions that are used, with their argument types, and errors by CUDA's names.

Every NVIDIA driver and every Jetson has it. The runtime library (libcudart) and its Python bindings come with a toolkit
only: TensorRT links its own statically, and its wheels contain neither.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from ccnet.contract import CCNetError

from .out_of_memory import OutOfMemoryError, is_out_of_memory


class Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D_v2, the arguments of a copy of rows."""

    _fields_ = (
        ("source_x", c_size_t),
        ("source_y", c_size_t),
        ("source_kind", c_int),
        ("source_host", c_void_p),
        ("source_device", c_uint64),
        ("source_array", c_void_p),
        ("source_pitch", c_size_t),
        ("target_x", c_size_t),
        ("target_y", c_size_t),
        ("target_kind", c_int),
        ("target_host", c_void_p),
        ("target_device", c_uint64),
        ("target_array", c_void_p),
        ("target_pitch", c_size_t),
        ("width", c_size_t),
        ("height", c_size_t),
    )


class Copy3D(ctypes.Structure):
    """CUDA_MEMCPY3D_v2, the arguments of a copy of planes of rows; a height is the number of rows between planes."""

    _fields_ = (
        ("source_x", c_size_t),
        ("source_y", c_size_t),
        ("source_z", c_size_t),
        ("source_lod", c_size_t),
        ("source_kind", c_int),
        ("source_host", c_void_p),
        ("source_device", c_uint64),
        ("source_array", c_void_p),
        ("source_reserved", c_void_p),
        ("source_pitch", c_size_t),
        ("source_height", c_size_t),
        ("target_x", c_size_t),
        ("target_y", c_size_t),
        ("target_z", c_size_t),
        ("target_lod", c_size_t),
        ("target_kind", c_int),
        ("target_host", c_void_p),
        ("target_device", c_uint64),
        ("target_array", c_void_p),
        ("target_reserved", c_void_p),
        ("target_pitch", c_size_t),
        ("target_height", c_size_t),
        ("width", c_size_t),
        ("height", c_size_t),
        ("depth", c_size_t),
    )


SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuCtxGetCurrent": (POINTER(c_void_p),),
    "cuCtxSynchronize": (),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamWaitEvent": (c_void_p, c_void_p, c_uint),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, POINTER(c_void_p), c_void_p),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventDestroy_v2": (c_void_p,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemHostGetDevicePointer_v2": (POINTER(c_uint64), c_void_p, c_uint),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_uint64, c_uint64, c_size_t, c_void_p),
    "cuMemcpy2DAsync_v2": (POINTER(Copy2D), c_void_p),
    "cuMemcpy3DAsync_v2": (POINTER(Copy3D), c_void_p),
    "cuPointerGetAttribute": (c_void_p, c_int, c_uint64),
}
"""Argument types of each driver function that is used; without them ctypes would cut addresses to 32 bits."""


def driver() -> Any:
    """Load the CUDA driver library; a CCNetError if none is installed."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise CCNetError(f"no CUDA driver ({name} is not found): install NVIDIA's driver or use onnxruntime") from error
    for function, types in SIGNATURES.items():
        getattr(library, function).argtypes = types
    return library


def check(library: Any, function: str, status: int) -> None:
    """Raise a CCNetError with CUDA's name of an error, an OutOfMemoryError where memory ran out; 0 is success."""
    if not status:
        return
    name = c_char_p()
    library.cuGetErrorName(status, ctypes.byref(name))
    reason = name.value.decode() if name.value else f"error {status}"
    if is_out_of_memory(reason):
        raise OutOfMemoryError(f"CUDA's {function} failed with {reason}: use smaller tiles or free GPU memory")
    raise CCNetError(f"CUDA's {function} failed with {reason}")
