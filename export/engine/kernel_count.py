"""Kernels of a built engine and the bytes that they move, by part of the network, from TensorRT's list of kernels.

The list is part of a build's verbose log at detailed profiling verbosity; an engine itself can only be opened beside a
GPU. The bytes that a kernel moves are the sizes of all tensors that it reads or writes, without its weights.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

PartCounts = Mapping[str, tuple[int, int | None]]
"""Part of the network → kernels, and bytes that they move in one run; None where tensors have free sizes."""

_PARTS = {"nescm": "NeSCM", "grscm": "GrSCM", "paf": "PAF", "intra": "FFN"}  # module → the paper's name
_REST = "rest"
_BYTES = {
    **dict.fromkeys(("Bool", "Int8", "UInt8"), 1),
    **dict.fromkeys(("Half", "BFloat16"), 2),
    **dict.fromkeys(("Float", "Int32"), 4),
    "Int64": 8,
}
_NOT_KERNELS = {"signal", "wait", "shape_call"}
_KERNEL = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: (?P<inputs>.*?), Constants: .*?,"
    r" Outputs: (?P<outputs>.*?), TacticName: .*?(?:, Metadata: (?P<nodes>.*))?$"
)
_TENSOR = re.compile(r"\{ Name: ([^,]*), Dimensions: \[([-0-9,]*)\].*?Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def count_kernels(lines: Iterable[str]) -> PartCounts:
    """Count the kernels of a log, by part of the network.

    Args:
        lines: The log; lines that describe no kernel are left out.

    Returns:
        The counts, with the parts in the order of the paper.
    """
    kernels: Counter[str] = Counter()
    moved: dict[str, int | None] = {}
    for match in filter(None, map(_KERNEL.match, lines)):
        if match["type"] in _NOT_KERNELS:
            continue
        part, total = _part(_NODE.findall(match["nodes"] or "")), _moved(match)
        before = moved.setdefault(part, 0)
        moved[part] = None if before is None or total is None else before + total
        kernels[part] += 1
    return {part: (kernels[part], moved[part]) for part in (*_PARTS.values(), _REST) if part in kernels}


def _part(nodes: list[str]) -> str:
    """Return the part that most of a kernel's nodes belong to; the rest only where no part has as many."""
    modules = (node.partition("/")[0].split(".") for node in nodes)
    found = Counter(next((_PARTS[name] for name in names if name in _PARTS), _REST) for names in modules)
    return max(found, key=lambda part: (found[part], part != _REST), default=_REST)


def _moved(kernel: re.Match[str]) -> int | None:
    """Return the bytes that a kernel reads and writes, None where they depend on a free size."""
    read, written = (_sizes(kernel[key]) for key in ("inputs", "outputs"))
    if None in (*read.values(), *written.values()):
        return None
    read_bytes, written_bytes = (sum(filter(None, sizes.values())) for sizes in (read, written))
    if len(read) == 1 and "Slic" in kernel["name"][:12]:  # a slice reads no more than it writes
        read_bytes = min(read_bytes, written_bytes)
    return read_bytes + written_bytes


def _sizes(tensors: str) -> dict[str, int | None]:
    """Return the bytes of each tensor, by name."""
    sizes: dict[str, int | None] = {}
    for name, dimensions, dtype in _TENSOR.findall(tensors):
        shape = [int(size) for size in dimensions.split(",") if size]
        sizes[name] = None if -1 in shape or dtype not in _BYTES else math.prod(shape) * _BYTES[dtype]
    return sizes
