"""FP32 graph → mixed FP16: every tensor is typed, and where the type changes stands a Cast.

TensorRT's networks are strongly typed, so precision is the graph's. Most of the network runs in FP16. FP32 are the
*islands*, which FP16 cannot hold, as ``ccnet calibrate ranges`` shows, and the *residual sums*, which it holds too
coarsely, as ``ccnet calibrate bisect`` shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from ccnet.contract import CCNetError

from .trace import constant

ISLANDS: Mapping[str, str] = {
    "paf.unit": "sums of squares, and the floor of 1e-6 under a norm, fall below the smallest normal FP16 number",
    "intra.norm": "a sum of squares may pass 65504, and its floor of 1e-5 is below the smallest normal FP16 number",
}
"""End of a module's name → why FP16 cannot hold it."""

SUMS = "residual sums"
_WHY_SUMS = "each of them rounds all that the blocks before it have summed up: a third of the error on dark frames"

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
Casts = dict[tuple[ir.Value, ir.DataType], ir.Value]
_HALF_MAX = float(np.finfo(np.float16).max)


def to_fp16(model: ir.Model) -> ir.Model:
    """A mixed FP16 copy of a float32 graph; its inputs and outputs stay as they are.

    CCNetError where a weight does not fit FP16's range.
    """
    model = model.clone()
    graph = model.graph
    casts: Casts = {}
    for node in list(graph):
        wanted = ir.DataType.FLOAT if is_island(node.name) or is_sum(node) else ir.DataType.FLOAT16
        _retarget(node, wanted)
        for index, value in enumerate(node.inputs):
            if node.op_type != "Cast" and value is not None and value.dtype in _FLOATS - {wanted}:
                node.replace_input_with(index, _as(graph, node, value, wanted, casts))
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.type = ir.TensorType(wanted)
    for index, value in enumerate(graph.outputs):
        graph.outputs[index] = _back(graph, value)
    passes.RemoveUnusedNodesPass()(model)
    return model


def precisions(model: ir.Model) -> dict[str, object]:
    """How many nodes give which type, and of each island of a mixed graph how many there are, and why."""
    mixed = any(value.dtype == ir.DataType.FLOAT16 for node in model.graph for value in node.outputs)
    names = [_module(node.name) for node in model.graph if node.op_type != "Cast"]
    islands = {island: (sum(name.endswith(island) for name in names), why) for island, why in ISLANDS.items() if mixed}
    if mixed:
        islands[SUMS] = (sum(map(is_sum, model.graph)), _WHY_SUMS)
    types = Counter(node.outputs[0].dtype.name for node in model.graph if node.outputs[0].dtype)
    return {"types": dict(types), "islands": islands}


def is_island(node: str | None) -> bool:
    """Whether a node, by its name ``module/Operator_count``, belongs to an island."""
    return _module(node).endswith(tuple(ISLANDS))


def is_sum(node: ir.Node) -> bool:
    """Whether a node adds features, or a bias, to features; NeSCM's scan and GELU's 1 + erf are something else."""
    scalar = any(
        value is not None and value.const_value is not None and value.const_value.size == 1 for value in node.inputs
    )
    return node.op_type == "Add" and ".nescm" not in _module(node.name) and not scalar


def _module(node: str | None) -> str:
    return (node or "").partition("/")[0]


def _retarget(node: ir.Node, wanted: ir.DataType) -> None:
    """A Cast to float, as of a uint8 frame, gives the graph's type at once: 0 to 255 is exact in FP16."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", int(wanted))


def _as(
    graph: ir.Graph,
    node: ir.Node,
    value: ir.Value,
    wanted: ir.DataType,
    casts: Casts,
) -> ir.Value:
    """The value in the wanted type: a converted weight, or a Cast, which all of its users share."""
    key = (value, wanted)
    if key not in casts:
        casts[key] = _half_weight(graph, value) if value.is_initializer() else _cast(graph, node, value, wanted)
    return casts[key]


def _half_weight(graph: ir.Graph, value: ir.Value) -> ir.Value:
    assert value.const_value is not None  # noqa: S101 - for the type checker
    array = value.const_value.numpy()
    if np.abs(array).max(initial=0) > _HALF_MAX:
        raise CCNetError(f"weight {value.name} reaches {np.abs(array).max():g}, FP16 ends at 65504: export fp32")
    return constant(graph, f"{value.name}.fp16", array.astype(np.float16))


def _cast(graph: ir.Graph, before: ir.Node, value: ir.Value, wanted: ir.DataType) -> ir.Value:
    name = f"{value.name}/{wanted.name.lower()}"
    cast = ir.node("Cast", [value], {"to": wanted}, name=name)
    cast.outputs[0].name, cast.outputs[0].shape, cast.outputs[0].type = name, value.shape, ir.TensorType(wanted)
    graph.insert_before(before, cast)
    return cast.outputs[0]


def _back(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """A graph's output under its own name, in float32."""
    if value.dtype == ir.DataType.FLOAT:
        return value
    name, value.name = value.name, f"{value.name}/float16"
    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{name}/Cast")
    cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.append(cast)
    return cast.outputs[0]
