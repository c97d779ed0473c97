"""FP32 graph → mixed FP16: every tensor is typed, and where the type changes stands a Cast.

TensorRT's networks are strongly typed, so precision is the graph's. Most of the network runs in FP16. Two kinds of node
are kept in FP32: those whose values FP16 cannot hold, as ``ccnet calibrate ranges`` shows, and the *residual sums*,
which it holds too coarsely, as ``ccnet calibrate bisect`` shows. A network that normalises brightness scales frame and
cube in FP32, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from ccnet.contract import NATIVE_DOMAIN, CCNetError

from .nodes import applied, initializer, prune, required

KEPT_FP32: Mapping[str, str] = {
    "paf.unit": "sums of squares, and the floor of 1e-6 under a norm, fall below the smallest normal FP16 number",
    "grscm.unit": "a sum of squares over all pixels may pass 65504",
    ".inter": "each value of an attention matrix is a sum over all pixels",
    "brightness": "the eighth power of a block's mean falls below the smallest normal FP16 number",
    "scaling": "a dark frame and its cube fall below the smallest normal FP16 number",
    "base": "its layers cancel most of each other: their rounding cost 16 of 82 dB",
    "intra.norm": "a sum of squares may pass 65504, and its floor of 1e-5 is below the smallest normal FP16 number",
}
"""End of a module's name, without the number of a layer → why FP16 cannot hold the values of its nodes."""

_SUMS = "residual sums"
_WHY_SUMS = "each of them rounds all that the blocks before it have summed up: a third of the error on dark frames"

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
_HALF_MAX = float(np.finfo(np.float16).max)


def to_fp16(model: ir.Model) -> ir.Model:
    """Return a mixed FP16 copy of a float32 graph; its inputs and outputs stay as they are.

    Args:
        model: The float32 graph.

    Returns:
        The typed graph.

    Raises:
        CCNetError: A weight does not fit FP16's range.
    """
    return applied(model, MixedPrecision())


def precisions(model: ir.Model) -> dict[str, object]:
    """Return how many nodes compute which type, and for a mixed graph how many nodes are kept in FP32, and why.

    ``ccnet.contract.manifest.PRECISION_KEY`` describes the keys.
    """
    mixed = any(value.dtype == ir.DataType.FLOAT16 for node in model.graph for value in node.outputs)
    names = [_module(node.name) for node in model.graph if node.op_type != "Cast"]
    counts = {end: sum(name.endswith(end) for name in names) for end in KEPT_FP32}
    kept = {end: (count, KEPT_FP32[end]) for end, count in counts.items() if mixed and count}
    if mixed:
        kept[_SUMS] = (sum(map(is_residual_sum, model.graph)), _WHY_SUMS)
    types = Counter(node.outputs[0].dtype.name for node in model.graph if node.outputs[0].dtype)
    return {"types": dict(types), "islands": kept}  # the name under which graphs of version 0.1.0 have it


def is_kept_fp32(node: str | None) -> bool:
    """Return whether FP16 cannot hold the values of a node, by its name ``module/Operator_count``."""
    return _module(node).endswith(tuple(KEPT_FP32))


def is_residual_sum(node: ir.Node) -> bool:
    """Return whether a node adds features, or a bias, to features; NeSCM's scan and GELU's 1 + erf do not."""
    scalar = any(
        value is not None and value.const_value is not None and value.const_value.size == 1 for value in node.inputs
    )
    return node.op_type == "Add" and ".nescm" not in _module(node.name) and not scalar


def _module(node: str | None) -> str:
    """Return the module of a node, without the number of a layer: ``base`` for ``base.6/Conv_0``."""
    return re.sub(r"\.\d+$", "", (node or "").partition("/")[0])


class MixedPrecision(InPlacePass):
    """Match every node by its name; make its outputs FP16, or keep them FP32, and cast inputs of the other type."""

    def call(self, model: ir.Model) -> PassResult:
        """Type every tensor of the model."""
        graph = model.graph
        converter = _Converter(graph)
        for node in list(graph):
            keep = is_kept_fp32(node.name) or is_residual_sum(node)
            wanted = ir.DataType.FLOAT if keep else ir.DataType.FLOAT16
            _retarget(node, wanted)
            # The plugin computes in float: its weights are no FP16
            inputs = node.inputs[:1] if node.domain == NATIVE_DOMAIN else node.inputs
            for index, value in enumerate(inputs):
                if node.op_type != "Cast" and value is not None and value.dtype in _FLOATS - {wanted}:
                    node.replace_input_with(index, converter.convert(value, wanted, before=node))
            for value in node.outputs:
                if value.dtype == ir.DataType.FLOAT:
                    value.type = ir.TensorType(wanted)
        for index, value in enumerate(graph.outputs):
            graph.outputs[index] = _as_float32_output(graph, value)
        prune(model)
        return PassResult(model, modified=True)


def _retarget(node: ir.Node, wanted: ir.DataType) -> None:
    """Let a Cast to float, such as a uint8 frame's, cast to the graph's type at once: 0 to 255 is exact in FP16."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", int(wanted))


class _Converter:
    """Values in another type; all users of a value share its converted weight or its Cast."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def convert(self, value: ir.Value, wanted: ir.DataType, *, before: ir.Node) -> ir.Value:
        """Return the value in the wanted type; a Cast stands before the node that needs it first."""
        key = (value, wanted)
        if key not in self.converted:
            self.converted[key] = (
                self._half_weight(value) if value.is_initializer() else self._cast(value, wanted, before)
            )
        return self.converted[key]

    def _half_weight(self, value: ir.Value) -> ir.Value:
        array = required(value.const_value, f"the array of weight {value.name}").numpy()
        largest = np.abs(array).max(initial=0)
        if largest > _HALF_MAX:
            raise CCNetError(f"weight {value.name} reaches {largest:g}, FP16 ends at 65504: export fp32")
        return initializer(self.graph, f"{value.name}.fp16", array.astype(np.float16))

    def _cast(self, value: ir.Value, wanted: ir.DataType, before: ir.Node) -> ir.Value:
        name = f"{value.name}/{wanted.name.lower()}"
        cast = ir.node("Cast", [value], {"to": wanted}, name=name)
        cast.outputs[0].name, cast.outputs[0].shape, cast.outputs[0].type = name, value.shape, ir.TensorType(wanted)
        self.graph.insert_before(before, cast)
        return cast.outputs[0]


def _as_float32_output(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return a graph's output in float32, under its own name."""
    if value.dtype == ir.DataType.FLOAT:
        return value
    name, value.name = value.name, f"{value.name}/float16"
    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{name}/Cast")
    cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.append(cast)
    return cast.outputs[0]
