"""Facts about this machine that more than one package needs."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return how many CPU cores this process may use, at least 1.

    Linux knows which cores the process may run on. macOS and Windows do not: there, all cores of the machine count.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
