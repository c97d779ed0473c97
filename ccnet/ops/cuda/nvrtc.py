"""CUDA sources → machine code of one GPU architecture, by NVRTC, which needs neither a toolkit nor a GPU."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError

from .variants import CSRC, PooledVariant, ScanVariant

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "nvrtcVersion": (POINTER(c_int), POINTER(c_int)),
    "nvrtcCreateProgram": (POINTER(c_void_p), c_char_p, c_char_p, c_int, c_void_p, c_void_p),
    "nvrtcDestroyProgram": (POINTER(c_void_p),),
    "nvrtcCompileProgram": (c_void_p, c_int, POINTER(c_char_p)),
    "nvrtcGetProgramLogSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetProgramLog": (c_void_p, c_char_p),
    "nvrtcGetCUBINSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetCUBIN": (c_void_p, c_char_p),
}


@functools.cache
def compile_cubin(variant: ScanVariant | PooledVariant, capability: tuple[int, int]) -> bytes:
    """Compile a variant of a kernel.

    Args:
        variant: The kernel, and the numbers that it is compiled for.
        capability: The GPU's compute capability, such as (8, 7).

    Returns:
        The machine code, as CUDA's driver loads it.

    Raises:
        CCNetError: NVRTC is not installed, is too old for the GPU, or refuses the source.
    """
    library = nvrtc()
    source = (CSRC / "cuda" / variant.source).read_bytes()
    options = [
        "--gpu-architecture=sm_{}{}".format(*capability),
        "--std=c++17",
        f"-I{CSRC}",
        *(f"-D{name}={value}" for name, value in variant.definitions.items()),
    ]
    program = c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source, variant.source.encode(), 0, None, None))
    try:
        arguments = (c_char_p * len(options))(*(option.encode() for option in options))
        if library.nvrtcCompileProgram(program, len(options), arguments):
            log = _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
            first = next((line for line in log.decode(errors="replace").splitlines() if "error" in line), "no reason")
            raise CCNetError(f"NVRTC {version()} does not compile {variant.source} for {options[0][-5:]}: {first}")
        return _text(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def nvrtc() -> Any:
    """Load NVRTC: torch's, a toolkit's or that of NVIDIA's package; a CCNetError if there is none."""
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, types in _SIGNATURES.items():
            getattr(library, function).argtypes = types
        return library
    raise CCNetError("NVRTC is not found: install CUDA's toolkit, or pip install nvidia-cuda-nvrtc")


def version() -> str:
    """Return NVRTC's version, such as ``13.0``."""
    major, minor = c_int(), c_int()
    _check(nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def _candidates() -> Iterator[str]:
    names = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
    yield from names
    for folder in ("/usr/local/cuda/lib64", *(f"{path}/nvidia/*/lib" for path in sys.path if path)):
        root, _, pattern = folder.partition("/nvidia/")
        parents = sorted(Path(root).glob(f"nvidia/{pattern}")) if pattern else [Path(root)]
        yield from (str(parent / name) for parent in parents for name in names if (parent / name).is_file())


def _text(size_of: Any, read: Any, program: c_void_p) -> bytes:
    size = c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    content = ctypes.create_string_buffer(size.value)
    _check(read(program, content))
    return content.raw


def _check(status: int) -> None:
    if status:
        raise CCNetError(f"NVRTC failed with error {status}")
