"""The compiled CPU kernels: the library that holds them, its limits, and the threads that run them.

The kernels are plain C behind ctypes (``ccnet/csrc/training``). Each call computes a part of the output that no other
call writes. The kernels for CUDA are in ``scan_triton.py`` and ``cuda/``.
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
from itertools import count as count_from
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ccnet.contract import CCNetError, kernel_library_path

SCAN_KERNEL = "CCNET_SCAN_KERNEL"
"""Environment variable that names the kernels of the scan on CUDA: ``triton``, the default, or ``cuda``."""

_TRITON_HEADS = (1, 2, 4)  # Triton's tiles have sides that are powers of two
_TRITON_MAX_BANDS = 64  # no limit of the kernels, nor of CUDA's; they are tested up to it
CHUNKS_PER_THREAD = 8  # a thread that is held up leaves its chunks to the others
_TYPES_WITH_DATA = (Tensor, Parameter)  # some of their subclasses have a shape only
_reference_ops = ContextVar("reference_ops", default=False)


@contextmanager
def reference_ops() -> Iterator[None]:
    """Let this thread compute with torch's operators and autograd only, without kernels, inside a ``with`` block."""
    token = _reference_ops.set(True)
    try:
        yield
    finally:
        _reference_ops.reset(token)


def reference_ops_active() -> bool:
    """Return whether this thread is inside :func:`reference_ops`."""
    return _reference_ops.get()


@cache
def kernel() -> ctypes.CDLL | None:
    """Return the library of the kernels, or None where the package was installed without a C compiler."""
    path = kernel_library_path()
    return ctypes.CDLL(str(path)) if path else None


@cache
def limits(name: str) -> tuple[int, ...]:
    """Return the numbers that the library exports with ``LIMIT(name, ...)`` in C, such as the supported head counts."""
    library = kernel()
    assert library is not None  # noqa: S101 - callers check that there is a library
    address = ctypes.addressof(ctypes.c_int64.in_dll(library, f"ccnet_{name}"))
    numbers = (ctypes.c_int64.from_address(address + 8 * index).value for index in count_from())
    return tuple(takewhile(bool, numbers))


def limit(name: str) -> int:
    """Return the single number that the library exports with ``LIMIT(name, ...)`` in C, such as a block size."""
    (number,) = limits(name)
    return number


def cpu_kernel_supported(*tensors: Tensor | None) -> bool:
    """Return whether the kernels can compute these float32 CPU tensors: no autocast, no compilation or export."""
    eager = not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    return eager and _kernels_usable(*(tensor for tensor in tensors if tensor is not None))


def scan_kernel_supported(x: Tensor, heads: int, bands: int) -> bool:
    """Return whether NeSCM's kernels can compute x: float32 on a CPU, also under autocast, which leaves NeSCM alone."""
    return _kernels_usable(x) and heads in limits("heads") and bands <= limit("max_bands")


def triton_supported(x: Tensor, heads: int, bands: int) -> bool:
    """Return whether Triton is installed and its kernels can compute x: float32 on CUDA."""
    return _scan_on_gpu_supported(x, heads, bands) and _has_triton()


def cuda_scan_supported(x: Tensor, heads: int, bands: int) -> bool:
    """Return whether CCNET_SCAN_KERNEL asks for the kernels of ``ccnet.ops.cuda.scan`` and they can compute x.

    Raises:
        CCNetError: CCNET_SCAN_KERNEL names no kernel.
    """
    if not _scan_on_gpu_supported(x, heads, bands):
        return False
    name = os.environ.get(SCAN_KERNEL, "triton")
    if name not in ("triton", "cuda"):
        raise CCNetError(f"{SCAN_KERNEL} is {name!r}, expected 'triton' or 'cuda'")
    return name == "cuda"


def _scan_on_gpu_supported(x: Tensor, heads: int, bands: int) -> bool:
    in_reach = x.dtype == torch.float32 and heads in _TRITON_HEADS and bands <= _TRITON_MAX_BANDS
    return x.is_cuda and in_reach and not reference_ops_active()


def _kernels_usable(*tensors: Tensor) -> bool:
    """Return whether all are real CPU float32 tensors, no dispatch mode is active, and there are kernels."""
    real = all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and type(tensor) in _TYPES_WITH_DATA
        for tensor in tensors
    )
    return real and kernel() is not None and not reference_ops_active() and not is_in_torch_dispatch_mode()


@cache
def _has_triton() -> bool:
    # find_spec instead of an import, which takes a second that only a process with a GPU should spend. Triton compiles
    # a module to launch its kernels: without a C compiler the eager reference takes over
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return importlib.util.find_spec("triton") is not None and compiler is not None


class _Work(ctypes.Structure):
    """The struct ``Work`` of ``csrc/common/threads.c``, which exports its size as ``work_size``."""

    _fields_ = [
        ("kernel", ctypes.c_void_p), ("args", ctypes.c_void_p), ("count", ctypes.c_int64), ("chunk", ctypes.c_int64),
        ("next", ctypes.c_int64), ("failed", ctypes.c_int64),
    ]  # fmt: skip


def launch(name: str, count: int, sizes: Sequence[int], tensors: Sequence[Tensor | None]) -> None:
    """Run a kernel on as many threads as torch uses.

    Args:
        name: the kernel's function in C.
        count: items of the output; the kernel is called on chunks of [0, count).
        sizes: the first members of the kernel's struct of arguments.
        tensors: the remaining members, contiguous; None is a null pointer. Inputs and outputs must not alias.

    Raises:
        MemoryError: a thread could not allocate its buffers.
    """
    library, threads, openmp = kernel(), torch.get_num_threads(), _openmp()
    assert library is not None  # noqa: S101 - callers check that there is a library
    members = [*sizes, *(0 if tensor is None else tensor.data_ptr() for tensor in tensors)]
    args = (ctypes.c_int64 * len(members))(*members)
    chunk = max(1, count // (CHUNKS_PER_THREAD * threads))
    work = _Work(_address(name), ctypes.addressof(args), count, chunk, 0, 0)
    if openmp is not None:
        openmp.GOMP_parallel(library.ccnet_worker, ctypes.byref(work), threads, 0)
    else:
        started: list[Future[object]] = []
        try:
            for _ in range(threads):
                started.append(_threads(threads).submit(library.ccnet_worker, ctypes.byref(work)))
            wait(started)
        finally:
            wait(started)  # an interrupt must not free what the threads still use
    if work.failed:
        raise MemoryError(f"no memory for the buffers of {name}; use a smaller batch, patch or tile")


def num_blocks(plane: int, size: int) -> int:
    """Return ceil(plane / size), the blocks of ``size`` pixels that cover a plane."""
    return -(-plane // size)


@cache
def _address(name: str) -> int | None:
    return ctypes.cast(getattr(kernel(), name), ctypes.c_void_p).value


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return GNU's OpenMP where torch brings and so has loaded it.

    Its threads spin for milliseconds after each of torch's operations: other threads would share the cores with them.
    """
    found = sorted(Path(torch.__file__).with_name("lib").glob("libgomp*"))
    return ctypes.CDLL(str(found[0])) if found else None


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="ccnet-kernels")  # ctypes releases the GIL
