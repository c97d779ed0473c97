"""Passes that lower the memory of each pixel of a tile, for ONNX Runtime on a CPU. No number of the result changes."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from ccnet.model.config import CCNetConfig

from .nodes import replace

_EMBEDDING, _SKIP = "conv_in/Conv_0", "ccnet/Add_0"

_ONNX_RUNTIME_DOMAIN = "com.microsoft"

_PAPER, _DEFAULT = CCNetConfig(), CCNetConfig(base="mlp", base_width=48, normalise=True)

_BYTES_PER_PIXEL = {_PAPER: {"decode": 600, "full": 720}, _DEFAULT: {"decode": 600, "full": 620}}
"""Network → kind → memory of each pixel while a graph with fused operators runs, with input and output, bytes, at most.

Measured as the peak of a process at 256² to 2256×1008 px: decode 572 to 583 with the paper's network, full 672 to 694;
573 to 587 and 573 to 606 with the default weights' network. Alive at once in the paper's decode are four feature maps
of 32 channels and NeSCM's pooled features, 544.
"""


def bytes_per_pixel(kind: str, config: CCNetConfig) -> int | None:
    """Return the memory of each pixel while a graph with fused operators runs; None where it is not known."""
    return _BYTES_PER_PIXEL.get(dataclasses.replace(config, units=_PAPER.units), {}).get(kind)


class RecomputeEmbedding(InPlacePass):
    """Match the sum of the skip around all units; compute the frame's embedding again, in the node of the sum.

    The embedding, 128 bytes a pixel, would be kept while all units run; its arithmetic is less than a thousandth of the
    network's. ONNX Runtime's ``FusedConv`` adds its fourth input to a convolution. A node ``Conv`` would not do: it
    depends on nothing but the frame, and ONNX Runtime would run it first.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Replace the sum; a graph without the skip stays as it is."""
        nodes = {str(node.name): node for node in model.graph}
        skip, embedding = nodes.get(_SKIP), nodes.get(_EMBEDDING)
        if skip is None or embedding is None or embedding.outputs[0] not in skip.inputs:
            return PassResult(model, modified=False)
        rgb, weight, bias = (*embedding.inputs, None)[:3]
        (features,) = (value for value in skip.inputs if value is not embedding.outputs[0])
        attributes = [value for value in embedding.attributes.values() if value.name != "auto_pad"]
        inputs = [rgb, weight, bias, features]
        node = ir.Node(_ONNX_RUNTIME_DOMAIN, "FusedConv", inputs, attributes, name="ccnet/FusedConv_0")
        replace(model.graph, skip.outputs[0], node)
        model.graph.remove(skip, safe=True)
        model.graph.opset_imports[_ONNX_RUNTIME_DOMAIN] = 1
        return PassResult(model, modified=True)


class RunGrSCMFirst(InPlacePass):
    """Match each PAF whose features a GrSCM computes; let that GrSCM run before the NeSCM beside it.

    ONNX Runtime's arena gives NeSCM's pooled features, a quarter of GrSCM's, a part of a free block of that size if
    there is one, so that the next tensor takes a new block. GrSCM before it takes the free block. Of nodes that do not
    depend on each other, ONNX Runtime runs the last in the file first.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Move the nodes to the place before their PAF."""
        pairs = [
            (producer, node)
            for node in model.graph
            if node.op_type == "PAF" and (attended := node.inputs[1]) and (producer := attended.producer())
        ]
        for producer, paf in pairs:
            model.graph.remove(producer)
            model.graph.insert_before(paf, producer)
        return PassResult(model, modified=bool(pairs))
