"""Which nodes an FP16 graph's error comes from: modules in FP16 alone, the worst split again and again, down to nodes.

Rounding errors of different nodes are as good as independent, so that their squares add up: a group's *share* is its
squared error alone, of that of all together. Shares need not sum to 1, and where much cancels they do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ccnet.calibration.tensors import Array, Tensors, load, module
from ccnet.contract import CUBE
from ccnet.runtime.quality.tolerances import Parity, compare

from .emulate import MOVERS, Half, rounded

Tell = Callable[[str], None]
"""Called with the name of the group that is tried."""

_NAMED = 0.9
_WORTH = 0.01
"""A group with a smaller share is not split."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Nodes that were in FP16 alone: a module, or a node or input by its own name.

    nodes: how many compute with floats. parity: to all in float32, the worst of the frames. share: of the squared error
    of all in FP16; inf where this group alone makes infinite values or NaN. split: whether its parts were tried too.
    """

    name: str
    nodes: int
    parity: Parity
    share: float
    split: bool = False


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """all: parity with the whole graph in FP16. groups: those tried, largest share first.

    named: the smallest set of unsplit groups that makes up 90 % of what the unsplit ones do; where some are not finite,
    those. rest: parity with all in FP16 but the named.
    """

    all: Parity
    groups: tuple[Group, ...]
    named: tuple[Group, ...]
    rest: Parity


def bisect(
    tensors: Tensors,
    feeds: Sequence[Mapping[str, Array]],
    *,
    kept: Collection[str] = (),
    most: int = 100,
    tell: Tell = lambda name: None,
) -> Bisection:
    """Try the parts of the whole, and of the group with the largest share, until ``most`` groups are tried.

    kept: names of nodes that stay in float32; others get their values by a cast. Of the frames' errors,
    shares take the mean and parities the worst.
    """
    trial = _Trial(tensors, feeds, kept)
    all_names = trial.nodes.keys()
    whole, total = trial.run(all_names)
    tried: dict[str, Group] = {}
    waiting = [""]
    while waiting and len(tried) < most:
        parent = max(waiting, key=lambda name: tried[name].share if name else math.inf)
        waiting.remove(parent)
        found = {}
        for name, nodes in _parts(parent, all_names).items():
            tell(name)
            parity, error = trial.run(nodes)
            found[name] = Group(name=name, nodes=len(nodes), parity=parity, share=error)
        if not parent and not math.isfinite(total):
            total = sum(one.share for one in found.values() if math.isfinite(one.share))
        found = {name: replace(one, share=one.share / (total or 1)) for name, one in found.items()}
        tried.update(found)
        if parent:
            tried[parent] = replace(tried[parent], split=True)
        waiting += [name for name, one in found.items() if one.nodes > 1 and one.share > _WORTH]
    groups = sorted(tried.values(), key=lambda one: -one.share)
    named = _named([one for one in groups if not one.split])
    blamed = {node for one in named for node in _inside(one.name, all_names)}
    return Bisection(all=whole, groups=tuple(groups), named=named, rest=trial.run(all_names - blamed)[0])


class _Trial:
    """Runs of a graph with some of its nodes in FP16; inputs count as nodes."""

    def __init__(self, tensors: Tensors, feeds: Sequence[Mapping[str, Array]], kept: Collection[str]) -> None:
        self._tensors, self._feeds, self._kept = tensors, feeds, frozenset(kept)
        self._references = [tensors.evaluate(feed)[CUBE][0] for feed in feeds]
        float_inputs = [name for name, array in feeds[0].items() if array.dtype == np.float32]
        floats = (
            node.name
            for node, _, outputs in tensors.run(feeds[0])
            if node.op_type not in MOVERS and outputs[0].dtype == np.float32
        )
        self.nodes = dict.fromkeys([*float_inputs, *floats])
        self._cast = _values(tensors, self._kept)

    def run(self, names: Iterable[str]) -> tuple[Parity, float]:
        """The worst parity, and the mean squared error; inf where a value is not finite."""
        chosen = frozenset(names)
        half = Half(self._tensors, chosen - self._kept, self._cast)
        parities = []
        for feed, reference in zip(self._feeds, self._references, strict=True):
            given = {name: rounded(array) if name in chosen else array for name, array in feed.items()}
            parities.append(compare(reference, self._tensors.evaluate(given, half)[CUBE][0]))
        error = float(np.mean([math.pow(10, -one.psnr / 10) if one.psnr > -math.inf else math.inf for one in parities]))
        return worst(parities), error


def worst(parities: Sequence[Parity]) -> Parity:
    """The worst of each figure."""
    return Parity(
        mrae=max(one.mrae for one in parities),
        sam=max(one.sam for one in parities),
        psnr=min(one.psnr for one in parities),
        max_abs=max(one.max_abs for one in parities),
        mean_abs=max(one.mean_abs for one in parities),
    )


def fp32_nodes(model: bytes) -> list[str]:
    """The nodes that compute in float32 in a mixed graph, which has types for all of its tensors."""
    graph, single_precision = load(model).graph, module("onnx").TensorProto.FLOAT
    single = {one.name for one in graph.value_info if one.type.tensor_type.elem_type == single_precision}
    return [node.name for node in graph.node if node.op_type != "Cast" and node.output[0] in single]


def _values(tensors: Tensors, kept: frozenset[str]) -> frozenset[str]:
    """What nodes kept in float32 give, also where it was only moved since."""
    found: set[str] = set()
    for node in tensors.nodes:
        if node.name in kept or (node.op_type in MOVERS and found & set(node.input)):
            found.update(node.output)
    return frozenset(found)


def _parts(parent: str, names: Iterable[str]) -> dict[str, list[str]]:
    """The groups that a group consists of, one level of names down, or as many as it takes to have two."""
    inside, depth = _inside(parent, names), len(_path(parent)) if parent else 0
    parts: dict[str, list[str]] = {}
    while len(parts) < 2 and inside:
        depth += 1
        parts = {}
        for name in inside:
            path = _path(name)
            parts.setdefault(name if depth >= len(path) else ".".join(path[:depth]), []).append(name)
        if depth >= max(len(_path(name)) for name in inside):
            break
    return parts


def _inside(group: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if not group or name == group or name.startswith((f"{group}.", f"{group}/"))]


def _path(name: str) -> list[str]:
    """Of a node ``units.0.embed/Conv_0``: units, 0, embed, Conv_0."""
    return name.replace("/", ".").split(".")


def _named(leaves: Sequence[Group]) -> tuple[Group, ...]:
    """Of groups, largest share first: those that are not finite, or as many as make up most of the error."""
    broken = [one for one in leaves if not math.isfinite(one.share)]
    if broken:
        return tuple(broken)
    sums = np.cumsum([one.share for one in leaves])
    return tuple(leaves[: int(np.searchsorted(sums, _NAMED * sums[-1])) + 1]) if sums[-1] > 0 else ()
