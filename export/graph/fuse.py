"""A graph with its costliest parts as one node each, for ONNX Runtime on a CPU.

The nodes are the operators of ``ccnet/csrc/onnxruntime``, where the package's kernels are compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from ccnet.contract import NATIVE_DOMAIN
from ccnet.model.blocks import FFN, PAF, GrSCM, NeSCM
from ccnet.model.ccnet import SRU

from .trace import constant, made_by, prune

Nodes = Mapping[str, ir.Node]

# What the operators take (``ccnet/csrc/onnxruntime/operators.c``); a part of another size stays as it is
_HEADS, _BANDS, _PATCHES, _GROUPS, _CHANNELS, _HIDDEN = (1, 2, 4), 64, (4, 8, 16), 16, 1024, 4096


def fuse_operators(portable: ir.Model, model: nn.Module) -> ir.Model:
    """The same graph with the nodes of each GrSCM, NeSCM, PAF, FFN and way back up in one.

    NeSCM takes in SIA's pooling, PAF the rest of SIA, and PAF and FFN the sum behind them.

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
        elif isinstance(part, SRU):
            _join(made.graph, nodes, f"{name}.up2", f"{name}.fuse2", part.up2, part.fuse2)
            _join(made.graph, nodes, f"{name}.up1", f"{name}.fuse1", part.up1, part.fuse1)
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
    """With SIA's pooling behind it where PAF reads nothing else of it."""
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
    pooling = nodes.get(f"{name.rpartition('.')[0]}.paf.aggregate/Conv_0")
    operator, result = ("PooledNeSCM", pooling.inputs[0]) if pooling else ("NeSCM", results[0])
    assert result is not None  # noqa: S101 - for the type checker
    _replace(graph, name, operator, [given[0], *weights], result, groups=part.groups)


def _paf(graph: ir.Graph, nodes: Nodes, name: str, part: PAF) -> None:
    """What follows SIA's pooling."""
    last, channels = nodes.get(f"{name}/Add_0"), part.map_att.in_channels
    if last and part.patch in _PATCHES and part.groups <= _GROUPS and channels % 4 == 0 and channels <= _CHANNELS:
        aggregate, compress, mapped = (
            nodes[f"{name}.{conv}/Conv_0"].inputs for conv in ("aggregate", "map_cp", "map_att")
        )
        x, result = _sum_behind(name, last.outputs[0])
        given = [x, mapped[0], *aggregate, *compress[1:], *mapped[1:]]
        _replace(graph, name, "PAF", given, result, patch=part.patch)


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


def _join(graph: ir.Graph, nodes: Nodes, up: str, fuse: str, rise: nn.ConvTranspose2d, mix: nn.Conv2d) -> None:
    """An up-convolution, the concatenation and the 1×1 behind it: two linear maps after another are one."""
    last, channels = nodes.get(f"{fuse}/Conv_0"), mix.out_channels
    if not last or channels % 4 or rise.in_channels > _CHANNELS:
        return
    _, beside = made_by(last.inputs[0], "Concat").inputs
    assert rise.bias is not None  # noqa: S101 - for the type checker
    above, skip = mix.weight.detach().flatten(1).split([rise.out_channels, mix.in_channels - rise.out_channels], 1)
    given = {
        "up": torch.einsum("om,imab->aboi", above, rise.weight.detach()),
        "skip": skip,
        "bias": above @ rise.bias.detach(),
    }
    weights = [constant(graph, f"{fuse}.{key}", one.numpy()) for key, one in given.items()]
    _replace(graph, fuse, "Join", [beside, nodes[f"{up}/ConvTranspose_0"].inputs[0], *weights], last.outputs[0])


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
