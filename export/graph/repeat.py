"""The traced unit → a chain of all units, since tracing each of them would take most of an export's time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from torch import nn

from ccnet.contract import CONTEXT

from .nodes import initializer, output, producer, required

_FIRST = "units.0"

Values = dict[ir.Value, ir.Value]


class RepeatUnit(InPlacePass):
    """Match the nodes of ``units.0``; append a copy of them, with its own weights, for each further unit.

    The attention matrices of the copies are appended to the context.
    """

    def __init__(self, units: nn.ModuleList) -> None:
        super().__init__()
        self.units = units

    def call(self, model: ir.Model) -> PassResult:
        """Add the copies to the model's graph."""
        graph = model.graph
        concat = required(output(graph, CONTEXT).producer(), "the node that makes the context")
        flat = [producer(value, "Reshape") for value in concat.inputs]
        flat = [node for node in flat if _is_of_first_unit(node)]  # not the scale, which is the frame's
        nodes = [node for node in graph if str(node.name).startswith(_FIRST) or node in flat]
        inside = set(nodes)
        start = next(node for node in graph if node.name == "conv_in/Conv_0").outputs[0]
        (end,) = (value for node in inside - set(flat) for value in node.outputs if _is_used_outside(value, inside))
        outside = [(use.node, use.idx) for use in end.uses() if use.node not in inside]
        last, context = end, list(concat.inputs)
        for number in range(1, len(self.units)):
            copies = {start: last} | _weights(graph, nodes, self.units[number], number)
            _copy_nodes(graph, nodes, copies, number, before=concat)
            context += [copies[node.outputs[0]] for node in flat]
            last = copies[end]
        for node, index in outside:
            node.replace_input_with(index, last)
        _replace_concat(graph, concat, context)
        return PassResult(model, modified=len(self.units) > 1)


def _is_of_first_unit(node: ir.Node) -> bool:
    matrix = required(node.inputs[0], "an attention matrix").producer()
    return matrix is not None and str(matrix.name).startswith(_FIRST)


def _is_used_outside(value: ir.Value, inside: set[ir.Node]) -> bool:
    return any(use.node not in inside for use in value.uses())


def _copy_nodes(graph: ir.Graph, nodes: Iterable[ir.Node], copies: Values, number: int, *, before: ir.Node) -> None:
    """Copy the nodes for a further unit; ``copies`` maps the first unit's values to those of the copy."""
    for node in nodes:
        clone = ir.Node(
            node.domain,
            node.op_type,
            [copies.get(value, value) if value else None for value in node.inputs],
            node.attributes.values(),
            num_outputs=len(node.outputs),
            name=_renumbered(str(node.name), number),
        )
        for old, new in zip(node.outputs, clone.outputs, strict=True):
            new.name, new.type, new.shape = _renumbered(str(old.name), number), old.type, old.shape
            copies[old] = new
        graph.insert_before(before, clone)


def _replace_concat(graph: ir.Graph, concat: ir.Node, parts: Sequence[ir.Value | None]) -> None:
    """Replace the Concat by the same with other inputs."""
    longer = ir.Node("", "Concat", parts, concat.attributes.values(), name=concat.name)
    longer.outputs[0].name, longer.outputs[0].type = concat.outputs[0].name, concat.outputs[0].type
    graph.insert_before(concat, longer)
    ir.convenience.replace_all_uses_with(concat.outputs[0], longer.outputs[0], replace_graph_outputs=True)
    graph.remove(concat, safe=True)


def _weights(graph: ir.Graph, nodes: Iterable[ir.Node], unit: nn.Module, number: int) -> Values:
    """Add a further unit's weights to the graph; return the first unit's weight → its counterpart."""
    state = dict(unit.named_parameters()) | dict(unit.named_buffers())  # also those that no checkpoint keeps
    found = (value for node in nodes for value in node.inputs if value and value.is_initializer())
    counterparts = {}
    for value in dict.fromkeys(found):  # in the graph's order, so that an export is the same each time
        prefix, belongs_to_unit, name = str(value.name).partition(f"{_FIRST}.")
        if belongs_to_unit:
            array = state[name].detach().numpy()
            counterparts[value] = initializer(graph, f"{prefix}units.{number}.{name}", array)
    return counterparts


def _renumbered(name: str, number: int) -> str:
    return name.replace(_FIRST, f"units.{number}", 1) if name.startswith(_FIRST) else f"{name}_{number}"
