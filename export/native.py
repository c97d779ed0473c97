"""NeSCM as one node, ``ccnet::NeSCM``, for ONNX Runtime on a CPU where the package's kernels are compiled."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from ccnet.contract import NATIVE_DOMAIN
from ccnet.model import CCNet
from ccnet.modules import NeSCM

from .graph import tidy


def with_operator(unrolled: ir.Model, model: CCNet) -> ir.Model:
    """The same graph with what NeSCM was unrolled to replaced by the operator of ``ccnet/ort.c``.

    ValueError where a module's nodes do not lie between one tensor and one other.
    """
    made = unrolled.clone()
    for name, part in model.named_modules():
        nodes = [node for node in made.graph if str(node.name).startswith(f"{name}/")]
        if isinstance(part, NeSCM) and nodes:
            _replace(made.graph, name, nodes, part)
    made.graph.opset_imports[NATIVE_DOMAIN] = 1
    tidy(made)
    return made


def _replace(graph: ir.Graph, name: str, nodes: list[ir.Node], part: NeSCM) -> None:
    inside = set(nodes)
    computed = {value for node in nodes for value in node.inputs if value and not value.is_initializer()}
    given = [value for value in computed if value.producer() not in inside]
    results = [value for node in nodes for value in node.outputs if any(use.node not in inside for use in value.uses())]
    if len(given) != 1 or len(results) != 1:
        raise ValueError(f"{name} reads {len(given)} tensors and gives {len(results)}, expected one each")
    weights = []
    for key, array in zip(("forget", "forget_bias", "output", "output_bias"), _weights(part), strict=True):
        weight = ir.val(f"{name}.{key}", const_value=ir.tensor(array, name=f"{name}.{key}"))
        graph.register_initializer(weight)
        weights.append(weight)
    groups = {"groups": part.groups}
    node = ir.node("NeSCM", [given[0], *weights], groups, domain=NATIVE_DOMAIN, name=f"{name}/NeSCM_0")
    node.outputs[0].type, node.outputs[0].shape = results[0].type, results[0].shape
    node.outputs[0].name = node.name
    graph.insert_before(nodes[0], node)
    ir.convenience.replace_all_uses_with(results[0], node.outputs[0])


def _weights(part: NeSCM) -> list[np.ndarray]:
    with torch.inference_mode():
        return [weight.numpy() for weight in part.weights()]
