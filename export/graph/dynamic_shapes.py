"""A graph traced at one size → the same for every height and width.

The arithmetic of symbolic sizes would be half of a trace's time, so they are numbers in it, and unmistakable ones: in
multiples of the config's size multiple they are primes that divide no dimension of the network's weights and lie beyond
its bands. What they divide in the graph was made of the image's height or width, and is made of them again. Sums of
sizes are not seen; they show when an export's graphs are compared with PyTorch at another size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

_PRIMES = (131, 137, 139, 149)
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """Height and width that a trace is made at, as primes in multiples of ``multiple`` px."""

    multiple: int
    primes: tuple[int, int]

    @classmethod
    def unlike(cls, multiple: int, own: Iterable[int]) -> Sizes:
        """Sizes that nothing can be mistaken for which is made of the network's own."""
        own = {*own, multiple}
        clear = [prime for prime in _PRIMES if all(size % prime for size in own)]
        if len(clear) < 2:
            raise ValueError(f"of the primes {_PRIMES} only {clear} divide no size of the network, expected two")
        return cls(multiple, (clear[0], clear[1]))

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the example."""
        return self.primes[0] * self.multiple, self.primes[1] * self.multiple

    def is_free(self, size: object) -> bool:
        """Whether a number was made of height or width."""
        return isinstance(size, int) and size > 0 and any(size % prime == 0 for prime in self.primes)

    def name(self, size: object) -> int | str | None:
        """A size in a shape by its factors: 16*h16 is 16 times the height in multiples of 16."""
        if not isinstance(size, int):
            return None
        if not self.is_free(size):
            return size
        factors = []
        for axis, prime in zip("hw", self.primes, strict=True):
            if size % prime == 0:
                size //= prime
                factors.append(f"{axis}{self.multiple}")
        return "*".join(factors if size == 1 else [str(size), *factors])


def free(graph: ir.Graph, sizes: Sizes) -> None:
    """Make what was made of the traced size from that of the first input, an image, and name it in all shapes.

    ValueError where a multiple of a prime is neither a fraction of height or width nor the only unknown of a Reshape.
    """
    arithmetic = _Arithmetic(graph, sizes)
    for node in list(graph):
        for index, value in enumerate(node.inputs):
            # A Gather's are places; a Concat's are parts of what is looked at where it is used
            numbers = _numbers(value) if node.op_type not in ("Gather", "Concat") else ()
            if any(map(sizes.is_free, numbers)):
                shape = _reshaped(node, numbers, sizes) if node.op_type == "Reshape" else numbers
                node.replace_input_with(index, arithmetic.tensor(shape))
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([sizes.name(size) for size in value.shape])


def _numbers(value: ir.Value | None) -> Numbers:
    """Of a constant, or of a Concat of constants; of anything else none."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Concat":
        parts = [_numbers(part) for part in node.inputs]
        return sum(parts, ()) if all(parts) else ()
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tuple(tensor.numpy().ravel().tolist()) if tensor is not None and tensor.dtype == ir.DataType.INT64 else ()


def _reshaped(node: ir.Node, numbers: Numbers, sizes: Sizes) -> Numbers:
    """A Reshape's numbers, without any of the traced size if it can say so: 0 stays as it is, -1 follows from all."""
    given = node.inputs[0]
    before = [*given.shape] if given is not None and given.shape is not None else []
    kept = {axis for axis, (new, old) in enumerate(zip(numbers, before, strict=False)) if new == old}
    said = [0 if axis in kept and sizes.is_free(number) else number for axis, number in enumerate(numbers)]
    if sum(number == -1 or sizes.is_free(number) for number in said) > 1:
        return numbers
    node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
    return tuple(-1 if sizes.is_free(number) else number for number in said)


class _Arithmetic:
    """Tensors of numbers, made of the size of a graph's first input at its head; each of them once."""

    def __init__(self, graph: ir.Graph, sizes: Sizes) -> None:
        self.graph, self.sizes = graph, sizes
        self.image, self.head = graph.inputs[0], graph[0]
        self.made: dict[tuple[str, Numbers], ir.Value] = {}

    def tensor(self, numbers: Numbers) -> ir.Value:
        if not any(map(self.sizes.is_free, numbers)):
            return self._once("Constant", numbers, [], value_ints=numbers)
        parts = [self._fraction(one) if self.sizes.is_free(one) else self.tensor((one,)) for one in numbers]
        return self._once("Concat", numbers, parts, axis=0)

    def _fraction(self, number: int) -> ir.Value:
        """A fraction of the height or of the width."""
        for axis, pixels in enumerate(self.sizes.pixels, start=2):
            if pixels % number == 0:
                whole = self._once("Shape", (pixels,), [self.image], start=axis, end=axis + 1)
                parts = pixels // number
                return self._once("Div", (number,), [whole, self.tensor((parts,))]) if parts > 1 else whole
        raise ValueError(f"{number} was made of {self.sizes.pixels} px, but is no fraction of either")

    def _once(self, operator: str, key: Numbers, given: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        if (operator, key) not in self.made:
            name = f"{self.image.name}/{operator}_{len(self.made)}"
            node = ir.node(operator, given, attributes, name=name)
            (value,) = node.outputs
            value.name, value.type, value.shape = name, ir.TensorType(ir.DataType.INT64), ir.Shape([len(key)])
            self.graph.insert_before(self.head, node)
            self.made[operator, key] = value
        return self.made[operator, key]
