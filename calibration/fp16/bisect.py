"""Find the nodes that an FP16 graph's error comes from.

Modules are put into FP16 alone, and those with the largest error are split again and again, down to single nodes.
Rounding errors of different nodes are nearly independent, so that their squares add up: a group's *share* is the
squared error of the group alone, divided by the squared error of the whole graph in FP16. Shares need not sum to 1, and
where errors cancel they do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ccnet.calibration.graph_runner import Array, GraphRunner, load_model, require_module
from ccnet.calibration.parity import worst_parity
from ccnet.contract import CUBE
from ccnet.runtime.quality.tolerances import Parity, compare

from .emulate import DATA_MOVEMENT, Fp16Emulator, round_to_fp16

GroupCallback = Callable[[str], None]
"""Called with the name of a group before it is tried."""

_NAMED_SHARE = 0.9
"""Part of the error that the named groups must explain."""

_SPLIT_SHARE = 0.01
"""A group with a smaller share is not split."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Nodes that were in FP16 alone: those of a module, or a single node or input under its own name.

    Attributes:
        name: Name of the module, node or input.
        nodes: How many of its nodes compute with floats.
        parity: Parity with the whole graph in float32, the worst of the frames.
        share: Part of the squared error of the whole graph in FP16; inf if this group alone leads to infinite values
            or NaN.
        split: True if its parts were tried too.
    """

    name: str
    nodes: int
    parity: Parity
    share: float
    split: bool = False


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """The groups that were tried, and those that cause the error.

    Attributes:
        all: Parity with the whole graph in FP16.
        groups: All groups that were tried, largest share first.
        named: The cause: the fewest unsplit groups that make up 90 % of the shares of the unsplit groups; if some
            shares are not finite, the groups with these.
        rest: Parity with everything in FP16 except the named groups.
    """

    all: Parity
    groups: tuple[Group, ...]
    named: tuple[Group, ...]
    rest: Parity


def bisect(
    runner: GraphRunner,
    feeds: Sequence[Mapping[str, Array]],
    *,
    fp32_kept: Collection[str] = (),
    max_groups: int = 100,
    on_group: GroupCallback = lambda name: None,
) -> Bisection:
    """Try the modules of a graph, then the parts of the group with the largest share, again and again.

    Args:
        runner: Runs the float32 graph.
        feeds: Inputs of the graph, one mapping a frame. Shares are means over the frames, parities the worst of them.
        fp32_kept: Names of nodes that stay in float32; other nodes get their values through a Cast.
        max_groups: Stop once this many groups have been tried.
        on_group: Called before each group.

    Returns:
        The groups and their shares.
    """
    trials = _Trials(runner, feeds, fp32_kept)
    names = trials.nodes.keys()
    all_parity, total = trials.run(names)
    tried: dict[str, Group] = {}
    waiting = [""]
    while waiting and len(tried) < max_groups:
        parent = max(waiting, key=lambda name: tried[name].share if name else math.inf)
        waiting.remove(parent)
        parts, results = _parts(parent, names), {}
        for name, nodes in parts.items():
            on_group(name)
            results[name] = trials.run(nodes)
        if not parent and not math.isfinite(total):
            total = sum(error for _, error in results.values() if math.isfinite(error))
        found = {
            name: Group(name=name, nodes=len(parts[name]), parity=parity, share=error / (total or 1))
            for name, (parity, error) in results.items()
        }
        tried.update(found)
        if parent:
            tried[parent] = replace(tried[parent], split=True)
        waiting += [name for name, group in found.items() if group.nodes > 1 and group.share > _SPLIT_SHARE]
    groups = sorted(tried.values(), key=lambda group: -group.share)
    named = _cause([group for group in groups if not group.split])
    blamed = {node for group in named for node in _members(group.name, names)}
    return Bisection(all=all_parity, groups=tuple(groups), named=named, rest=trials.run(names - blamed)[0])


def fp32_nodes(model: bytes) -> list[str]:
    """Return the names of the nodes that compute in float32 in a mixed graph, which has types for all its tensors."""
    graph, single_precision = load_model(model).graph, require_module("onnx").TensorProto.FLOAT
    float32 = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == single_precision}
    return [node.name for node in graph.node if node.op_type != "Cast" and node.output[0] in float32]


class _Trials:
    """Runs of a graph with some of its nodes in FP16; float inputs count as nodes."""

    def __init__(self, runner: GraphRunner, feeds: Sequence[Mapping[str, Array]], fp32_kept: Collection[str]) -> None:
        self._runner, self._feeds, self._fp32_kept = runner, feeds, frozenset(fp32_kept)
        self._references = [runner.evaluate(feed)[CUBE][0] for feed in feeds]
        float_inputs = [name for name, array in feeds[0].items() if array.dtype == np.float32]
        float_nodes = (
            node.name
            for node, _, outputs in runner.run(feeds[0])
            if node.op_type not in DATA_MOVEMENT and outputs[0].dtype == np.float32
        )
        self.nodes = dict.fromkeys([*float_inputs, *float_nodes])
        self._cast_values = _float32_values(runner, self._fp32_kept)

    def run(self, names: Iterable[str]) -> tuple[Parity, float]:
        """Return the worst parity, and the mean squared error, which is inf if a value is not finite."""
        chosen = frozenset(names)
        emulator = Fp16Emulator(self._runner, chosen - self._fp32_kept, self._cast_values)
        parities = []
        for feed, reference in zip(self._feeds, self._references, strict=True):
            inputs = {name: round_to_fp16(array) if name in chosen else array for name, array in feed.items()}
            parities.append(compare(reference, self._runner.evaluate(inputs, emulator)[CUBE][0]))
        errors = [math.pow(10, -parity.psnr / 10) if parity.psnr > -math.inf else math.inf for parity in parities]
        return worst_parity(parities), float(np.mean(errors))


def _float32_values(runner: GraphRunner, fp32_kept: frozenset[str]) -> frozenset[str]:
    """Return the outputs of the FP32-kept nodes, and the same values after they were moved."""
    found: set[str] = set()
    for node in runner.nodes:
        if node.name in fp32_kept or (node.op_type in DATA_MOVEMENT and found & set(node.input)):
            found.update(node.output)
    return frozenset(found)


def _parts(parent: str, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the groups inside a group: those of the next level of names that has at least two."""
    members, depth = _members(parent, names), len(_path(parent)) if parent else 0
    parts: dict[str, list[str]] = {}
    while len(parts) < 2 and members:
        depth += 1
        parts = {}
        for name in members:
            path = _path(name)
            parts.setdefault(name if depth >= len(path) else ".".join(path[:depth]), []).append(name)
        if depth >= max(len(_path(name)) for name in members):
            break
    return parts


def _members(group: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if not group or name == group or name.startswith((f"{group}.", f"{group}/"))]


def _path(name: str) -> list[str]:
    """Split a node's name: ``units.0.embed/Conv_0`` → units, 0, embed, Conv_0."""
    return name.replace("/", ".").split(".")


def _cause(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Choose from groups, largest share first: those with infinite shares, or as many as make up most of the error."""
    broken = [group for group in groups if not math.isfinite(group.share)]
    if broken:
        return tuple(broken)
    sums = np.cumsum([group.share for group in groups])
    return tuple(groups[: int(np.searchsorted(sums, _NAMED_SHARE * sums[-1])) + 1]) if sums[-1] > 0 else ()
