"""The costliest parts of a graph as one node each, for ONNX Runtime on a CPU: "fused operators".

The nodes are the operators of ``ccnet/csrc/onnxruntime``, where the package's kernels are compiled. Parts that the
graph was cut off before, and those of sizes that the operators do not take, stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import InPlacePass, PassResult
from torch import nn

from ccnet.contract import NATIVE_DOMAIN
from ccnet.model.base import PixelMLP
from ccnet.model.blocks import FFN, PAF, GrSCM, NeSCM
from ccnet.model.ccnet import SRU
from ccnet.ops.kernels import limit, limits

from .memory import RecomputeEmbedding, RunGrSCMFirst
from .nodes import applied, initializer, producer, prune, replace, required

Nodes = Mapping[str, ir.Node]


def fuse_operators(portable: ir.Model, module: nn.Module) -> ir.Model:
    """Return a copy of a graph with each GrSCM, its cosines, NeSCM, PAF, FFN, up-convolution and the base fused.

    The nodes are in the order that takes the least memory.

    Args:
        portable: A graph of ONNX's own operators.
        module: The module that it was traced from; the graph's nodes are named after its parts.

    Returns:
        The graph with operators of the domain ``ccnet``.
    """
    passes = (FuseBandCosine, FuseGrSCM, FuseNeSCM, FusePAF, FuseFFN, FuseUpsample, FusePixelMLP)
    fused = applied(portable, *(each(module) for each in passes), RunGrSCMFirst(), RecomputeEmbedding())
    fused.graph.opset_imports[NATIVE_DOMAIN] = 1
    prune(fused)
    return fused


def fuse_pooled_nescm(portable: ir.Model, module: nn.Module) -> ir.Model:
    """Return a copy of a graph with the nodes of each NeSCM and of SIA's pooling fused, for TensorRT's plugin.

    Args:
        portable: A graph of ONNX's own operators.
        module: The module that it was traced from.

    Returns:
        The graph with nodes ``PooledNeSCM`` of the domain ``ccnet``.
    """
    fused = applied(portable, FuseNeSCM(module))
    fused.graph.opset_imports[NATIVE_DOMAIN] = 1
    prune(fused)
    return fused


class FusePass(InPlacePass):
    """A pass that fuses parts of a module; its nodes are found by the names of the parts.

    The nodes that computed a result before are left to ``prune``.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def call(self, model: ir.Model) -> PassResult:
        """Fuse every part that the graph has and the operator takes."""
        nodes = {str(node.name): node for node in model.graph}
        fused = [self.fuse(model.graph, nodes, name, part) for name, part in self.module.named_modules()]
        return PassResult(model, modified=any(fused))

    def fuse(self, graph: ir.Graph, nodes: Nodes, name: str, part: nn.Module) -> bool:
        """Fuse a part, if it is one of this pass, and return whether it was fused."""
        raise NotImplementedError


class FuseBandCosine(FusePass):
    """Match a GrSCM's keys, queries, unit vectors and their product; make BandCosine. ``decode`` has none."""

    def fuse(self, graph: ir.Graph, nodes: Nodes, name: str, part: nn.Module) -> bool:
        """Fuse the cosines of a GrSCM."""
        if not isinstance(part, GrSCM):
            return False
        keys, (channels, group) = nodes.get(f"{name}.to_k/Conv_0"), part.to_k.weight.shape[:2]
        if not keys or group % limit("matmul_outputs") or not _channels_supported(channels):
            return False
        unit = nodes[f"{name}.unit/Div_0"].outputs[0]
        product = _user(_user(unit, "Reshape").outputs[0], "MatMul")
        inputs = [*keys.inputs[:2], nodes[f"{name}.to_q/Conv_0"].inputs[1]]
        _replace(graph, name, "BandCosine", inputs, product.outputs[0], bands=part.split[1])
        return True


class FuseGrSCM(FusePass):
    """Match the nodes after a GrSCM's attention: values, projection, positional branch and their sum; make GrSCM."""

    def fuse(self, graph: ir.Graph, nodes: Nodes, name: str, part: nn.Module) -> bool:
        """Fuse a GrSCM."""
        if not isinstance(part, GrSCM):
            return False
        last, (channels, run) = nodes.get(f"{name}.position.2/Conv_0"), part.to_v.weight.shape[:2]
        if not last or run % limit("matmul_outputs") or not _channels_supported(channels):
            return False
        projected, result = _added_to(name, last.outputs[0])
        weight, bias = producer(projected, "Conv").inputs[1:3]
        x, values = nodes[f"{name}.to_v/Conv_0"].inputs[:2]
        filters = (nodes[f"{name}.position.{index}/Conv_0"].inputs[1] for index in (0, 2))
        matrix = producer(weight, "Reshape").inputs[0]
        _replace(graph, name, "GrSCM", [x, values, matrix, bias, *filters], result, groups=part.to_v.groups)
        return True


class FuseNeSCM(FusePass):
    """Match all nodes of a NeSCM; make NeSCM, or PooledNeSCM where a PAF reads nothing but its pooled features."""

    def fuse(self, graph: ir.Graph, nodes: Nodes, name: str, part: nn.Module) -> bool:
        """Fuse a NeSCM; ValueError where it has more than one input or output."""
        if not isinstance(part, NeSCM) or part.heads not in limits("heads"):
            return False
        inside = {node for key, node in nodes.items() if key.startswith(f"{name or 'ccnet'}/")}
        if not inside:
            return False
        inputs, results = [*_inputs_of(inside)], [*_results_of(inside)]
        if len(inputs) != 1 or len(results) != 1:
            raise ValueError(f"{name} reads {len(inputs)} tensors and computes {len(results)}, expected one each")
        channels = inputs[0].shape[1] if inputs[0].shape else None
        if not isinstance(channels, int) or channels > limit("max_bands") * part.heads:
            return False
        keys = ("forget", "forget_bias", "output", "output_bias")
        weights = [
            initializer(graph, f"{name}.{key}", weight.detach().numpy())
            for key, weight in zip(keys, part.weights(), strict=True)
        ]
        pooling = nodes.get(f"{name.rpartition('.')[0]}.paf.aggregate/Conv_0")
        operator, result = ("PooledNeSCM", pooling.inputs[0]) if pooling else ("NeSCM", results[0])
        result = required(result, f"the result of {name}")
        _replace(graph, name, operator, [inputs[0], *weights], result, groups=part.groups)
        return True


class FusePAF(FusePass):
    """Match the nodes of a PAF after SIA's pooling, and the sum with the features; make PAF."""

    def fuse(self, graph: ir.Graph, nodes: Nodes, name: str, part: nn.Module) -> bool:
        """Fuse a PAF."""
        if not isinstance(part, PAF):
            return False
        last, channels = nodes.get(f"{name}/Add_0"), part.map_att.in_channels
        supported = part.patch in limits("operator_patches") and part.groups <= limit("max_groups")
        if not last or not supported or not _channels_supported(channels):
            return False
        aggregate, compress, mapped = (
            nodes[f"{name}.{convolution}/Conv_0"].inputs for convolution in ("aggregate", "map_cp", "map_att")
        )
        x, result = _added_to(name, last.outputs[0])
        inputs = [x, mapped[0], *aggregate, *compress[1:], *mapped[1:]]
        _replace(graph, name, "PAF", inputs, result, patch=part.patch)
        return True


class FuseFFN(FusePass):
    """Match the nodes of an FFN, and the sum with its input; make FFN."""

    def fuse(self, graph: ir.Graph, nodes: Nodes, name: str, part: nn.Module) -> bool:
        """Fuse an FFN; ValueError where it is not added to its own input."""
        if not isinstance(part, FFN):
            return False
        hidden, channels = part.state_dict()["net.0.weight"].shape[:2]
        last = nodes.get(f"{name}.net.4/Conv_0")
        if not last or not _channels_supported(channels) or hidden > limit("operator_hidden"):
            return False
        x, result = _added_to(name, last.outputs[0])
        if x is not nodes[f"{name}/Transpose_0"].inputs[0]:
            raise ValueError(f"{name} is not added to its own input")
        norm = nodes[f"{name}.norm/LayerNormalization_0"]
        convolutions = (nodes[f"{name}.net.{index}/Conv_0"].inputs[1] for index in (0, 2, 4))
        _replace(graph, name, "FFN", [x, *norm.inputs[1:3], *convolutions], result, epsilon=part.norm.eps)
        return True


class FuseUpsample(FusePass):
    """Match an up-convolution, the concatenation with the skip connection and the 1×1 convolution; make Join.

    Linear maps one after the other are one linear map: the 1×1's weights are multiplied into the up-convolution's.
    """

    def fuse(self, graph: ir.Graph, nodes: Nodes, name: str, part: nn.Module) -> bool:
        """Fuse both up-convolutions of an SRU."""
        if not isinstance(part, SRU):
            return False
        fused = [
            self._fuse_scale(graph, nodes, f"{name}.up{scale}", f"{name}.fuse{scale}", up, fuse)
            for scale, up, fuse in ((2, part.up2, part.fuse2), (1, part.up1, part.fuse1))
        ]
        return any(fused)

    def _fuse_scale(
        self, graph: ir.Graph, nodes: Nodes, up_name: str, fuse_name: str, up: nn.ConvTranspose2d, fuse: nn.Conv2d
    ) -> bool:
        last, channels = nodes.get(f"{fuse_name}/Conv_0"), fuse.out_channels
        if not last or not _channels_supported(channels) or up.in_channels > limit("operator_channels"):
            return False
        _, skip = producer(last.inputs[0], "Concat").inputs
        split = [up.out_channels, fuse.in_channels - up.out_channels]
        fuse_up, fuse_skip = fuse.weight.detach().flatten(1).split(split, 1)
        weights = {
            "up": torch.einsum("om,imab->aboi", fuse_up, up.weight.detach()),
            "skip": fuse_skip,
            "bias": fuse_up @ required(up.bias, "up.bias").detach(),
        }
        values = [initializer(graph, f"{fuse_name}.{key}", weight.numpy()) for key, weight in weights.items()]
        inputs = [skip, nodes[f"{up_name}/ConvTranspose_0"].inputs[0], *values]
        _replace(graph, fuse_name, "Join", inputs, last.outputs[0])
        return True


class FusePixelMLP(FusePass):
    """Match the layers of the per-pixel base, and their sum with the network's cube; make PixelMLP."""

    def fuse(self, graph: ir.Graph, nodes: Nodes, name: str, part: nn.Module) -> bool:
        """Fuse a base."""
        if not isinstance(part, PixelMLP):
            return False
        hidden = part.state_dict()["0.weight"].shape[0]
        if f"{name}.0/Conv_0" not in nodes or hidden % limit("matmul_outputs") or hidden > limit("operator_hidden"):
            return False
        layers = [nodes[f"{name}.{index}/Conv_0"] for index in range(0, len(part), 2)]
        cube, result = _added_to(name, layers[-1].outputs[0])
        rgb = layers[0].inputs[0]
        _replace(graph, name, "PixelMLP", [cube, rgb, *(layer.inputs[1] for layer in layers)], result)
        return True


def _inputs_of(inside: Iterable[ir.Node]) -> Iterator[ir.Value]:
    """Yield the values that the nodes read from others, but for weights."""
    inside = set(inside)
    read = {value for node in inside for value in node.inputs if value and not value.is_initializer()}
    return (value for value in read if value.producer() not in inside)


def _results_of(inside: Iterable[ir.Node]) -> Iterator[ir.Value]:
    """Yield the values that other nodes, or the graph's outputs, take from these nodes."""
    inside = set(inside)
    results = [value for node in inside for value in node.outputs]
    yield from (value for value in results if any(use.node not in inside for use in value.uses()))
    yield from (value for value in results if value.is_graph_output())


def _channels_supported(channels: int) -> bool:
    """Return whether the operators compute so many channels; a module of another size keeps its nodes."""
    return channels % limit("matmul_outputs") == 0 and channels <= limit("operator_channels")


def _user(value: ir.Value, operator: str) -> ir.Node:
    """Return the only node that uses a value; ValueError if its operator is another, or there are more."""
    uses = [*value.uses()]
    if len(uses) != 1 or uses[0].node.op_type != operator:
        raise ValueError(f"{value} is used by {[use.node for use in uses]}, expected a node {operator}")
    return uses[0].node


def _added_to(name: str, value: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the other summand of the Add that alone uses a part's value, and the sum."""
    uses = [*value.uses()]
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        raise ValueError(f"the result of {name} is not used by a single Add")
    node = uses[0].node
    return required(node.inputs[1 - uses[0].idx], f"the other summand of {name}"), node.outputs[0]


def _replace(
    graph: ir.Graph, name: str, operator: str, inputs: Sequence[ir.Value | None], result: ir.Value, **attributes: Any
) -> None:
    """Let an operator compute the result in the place of the nodes that did."""
    node = ir.node(operator, inputs, attributes, domain=NATIVE_DOMAIN, name=f"{name}/{operator}_0")
    replace(graph, result, node)
