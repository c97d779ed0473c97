"""A graph with its costliest parts as one node each, the operators of ``ccnet/ort.c``, for ONNX Runtime on a CPU where
the package's kernels are compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from torch import nn

from ccnet.contract import NATIVE_DOMAIN
from ccnet.modules import FFN, PAF, GrSCM, NeSCM

from .graph import constant, made_by, prune

Nodes = Mapping[str, ir.Node]

# What the operators take (``ccnet/ort.c``); a part of another size stays as it is
_HEADS, _BANDS, _PATCHES, _GROUPS, _CHANNELS, _HIDDEN = (1, 2, 4), 64, (4, 8, 16), 16, 1024, 4096


def with_operators(portable: ir.Model, model: nn.Module) -> ir.Model:
    """The same graph with the nodes of each GrSCM, NeSCM, PAF and FFN in one; the last two take in the sum behind.

    ``model``: what the graph was traced from, whose modules its nodes are named after. Parts that the graph was cut off
    before, and those of sizes that the operators do not take, stay as they are.
    """
    made = portable.clone()
    nodes = {str(node.name): node for node in made.graph}
    for name, part in model.named_modules():
        if isinstance(part, GrSCM):
            _grscm(made.graph, nodes, name, part)
        elif isinstance(part, NeSCM):
            _nescm(made.graph, nodes, name, part)
        elif isinstance(part, PAF):
            _paf(made.graph, nodes, name, part)
        elif isinstance(part, FFN):
            _ffn(made.graph, nodes, name, part)
    made.graph.opset_imports[NATIVE_DOMAIN] = 1
    prune(made)
    return made


def _grscm(graph: ir.Graph, nodes: Nodes, name: str, part: GrSCM) -> None:
    """What follows its attention."""
    last, (channels, run) = nodes.get(f"{name}.position.2/Conv_0"), part.to_v.weight.shape[:2]
    if not last or run % 4 or channels > _CHANNELS:
        return
    mixed, result = _sum_behind(name, last.outputs[0])
    product = made_by(made_by(mixed, "Add").inputs[0], "Reshape").inputs[0]
    x, values = nodes[f"{name}.to_v/Conv_0"].inputs[:2]
    assert part.proj.bias is not None  # noqa: S101 - for the type checker
    bias = constant(graph, f"{name}.proj.bias", part.proj.bias.detach().numpy())
    filters = (nodes[f"{name}.position.{index}/Conv_0"].inputs[1] for index in (0, 2))
    matrix = made_by(product, "MatMul").inputs[0]
    _replace(graph, name, "GrSCM", [x, values, matrix, bias, *filters], result, groups=part.to_v.groups)


def _nescm(graph: ir.Graph, nodes: Nodes, name: str, part: NeSCM) -> None:
    inside = {node for key, node in nodes.items() if key.startswith(f"{name or 'ccnet'}/")}
    if not inside or part.heads not in _HEADS:
        return
    computed = {value for node in inside for value in node.inputs if value and not value.is_initializer()}
    given = [value for value in computed if value.producer() not in inside]
    results = [one for node in inside for one in node.outputs if any(use.node not in inside for use in one.uses())]
    results += [one for node in inside for one in node.outputs if one.is_graph_output()]
    if len(given) != 1 or len(results) != 1:
        raise ValueError(f"{name} reads {len(given)} tensors and gives {len(results)}, expected one each")
    channels = given[0].shape[1] if given[0].shape else None
    if not isinstance(channels, int) or channels > _BANDS * part.heads:
        return
    keys = ("forget", "forget_bias", "output", "output_bias")
    weights = [
        constant(graph, f"{name}.{key}", weight.detach().numpy())
        for key, weight in zip(keys, part.weights(), strict=True)
    ]
    _replace(graph, name, "NeSCM", [given[0], *weights], results[0], groups=part.groups)


def _paf(graph: ir.Graph, nodes: Nodes, name: str, part: PAF) -> None:
    """What follows its small convolutions, with the one to C channels."""
    last, channels = nodes.get(f"{name}/Add_0"), part.map_att.in_channels
    if last and part.patch in _PATCHES and part.groups <= _GROUPS and channels % 4 == 0 and channels <= _CHANNELS:
        mapped, compressed = (nodes[f"{name}.{conv}/Conv_0"] for conv in ("map_att", "map_cp"))
        x, result = _sum_behind(name, last.outputs[0])
        attended, *weights = mapped.inputs
        _replace(graph, name, "PAF", [x, attended, compressed.outputs[0], *weights], result, patch=part.patch)


def _ffn(graph: ir.Graph, nodes: Nodes, name: str, part: FFN) -> None:
    hidden, channels = part.state_dict()["net.0.weight"].shape[:2]
    last, fits = nodes.get(f"{name}.net.4/Conv_0"), channels % 4 == 0 and channels <= _CHANNELS and hidden <= _HIDDEN
    if last and fits:
        x, result = _sum_behind(name, last.outputs[0])
        if x is not nodes[f"{name}/Transpose_0"].inputs[0]:
            raise ValueError(f"{name} is not added to what it reads")
        norm = nodes[f"{name}.norm/LayerNormalization_0"]
        convolutions = (nodes[f"{name}.net.{index}/Conv_0"].inputs[1] for index in (0, 2, 4))
        _replace(graph, name, "FFN", [x, *norm.inputs[1:3], *convolutions], result, epsilon=part.norm.eps)


def _sum_behind(name: str, made: ir.Value) -> tuple[ir.Value, ir.Value]:
    """What a part's result is added to, and the sum."""
    uses = [*made.uses()]
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        raise ValueError(f"what {name} gives is not just added to something")
    node = uses[0].node
    other = node.inputs[1 - uses[0].idx]
    assert other is not None  # noqa: S101 - for the type checker
    return other, node.outputs[0]


def _replace(
    graph: ir.Graph, name: str, operator: str, given: Sequence[ir.Value | None], result: ir.Value, **attributes: Any
) -> None:
    """Let an operator make the result; what made it before is left to ``prune``."""
    node = ir.node(operator, given, attributes, domain=NATIVE_DOMAIN, name=f"{name}/{operator}_0")
    made = node.outputs[0]
    made.type, made.shape, made.name = result.type, result.shape, node.name
    before = result.producer()
    assert before is not None  # noqa: S101 - for the type checker
    graph.insert_before(before, node)
    ir.convenience.replace_all_uses_with(result, made, replace_graph_outputs=True)
