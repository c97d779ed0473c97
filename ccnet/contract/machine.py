"""Facts about this machine that more than one package needs."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Return how many CPU cores this process may use, at least 1.

    Linux knows which cores the process may run on. macOS and Windows do not: there, all cores of the machine count.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Return the model name of the CPU, or its architecture where the system tells no name."""
    if _CPUINFO.is_file():
        lines = _CPUINFO.read_text(errors="replace").splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
        return next(names, platform.machine())
    if platform.system() == "Darwin":
        name, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
        if not ctypes.CDLL(None).sysctlbyname(b"machdep.cpu.brand_string", name, ctypes.byref(size), None, 0):
            return name.value.decode(errors="replace")
    return platform.processor() or platform.machine()
