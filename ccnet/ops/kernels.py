"""The compiled kernels for training: where they are, what they take, and the threads that run them.

They are plain C behind ctypes, each working on a part of the output that nobody else writes. Those for CUDA are
``scan_triton.py``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ccnet.contract import kernel_library_path

_MAX_BANDS = 64  # as in scan.c; Triton's have no such limit, but are tested up to it
_HEADS = (1, 2, 4)  # at most MAX_HEADS in both files
_TURNS = 8  # blocks for each thread: one that is held up leaves its own to the others
_HAVE_DATA = (Tensor, Parameter)  # of their subclasses, some have shapes only
_PLAIN = ContextVar("plain", default=False)


@contextmanager
def reference_ops() -> Iterator[None]:
    """Inside, on this thread, all is torch's and autograd's, no kernel and no gradient of ours."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def reference_ops_active() -> bool:
    """Whether this is inside of :func:`plain`."""
    return _PLAIN.get()


@cache
def kernel() -> ctypes.CDLL | None:
    """The library of the kernels, or None where the package was installed without a C compiler."""
    path = kernel_library_path()
    return ctypes.CDLL(str(path)) if path else None


def cpu_kernel_supported(*tensors: Tensor | None) -> bool:
    """Whether kernels compute these: float32 on a CPU where nothing is cast, and no graph is made of the network."""
    free = not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    return free and _computed_here(*(one for one in tensors if one is not None))


def scan_kernel_supported(x: Tensor, heads: int, bands: int) -> bool:
    """Whether the kernels of NeSCM are here and compute this: float32 on a CPU, also where all else is cast."""
    return _in_reach(x, heads, bands) and _computed_here(x)


def triton_supported(x: Tensor, heads: int, bands: int) -> bool:
    """Whether Triton is here and its kernels compute this: float32 on CUDA."""
    return x.is_cuda and _in_reach(x, heads, bands) and _has_triton() and not reference_ops_active()


def _computed_here(*tensors: Tensor) -> bool:
    """Whether these are numbers of ours, and nobody counts or records what torch does with them."""
    ours = all(one.device.type == "cpu" and one.dtype == torch.float32 and type(one) in _HAVE_DATA for one in tensors)
    return ours and kernel() is not None and not reference_ops_active() and not is_in_torch_dispatch_mode()


def _in_reach(x: Tensor, heads: int, bands: int) -> bool:
    return x.dtype == torch.float32 and heads in _HEADS and bands <= _MAX_BANDS


@cache
def _has_triton() -> bool:
    # Looked for, not imported: that takes a second, which only a process with a GPU should pay. It starts its kernels
    # through a module that it compiles itself: without a C compiler the eager reference goes on
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return importlib.util.find_spec("triton") is not None and compiler is not None


class _Work(ctypes.Structure):
    """As in work.c."""

    _fields_ = [
        ("kernel", ctypes.c_void_p), ("given", ctypes.c_void_p), ("count", ctypes.c_int64), ("block", ctypes.c_int64),
        ("next", ctypes.c_int64), ("failed", ctypes.c_int64),
    ]  # fmt: skip


def launch(name: str, count: int, sizes: Sequence[int], tensors: Sequence[Tensor | None]) -> None:
    """A kernel for all of [0, count), by as many threads as torch has.

    sizes, tensors: the kernel's struct, None a null pointer. Tensors are contiguous, what is read and what is written
    are apart. MemoryError where a thread lacked memory.
    """
    library, threads, openmp = kernel(), torch.get_num_threads(), _openmp()
    assert library is not None  # noqa: S101 - who calls this has asked
    given = [*sizes, *(0 if one is None else one.data_ptr() for one in tensors)]
    words = (ctypes.c_int64 * len(given))(*given)
    block = max(1, count // (_TURNS * threads))
    work = _Work(_address(name), ctypes.addressof(words), count, block, 0, 0)
    if openmp is not None:
        openmp.GOMP_parallel(library.ccnet_take, ctypes.byref(work), threads, 0)
    else:
        started: list[Future[object]] = []
        try:
            for _ in range(threads):
                started.append(_threads(threads).submit(library.ccnet_take, ctypes.byref(work)))
            wait(started)
        finally:
            wait(started)  # an interrupt must not free what they still use
    if work.failed:
        raise MemoryError("no memory for a kernel's rows")


def num_blocks(plane: int, size: int) -> int:
    """Of so many pixels that cover a plane, as block_of in kernels.h cuts it."""
    return -(-plane // size)


@cache
def _address(name: str) -> int | None:
    return ctypes.cast(getattr(kernel(), name), ctypes.c_void_p).value


@cache
def _openmp() -> ctypes.CDLL | None:
    """GNU's OpenMP, where torch brings it and so has loaded it.

    Its threads spin for milliseconds after each of torch's operations: others would share the cores with them.
    """
    found = sorted(Path(torch.__file__).with_name("lib").glob("libgomp*"))
    return ctypes.CDLL(str(found[0])) if found else None


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="ccnet-kernels")  # ctypes releases the GIL
