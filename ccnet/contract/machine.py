"""Facts about this machine that more than one package needs."""

from __future__ import annotations

import ctypes
import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_CGROUP, _CGROUP_ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_limits: list[int] = []
"""Cores that ``limit_cores`` left; empty without a limit."""


def available_cores() -> int:
    """Return how many CPU cores this process may use, at least 1.

    Linux knows which cores the process may run on, and how much of their time its control groups have. macOS and
    Windows do not: there, all cores of the machine count.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, core_quota() or cores)


def limit_cores(cores: int | None) -> None:
    """Let this process compute with so many CPU threads, also in libraries that are imported after this call.

    Args:
        cores: At least 1; None leaves what the system leaves.
    """
    _limits[:] = [] if cores is None else [cores]
    quota = core_quota()
    if quota and (cores is not None or "OMP_NUM_THREADS" not in os.environ):
        os.environ["OMP_NUM_THREADS"] = str(quota)  # torch reads it when it is imported, and knows nothing of quotas


def core_quota() -> int | None:
    """Return how many cores ``limit_cores`` and the control groups (a container, a service) leave, rounded up.

    Returns:
        At least 1; None without a limit.
    """
    return min((max(1, math.ceil(quota)) for quota in (*_limits, *_group_quotas())), default=None)


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


def available_memory() -> int | None:
    """Return the memory that this process can still take, in bytes; None where the system does not tell.

    On Linux it is what the kernel calls available, or less where a control group (a container, a service) has a limit.
    Elsewhere it is all memory of the machine.
    """
    if not _MEMINFO.is_file():
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
    free = int(fields.get("MemAvailable", fields["MemFree"]).split()[0]) * 1024
    return max(0, min([free, *_group_memory()]))


def _group_quotas() -> Iterator[float]:
    """Yield the limits of CPU time, in cores, of this process's control groups and of those around them."""
    for folder, version in _group_folders("cpu"):
        with suppress(OSError, ValueError):  # no such group in this namespace, or "max": no limit
            if version == 2:
                quota, period = (int(text) for text in (folder / "cpu.max").read_text().split())
            else:
                quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            if quota > 0 < period:
                yield quota / period


def _group_memory() -> Iterator[int]:
    """Yield what is left of the memory of this process's control groups and of those around them.

    Pages of files that can be dropped do not count as used.
    """
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    for folder, version in _group_folders("memory"):
        limit, usage, cache = names[version]
        with suppress(OSError, ValueError):
            most, used = (int((folder / name).read_text()) for name in (limit, usage))
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield most - used + int(statistics.get(cache, 0))


def _group_folders(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folders of this process's control group and of those around it, each with its version, 1 or 2."""
    lines = _CGROUP.read_text().splitlines() if _CGROUP.is_file() else []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUP_ROOT / controller if controllers else _CGROUP_ROOT
        folder = root / group.strip("/")
        for place in (folder, *folder.parents):
            yield place, 1 if controllers else 2
            if place == root:
                break
