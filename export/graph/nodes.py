"""Small steps on ONNX graphs that the passes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

Value = TypeVar("Value")


def required(value: Value | None, what: str) -> Value:
    """Return the value, which must be there; ValueError names what is missing."""
    if value is None:
        raise ValueError(f"{what} is missing")
    return value


def applied(model: ir.Model, *passes: ir.passes.InPlacePass) -> ir.Model:
    """Return a copy of the model that the passes have changed, in their order."""
    changed = model.clone()
    for each in passes:
        each(changed)
    return changed


def producer(value: ir.Value | None, operator: str) -> ir.Node:
    """Return the node that computes a value; ValueError if its operator is another, or there is no such node."""
    node = value.producer() if value else None
    if node is None or node.op_type != operator:
        raise ValueError(f"{value} is computed by {node}, expected a node {operator}")
    return node


def output(graph: ir.Graph, name: str) -> ir.Value:
    """Return the graph's output of that name."""
    return next(value for value in graph.outputs if value.name == name)


def initializer(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    """Add an initializer that holds the array."""
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def integers(graph: ir.Graph, name: str, values: Sequence[int]) -> ir.Value:
    """Add an initializer of int64 numbers, as sizes and shapes are."""
    return initializer(graph, name, np.array(values, np.int64))


def replace(graph: ir.Graph, result: ir.Value, node: ir.Node) -> None:
    """Let a node compute a result in the place of the nodes that did.

    An output of the graph keeps its name; any other result takes the node's.
    """
    replacement = node.outputs[0]
    name = result.name if result.is_graph_output() else node.name
    replacement.type, replacement.shape, replacement.name = result.type, result.shape, name
    graph.insert_before(required(result.producer(), f"the node of {node.name}'s result"), node)
    ir.convenience.replace_all_uses_with(result, replacement, replace_graph_outputs=True)


def prune(model: ir.Model) -> None:
    """Remove the nodes and initializers that nothing needs."""
    common.RemoveUnusedNodesPass()(model)
