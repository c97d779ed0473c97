"""Kernels of this package in machine code, launched through CUDA's driver."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int, c_void_p

from . import library

Argument = c_void_p | c_int
"""An address on the GPU, or a number."""


class Kernel:
    """A function of machine code. It is loaded at its first launch in a context, and stays until the process ends.

    Args:
        code: The machine code of one architecture, a cubin.
        name: Name of the function.
    """

    def __init__(self, code: bytes, name: str) -> None:
        self._code, self._name = code, name
        self._functions: dict[int, c_void_p] = {}

    def launch(self, stream: int, grid: tuple[int, int, int], threads: int, arguments: Sequence[Argument]) -> None:
        """Queue the kernel; its context must be current.

        Args:
            stream: Handle of the stream.
            grid: Numbers of blocks.
            threads: Threads of a block.
            arguments: What the function takes.

        Raises:
            CCNetError: The code is of another architecture, or CUDA refuses the launch.
        """
        addresses = (c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        _call("cuLaunchKernel", self._function(), *grid, threads, 1, 1, 0, stream, addresses, None)

    def _function(self) -> c_void_p:
        context, module, function = c_void_p(), c_void_p(), c_void_p()
        _call("cuCtxGetCurrent", ctypes.byref(context))
        key = context.value or 0
        if key not in self._functions:
            _call("cuModuleLoadData", ctypes.byref(module), self._code)
            _call("cuModuleGetFunction", ctypes.byref(function), module, self._name.encode())
            self._functions[key] = function
        return self._functions[key]


def _call(name: str, *arguments: object) -> None:
    driver = library.driver()
    if status := getattr(driver, name)(*arguments):
        library.check(driver, name, status)
