"""The graphs that an export writes, cut out of the traced one.

encode: rgb → context; decode: rgb, context → cube; full: rgb → cube. Batch 1, height and width free in multiples of
the config's size multiple, float32 in and out; rgb is (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from ccnet.contract import CONTEXT, CUBE, RGB

from .nodes import applied, initializer, integers, output, producer, prune, required

Shape3 = tuple[int, int, int]


def full(traced: ir.Model) -> ir.Model:
    """Cut the graph rgb → cube out of the traced one."""
    return applied(traced, KeepOutput(CUBE))


def encode(traced: ir.Model) -> ir.Model:
    """Cut the graph rgb → context out of the traced one: all of the network up to its last attention."""
    return applied(traced, KeepOutput(CONTEXT))


def decode(traced: ir.Model, shapes: Sequence[Shape3]) -> ir.Model:
    """Cut the graph rgb, context → cube out of the traced one.

    Args:
        traced: The graph rgb → cube, context.
        shapes: Shapes of the attention matrices in the context's order (``CCNet.context_shapes``).

    Returns:
        The graph that takes each attention from the context instead of computing it.
    """
    return applied(traced, ContextAsInput(shapes))


def with_uint8_frames(model: ir.Model) -> ir.Model:
    """Return the same graph on uint8 frames (1, H, W, 3)."""
    return applied(model, PackedFrames())


class KeepOutput(InPlacePass):
    """Remove all outputs but one, and the nodes that only the others need."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def call(self, model: ir.Model) -> PassResult:
        """Remove them from the model."""
        for value in list(model.graph.outputs):
            if value.name != self.name:
                model.graph.outputs.remove(value)
        prune(model)
        return PassResult(model, modified=True)


class ContextAsInput(InPlacePass):
    """Match the Concat of all attention matrices, the context; make it an input that is split into the matrices.

    The nodes that computed the matrices are removed with the output.
    """

    def __init__(self, shapes: Sequence[Shape3]) -> None:
        super().__init__()
        self.shapes = shapes

    def call(self, model: ir.Model) -> PassResult:
        """Add the input to the model; ValueError where the context has another number of matrices."""
        graph = model.graph
        computed_context = output(graph, CONTEXT)
        concat = computed_context.producer()
        computed = [producer(flat, "Reshape").inputs[0] for flat in concat.inputs] if concat else []
        if len(computed) != len(self.shapes):
            raise ValueError(f"the context has {len(computed)} matrices, expected {len(self.shapes)}")
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        context = ir.val("context_input", ir.DataType.FLOAT, [1, sum(sizes)])
        parts = [context, integers(graph, "context_sizes", sizes)]
        flat = [ir.val(f"context/Split:{index}", ir.DataType.FLOAT, [1, size]) for index, size in enumerate(sizes)]
        split = ir.node("Split", parts, {"axis": 1}, outputs=flat, name="context/Split")
        graph.insert_before(graph[0], split)
        for index, (matrix, shape, part) in enumerate(zip(computed, self.shapes, flat, strict=True)):
            reshaped = ir.val(f"context/Reshape_{index}", ir.DataType.FLOAT, [1, *shape])
            target = integers(graph, f"context_shape_{index}", [1, *shape])
            graph.insert_after(split, ir.node("Reshape", [part, target], outputs=[reshaped], name=reshaped.name))
            ir.convenience.replace_all_uses_with(required(matrix, f"attention matrix {index}"), reshaped)
        graph.outputs.remove(computed_context)
        prune(model)
        context.name = CONTEXT  # free only now that the output of that name is gone
        graph.inputs.append(context)
        return PassResult(model, modified=True)


class PackedFrames(InPlacePass):
    """Match the input rgb (1, 3, H, W), float32 in [0, 1]; make it (1, H, W, 3), uint8.

    TensorRT refuses to transpose UINT8, so the Cast comes before the Transpose.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Replace the model's input."""
        graph = model.graph
        rgb = next(value for value in graph.inputs if value.name == RGB)
        shape = required(rgb.shape, "the shape of rgb")
        frame = ir.val(RGB, ir.DataType.UINT8, ir.Shape([1, shape[2], shape[3], 3]))
        cast = ir.node("Cast", [frame], {"to": ir.DataType.FLOAT}, name="rgb/Cast")
        planes = ir.node("Transpose", cast.outputs, {"perm": [0, 3, 1, 2]}, name="rgb/Transpose")
        scale = initializer(graph, "rgb_scale", np.float32(255))
        scaled = ir.node("Div", [planes.outputs[0], scale], name="rgb/Div")
        scaled.outputs[0].type, scaled.outputs[0].shape = rgb.type, shape
        for node in (cast, planes):
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(rgb, scaled.outputs[0])
        graph.insert_before(graph[0], [cast, planes, scaled])
        graph.inputs[graph.inputs.index(rgb)] = frame
        return PassResult(model, modified=True)
