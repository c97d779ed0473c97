"""The processor and memory of this machine, on Linux, macOS and Windows."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")


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


def memory() -> str:
    """Return the size of the main memory, and on Linux how much of it is available, in GB."""
    if _MEMINFO.is_file():
        lines = (line.split() for line in _MEMINFO.read_text().splitlines())
        kilobytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
        total, available = (kilobytes[key] / 1e6 * 1.024 for key in ("MemTotal:", "MemAvailable:"))
        return f"{total:.1f} GB, {available:.1f} GB available"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.1f} GB"
