"""The one table of GPU architectures: which TensorRT runs on which GPU. Build, choice and check all ask it.

A compute capability is (major, minor), such as (8, 7) for Orin; a GPU is a name of ``cuda.gpus``, such as
``Orin (sm_87, 16 SM)``. Names of version 0.1.0 had no number of multiprocessors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Capability = tuple[int, int]

OLDEST_TENSORRT: Capability = (7, 5)
"""The oldest architecture (Turing) of TensorRT 10 and later."""

TENSORRT_RTX: Mapping[Capability, Literal["portable", "named"]] = MappingProxyType(
    {
        (7, 5): "named",
        (8, 0): "named",
        (8, 6): "portable",
        (8, 9): "portable",
        (12, 0): "portable",
        (12, 1): "named",
    }
)
"""The architectures of TensorRT-RTX 1.7. A default engine runs on all that are portable; the others must be named when
an engine is built, which then runs on no other. Orin (8.7), Hopper (9.0) and Thor (11.0) are missing.
"""


def capability(gpu: str) -> Capability | None:
    """Return the compute capability in a GPU's name, such as (8, 7) in ``Orin (sm_87, 16 SM)``; None if it has none."""
    found = re.search(r"\(sm_(\d+)(\d)\b", gpu)
    return (int(found[1]), int(found[2])) if found else None


def is_same_gpu(built_for: str, gpu: str) -> bool:
    """Return whether an engine's GPU is a GPU of this machine; an old name fits each number of multiprocessors."""
    return built_for in (gpu, re.sub(r", \d+ SM\)$", ")", gpu))


def format_capability(architecture: Capability) -> str:
    """Return a compute capability as text, such as ``8.7``."""
    return ".".join(map(str, architecture))


def why_unsupported(library: str, gpu: str) -> str:
    """Return why ``tensorrt`` or ``tensorrt_rtx`` cannot run on a GPU, in a few words; empty if it can."""
    architecture = capability(gpu)
    if architecture is None:
        return f"the architecture of {gpu} is unknown"
    if library == "tensorrt":
        return (
            ""
            if architecture >= OLDEST_TENSORRT
            else f"{gpu} is older than {format_capability(OLDEST_TENSORRT)} (Turing)"
        )
    if architecture in TENSORRT_RTX:
        return ""
    return f"it has no kernels for {gpu}, only for {', '.join(map(format_capability, TENSORRT_RTX))}"


def target(gpu: str) -> Capability | None:
    """Return the architecture that a TensorRT-RTX engine for a GPU must name; None where a default engine runs."""
    architecture = capability(gpu)
    return architecture if architecture and TENSORRT_RTX.get(architecture) == "named" else None


def why_other_target(built_for: object, gpu: str) -> str:
    """Return why a TensorRT-RTX engine does not run on a GPU, empty if it does.

    Args:
        built_for: The architecture that was named when it was built, as ``format_capability`` returns it; empty or None
            if none was.
        gpu: Name of the GPU.

    Returns:
        The reason, in a few words.
    """
    if why := why_unsupported("tensorrt_rtx", gpu):
        return why
    needed = target(gpu)
    name = format_capability(needed) if needed else ""
    if (built_for or "") == name:
        return ""
    portable = ", ".join(format_capability(key) for key, kind in TENSORRT_RTX.items() if kind == "portable")
    return f"built for compute capability {built_for or portable}, this is {gpu}"
