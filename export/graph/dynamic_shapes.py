"""A graph traced at one image size → the same graph for every height and width.

The arithmetic of symbolic sizes would be half of a trace's time, so the trace has plain numbers instead, which cannot
be mistaken for others: in multiples of the config's size multiple, height and width are primes that divide no dimension
of the network's weights and are larger than the number of its bands. Every number in the graph that such a prime
divides was computed from height or width, and is computed from them again. A sum of sizes is not detected; it shows
when an export's graphs are compared with PyTorch at another size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

_PRIMES = (131, 137, 139, 149)
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class TracedSize:
    """Height and width of a trace's example, as primes in multiples of ``multiple`` px."""

    multiple: int
    primes: tuple[int, int]

    @classmethod
    def unlike(cls, multiple: int, dimensions: Iterable[int]) -> TracedSize:
        """Return a size that divides none of the network's own dimensions; ValueError where the primes run out."""
        own = {*dimensions, multiple}
        clear = [prime for prime in _PRIMES if all(dimension % prime for dimension in own)]
        if len(clear) < 2:
            raise ValueError(f"of the primes {_PRIMES} only {clear} divide no size of the network, expected two")
        return cls(multiple, (clear[0], clear[1]))

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the example, px."""
        return self.primes[0] * self.multiple, self.primes[1] * self.multiple

    def is_free(self, number: object) -> bool:
        """Return whether a number was computed from height or width."""
        return isinstance(number, int) and number > 0 and any(number % prime == 0 for prime in self.primes)

    def name(self, number: object) -> int | str | None:
        """Return a dimension by its factors: ``16*h16`` is 16 times the height in multiples of 16 px."""
        if not isinstance(number, int):
            return None
        if not self.is_free(number):
            return number
        factors = []
        for axis, prime in zip("hw", self.primes, strict=True):
            if number % prime == 0:
                number //= prime
                factors.append(f"{axis}{self.multiple}")
        return "*".join(factors if number == 1 else [str(number), *factors])


class FreeImageSize(InPlacePass):
    """Match the numbers that come from the traced size; make them from the size of the first input, an image.

    Shapes name their free dimensions afterwards.
    """

    def __init__(self, size: TracedSize) -> None:
        super().__init__()
        self.size = size

    def call(self, model: ir.Model) -> PassResult:
        """Free the model's size.

        Args:
            model: Changed in place.

        Returns:
            The model.

        Raises:
            ValueError: A multiple of a prime is neither a fraction of height or width nor a Reshape's only unknown.
        """
        graph, size = model.graph, self.size
        arithmetic = _SizeArithmetic(graph, size)
        for node in list(graph):
            for index, value in enumerate(node.inputs):
                # A Gather's numbers are places; a Concat's are looked at where its result is used
                numbers = _numbers(value) if node.op_type not in ("Gather", "Concat") else ()
                if any(map(size.is_free, numbers)):
                    shape = _reshape_target(node, numbers, size) if node.op_type == "Reshape" else numbers
                    node.replace_input_with(index, arithmetic.tensor(shape))
        for value in (*graph.inputs, *(result for node in graph for result in node.outputs)):
            if value.shape is not None:
                value.shape = ir.Shape([size.name(number) for number in value.shape])
        return PassResult(model, modified=True)


def _numbers(value: ir.Value | None) -> Numbers:
    """Return the integers of a constant, or of a Concat of constants; no numbers for anything else."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Concat":
        parts = [_numbers(part) for part in node.inputs]
        return sum(parts, ()) if all(parts) else ()
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tuple(tensor.numpy().ravel().tolist()) if tensor is not None and tensor.dtype == ir.DataType.INT64 else ()


def _reshape_target(node: ir.Node, numbers: Numbers, size: TracedSize) -> Numbers:
    """Return a Reshape's target without the traced size where 0 (as before) and -1 (the rest) can replace it."""
    data = node.inputs[0]
    before = [*data.shape] if data is not None and data.shape is not None else []
    kept = {axis for axis, (new, old) in enumerate(zip(numbers, before, strict=False)) if new == old}
    target = [0 if axis in kept and size.is_free(number) else number for axis, number in enumerate(numbers)]
    if sum(number == -1 or size.is_free(number) for number in target) > 1:
        return numbers
    node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
    return tuple(-1 if size.is_free(number) else number for number in target)


class _SizeArithmetic:
    """Tensors of numbers, computed at the graph's head from the size of its first input; each number only once."""

    def __init__(self, graph: ir.Graph, size: TracedSize) -> None:
        self.graph, self.size = graph, size
        self.image, self.head = graph.inputs[0], graph[0]
        self.computed: dict[tuple[str, Numbers], ir.Value] = {}

    def tensor(self, numbers: Numbers) -> ir.Value:
        """Return an int64 tensor of these numbers."""
        if not any(map(self.size.is_free, numbers)):
            return self._once("Constant", numbers, [], value_ints=numbers)
        parts = [self._fraction(part) if self.size.is_free(part) else self.tensor((part,)) for part in numbers]
        return self._once("Concat", numbers, parts, axis=0)

    def _fraction(self, number: int) -> ir.Value:
        """Return a fraction of the height or of the width."""
        for axis, pixels in enumerate(self.size.pixels, start=2):
            if pixels % number == 0:
                whole = self._once("Shape", (pixels,), [self.image], start=axis, end=axis + 1)
                parts = pixels // number
                return self._once("Div", (number,), [whole, self.tensor((parts,))]) if parts > 1 else whole
        raise ValueError(f"{number} was computed from {self.size.pixels} px, but is no fraction of either")

    def _once(self, operator: str, key: Numbers, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        if (operator, key) not in self.computed:
            name = f"{self.image.name}/{operator}_{len(self.computed)}"
            node = ir.node(operator, inputs, attributes, name=name)
            (value,) = node.outputs
            value.name, value.type, value.shape = name, ir.TensorType(ir.DataType.INT64), ir.Shape([len(key)])
            self.graph.insert_before(self.head, node)
            self.computed[operator, key] = value
        return self.computed[operator, key]
