"""Kernels loaded and launched through CUDA's driver library, in torch's context and on torch's stream."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_char_p, c_uint, c_void_p
from typing import Any

import torch
from torch import Tensor

from ccnet.contract import CCNetError

from .nvrtc import compile_cubin
from .variants import Grid, PooledVariant, ScanVariant

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, POINTER(c_void_p), c_void_p),
    "cuGetErrorName": (ctypes.c_int, POINTER(c_char_p)),
}


def launch(variant: ScanVariant | PooledVariant, name: str, grid: Grid, arguments: tuple[Tensor | int, ...]) -> None:
    """Queue a kernel on torch's current stream.

    Args:
        variant: The kernel's source and the numbers that it is compiled for; compiled at its first launch.
        name: The kernel's function in CUDA.
        grid: Numbers of blocks.
        arguments: The kernel's arguments: contiguous tensors on one GPU, and numbers that CUDA has as int.

    Raises:
        CCNetError: The kernel cannot be compiled, loaded or launched.
    """
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    members = [
        c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else ctypes.c_int(argument)
        for argument in arguments
    ]
    addresses = (c_void_p * len(members))(*(ctypes.addressof(member) for member in members))
    with torch.cuda.device(device):
        function = _function(variant, name, torch.cuda.current_device())
        stream = torch.cuda.current_stream().cuda_stream
        _call("cuLaunchKernel", function, *grid, variant.threads, 1, 1, 0, stream, addresses, None)


@functools.cache
def _function(variant: ScanVariant | PooledVariant, name: str, device: int) -> c_void_p:
    """Return a kernel's handle on a GPU, whose context is current. The module lives as long as the process."""
    module, function = c_void_p(), c_void_p()
    _call("cuModuleLoadData", ctypes.byref(module), compile_cubin(variant, torch.cuda.get_device_capability(device)))
    _call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
    return function


@functools.cache
def _driver() -> Any:
    library = ctypes.CDLL("libcuda.so.1")
    for function, types in _SIGNATURES.items():
        getattr(library, function).argtypes = types
    return library


def _call(function: str, *arguments: Any) -> None:
    status = getattr(_driver(), function)(*arguments)
    if status:
        name = c_char_p()
        _driver().cuGetErrorName(status, ctypes.byref(name))
        raise CCNetError(f"CUDA's {function} failed with {(name.value or b'an unknown error').decode()}")
