"""The compiled kernels for training: where they are, what they take, and the threads that run them.

They are plain C behind ctypes, each working on a part of the output that nobody else writes. Those for CUDA are
``scan_triton.py``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from ccnet.contract import compiled

_MAX_BANDS = 64  # as in scan.c; Triton's have no such limit, but are tested up to it
_HEADS = (1, 2, 4)  # at most MAX_HEADS in both files
Result = TypeVar("Result")


@cache
def kernel() -> ctypes.CDLL | None:
    """The library of the kernels, or None where the package was installed without a C compiler."""
    path = compiled()
    return ctypes.CDLL(str(path)) if path else None


def floats_on_cpu(*tensors: Tensor) -> bool:
    """Whether the kernels are here and compute these: float32 on a CPU, where nothing is cast."""
    ours = all(one.device.type == "cpu" and one.dtype == torch.float32 for one in tensors)
    return ours and not torch.is_autocast_enabled("cpu") and kernel() is not None


def fits(x: Tensor, heads: int, bands: int) -> bool:
    """Whether the kernels of NeSCM are here and compute this: float32 on a CPU."""
    return x.device.type == "cpu" and _in_reach(x, heads, bands) and kernel() is not None


def triton_fits(x: Tensor, heads: int, bands: int) -> bool:
    """Whether Triton is here and its kernels compute this: float32 on CUDA."""
    return x.is_cuda and _in_reach(x, heads, bands) and _has_triton()


def _in_reach(x: Tensor, heads: int, bands: int) -> bool:
    return x.dtype == torch.float32 and heads in _HEADS and bands <= _MAX_BANDS


@cache
def _has_triton() -> bool:
    # Looked for, not imported: that takes a second, which only a process with a GPU should pay. It starts its kernels
    # through a module that it compiles itself: without a C compiler the eager reference goes on
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return importlib.util.find_spec("triton") is not None and compiler is not None


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    # ctypes releases the GIL, so plain threads serve; a second OpenMP pool beside torch's would fight it for cores.
    return ThreadPoolExecutor(count, thread_name_prefix="ccnet-kernels")


def runs(count: int, block: int = 1) -> Iterator[tuple[int, int]]:
    """Split [0, count) into a run of whole blocks for each thread."""
    threads = torch.get_num_threads()
    size = max(block, -(-count // threads // block) * block)
    return ((first, min(first + size, count)) for first in range(0, count, size))


def parallel(work: Callable[..., Result], jobs: Iterable[tuple[int, ...]]) -> list[Result]:
    """work(*job) for every job on as many threads as torch has, results in the order of the jobs."""
    return list(_threads(torch.get_num_threads()).map(lambda job: work(*job), jobs))


def run_all(function: Callable[..., int], count: int, *given: object) -> None:
    """function(*given, first, last) for all of [0, count), by as many threads as torch has; 0 is a MemoryError."""

    def work(first: int, last: int) -> int:
        return function(*given, ctypes.c_long(first), ctypes.c_long(last))

    if not all(parallel(work, runs(count))):
        raise MemoryError("no memory for a kernel's rows")


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """To the first number of a contiguous tensor, which the caller keeps alive."""
    return ctypes.c_void_p(tensor.data_ptr())
