"""CCNet → ONNX graphs: ``full`` traced once, ``encode`` and ``decode`` cut out of it.

encode: rgb → context; decode: rgb, context → cube; full: rgb → cube. Batch 1, height and width free in multiples of
the config's size multiple, float32 in and out; rgb is (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

import ast
import copy
import gc
import hashlib
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from ccnet.contract import CONTEXT, CUBE, RGB
from ccnet.model import CCNet

from . import nescm_unrolled as translate
from .dynamic_shapes import Sizes, free

Translation = Callable[..., Any]
"""``ccnet::nescm`` in ONNX: its arguments as onnxscript's symbolic values → the value that it makes of them."""

OPSET = 18
"""The oldest with what the network needs, so that every TensorRT from 10.3 parses it."""

_IR_VERSION = 8  # opset 18's own


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection: graphs are cycles that are all needed, and walking them again and again is a quarter of an
    export's time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@uncollected()
def trace(model: CCNet, nescm: Translation = translate.nescm) -> ir.Model:
    """The network as one graph, rgb → cube, context; NeSCM by the translation of its operator.

    All units are the same graph but for their weights, and tracing is half of an export's time: one is traced.
    """
    first = copy.copy(model)
    first._modules = {**model._modules, "units": model.units[:1]}
    rgb, multiple = torch.empty(1, 3, 1, 1), model.config.size_multiple
    traced = to_onnx(_Run(first).eval(), {RGB: rgb}, [CUBE, CONTEXT], multiple, nescm, fold=False)
    _repeat_unit(traced.graph, model.units)
    _output(traced.graph, CONTEXT).shape = ir.Shape([1, model.context_size])
    _fold(traced)
    return traced


def _repeat_unit(graph: ir.Graph, units: nn.ModuleList) -> None:
    """Chain further units behind the one in the graph: its nodes again, with their own weights."""
    concat = _output(graph, CONTEXT).producer()
    assert concat is not None  # noqa: S101 - for the type checker
    flat = [made_by(value, "Reshape") for value in concat.inputs]
    nodes = [node for node in graph if str(node.name).startswith("units.0") or node in flat]
    inside = set(nodes)
    start = next(node for node in graph if node.name == "conv_in/Conv_0").outputs[0]
    (end,) = (value for node in inside - set(flat) for value in node.outputs if _leaves(value, inside))
    outside = [(use.node, use.idx) for use in end.uses() if use.node not in inside]
    last, context, before = end, list(concat.inputs), concat
    for number, unit in enumerate(units[1:], start=1):
        made = {start: last} | _weights_of(graph, nodes, unit, number)
        for node in nodes:
            clone = ir.Node(
                node.domain,
                node.op_type,
                [made.get(value, value) if value else None for value in node.inputs],
                node.attributes.values(),
                num_outputs=len(node.outputs),
                name=_renumbered(str(node.name), number),
            )
            for old, new in zip(node.outputs, clone.outputs, strict=True):
                new.name, new.type, new.shape = _renumbered(str(old.name), number), old.type, old.shape
                made[old] = new
            graph.insert_before(before, clone)
        context += [made[one.outputs[0]] for one in flat]
        last = made[end]
    for node, index in outside:
        node.replace_input_with(index, last)
    joined = ir.Node("", "Concat", context, concat.attributes.values(), name=concat.name)
    joined.outputs[0].name, joined.outputs[0].type = concat.outputs[0].name, concat.outputs[0].type
    graph.insert_before(concat, joined)
    ir.convenience.replace_all_uses_with(concat.outputs[0], joined.outputs[0], replace_graph_outputs=True)
    graph.remove(concat, safe=True)


def _leaves(value: ir.Value, inside: set[ir.Node]) -> bool:
    return any(use.node not in inside for use in value.uses())


def _weights_of(graph: ir.Graph, nodes: list[ir.Node], unit: nn.Module, number: int) -> dict[ir.Value, ir.Value]:
    """The first unit's weights in the graph → this one's, which it adds."""
    state = dict(unit.named_parameters()) | dict(unit.named_buffers())  # also those that no checkpoint keeps
    found = (value for node in nodes for value in node.inputs if value and value.is_initializer())
    made = {}
    for value in dict.fromkeys(found):  # in the graph's order, so that an export is the same each time
        place, ours, name = str(value.name).partition("units.0.")
        if ours:
            made[value] = constant(graph, f"{place}units.{number}.{name}", state[name].detach().numpy())
    return made


def _renumbered(name: str, number: int) -> str:
    return name.replace("units.0", f"units.{number}", 1) if name.startswith("units.0") else f"{name}_{number}"


def to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: list[str],
    multiple: int,
    nescm: Translation = translate.nescm,
    *,
    fold: bool = True,
) -> ir.Model:
    """A module as one graph. inputs: name → example; all but a context are images (1, C, H, W) of one free size, in
    multiples of ``multiple``, the first among them. fold: what is made of weights alone."""
    weights = (*module.parameters(), *module.buffers(), *inputs.values())
    sizes = Sizes.unlike(multiple, (size for tensor in weights for size in tensor.shape))
    images = {name: one.new_empty(*one.shape[:2], *sizes.pixels) for name, one in inputs.items() if name != CONTEXT}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple({**inputs, **images}.values()),
            input_names=[*inputs],
            output_names=outputs,
            custom_translation_table={
                torch.ops.ccnet.nescm.default: nescm,
                torch.ops.aten.gelu.default: translate.gelu,
            },
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=False,  # its pattern rewriter takes minutes on an unrolled graph; folding is what it needs
        )
    assert program is not None  # noqa: S101 - for the type checker: no file was asked for
    _name_after_modules(program.model)
    free(program.model.graph, sizes)
    passes.ShapeInferencePass()(program.model)  # torch knows none inside of translations
    if fold:
        _fold(program.model)
    program.model.ir_version = _IR_VERSION
    return program.model


def _fold(model: ir.Model) -> None:
    """A weight that is made of others is one as well: what quantises or refits it must find it whole."""
    onnxscript.optimizer.fold_constants(model, onnx_shape_inference=False, input_size_limit=1 << 18)
    _tidy(model)


class _Run(nn.Module):
    """The pass that gives both outputs, as a module for the exporter."""

    def __init__(self, model: CCNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.run(rgb, None)


def full(traced: ir.Model) -> ir.Model:
    """rgb → cube."""
    return _keep(traced, CUBE)


def encode(traced: ir.Model) -> ir.Model:
    """rgb → context: all of the network but what follows its last attention."""
    return _keep(traced, CONTEXT)


def decode(traced: ir.Model, shapes: list[tuple[int, int, int]]) -> ir.Model:
    """rgb, context → cube: the traced network with each attention taken from the context instead of computed.

    shapes: of the attention matrices in the context's order (``CCNet.context_shapes``).
    """
    model = traced.clone()
    graph = model.graph
    concat = _output(graph, CONTEXT).producer()
    computed = [made_by(flat, "Reshape").inputs[0] for flat in concat.inputs] if concat else []
    if len(computed) != len(shapes):
        raise ValueError(f"the context is made of {len(computed)} matrices, expected {len(shapes)}")
    sizes = [int(np.prod(shape)) for shape in shapes]
    context = ir.val("given", ir.DataType.FLOAT, [1, sum(sizes)])
    parts = [context, _ints(graph, "context_sizes", sizes)]
    flat = [ir.val(f"context/Split:{index}", ir.DataType.FLOAT, [1, size]) for index, size in enumerate(sizes)]
    split = ir.node("Split", parts, {"axis": 1}, outputs=flat, name="context/Split")
    graph.insert_before(graph[0], split)
    for index, (matrix, shape, part) in enumerate(zip(computed, shapes, flat, strict=True)):
        assert matrix is not None  # noqa: S101 - for the type checker
        given = ir.val(f"context/Reshape_{index}", ir.DataType.FLOAT, [1, *shape])
        target = _ints(graph, f"context_shape_{index}", [1, *shape])
        graph.insert_after(split, ir.node("Reshape", [part, target], outputs=[given], name=given.name))
        ir.convenience.replace_all_uses_with(matrix, given)
    _drop_output(graph, CONTEXT)
    context.name = CONTEXT
    graph.inputs.append(context)
    prune(model)
    return model


def with_uint8_frames(model: ir.Model) -> ir.Model:
    """The same graph on uint8 frames (1, H, W, 3). TensorRT refuses to transpose UINT8, so the Cast comes first."""
    model = model.clone()
    graph = model.graph
    rgb = next(value for value in graph.inputs if value.name == RGB)
    assert rgb.shape is not None  # noqa: S101 - for the type checker
    frame = ir.val(RGB, ir.DataType.UINT8, ir.Shape([1, rgb.shape[2], rgb.shape[3], 3]))
    cast = ir.node("Cast", [frame], {"to": ir.DataType.FLOAT}, name="rgb/Cast")
    planes = ir.node("Transpose", cast.outputs, {"perm": [0, 3, 1, 2]}, name="rgb/Transpose")
    scale = constant(graph, "rgb_scale", np.float32(255))
    scaled = ir.node("Div", [planes.outputs[0], scale], name="rgb/Div")
    scaled.outputs[0].type, scaled.outputs[0].shape = rgb.type, rgb.shape
    for node in (cast, planes):
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    ir.convenience.replace_all_uses_with(rgb, scaled.outputs[0])
    graph.insert_before(graph[0], [cast, planes, scaled])
    graph.inputs[graph.inputs.index(rgb)] = frame
    return model


def stamp(model: ir.Model, metadata: Mapping[str, str]) -> bytes:
    """The checked ONNX file, with metadata."""
    model.metadata_props.update(metadata)
    model.producer_name, model.producer_version = "ccnet", None
    data = bytes(ir.to_proto(model).SerializeToString())
    onnx.checker.check_model(data, full_check=True)
    return data


def structure(data: bytes) -> str:
    """Hash of an ONNX file but for its weights' values and metadata: all that an engine without weights depends on."""
    model = onnx.load_model_from_string(data)
    del model.metadata_props[:]
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            tensor.ClearField("raw_data")
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _keep(traced: ir.Model, output: str) -> ir.Model:
    model = traced.clone()
    for value in list(model.graph.outputs):
        if value.name != output:
            _drop_output(model.graph, str(value.name))
    prune(model)
    return model


def _drop_output(graph: ir.Graph, name: str) -> None:
    graph.outputs.remove(_output(graph, name))


def _output(graph: ir.Graph, name: str) -> ir.Value:
    return next(value for value in graph.outputs if value.name == name)


def made_by(value: ir.Value | None, operator: str) -> ir.Node:
    """The node that makes a value; ValueError if that is another operator's, or none."""
    node = value.producer() if value else None
    if node is None or node.op_type != operator:
        raise ValueError(f"{value} is made by {node}, expected a node {operator}")
    return node


def constant(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    """An initializer that the graph is given."""
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _ints(graph: ir.Graph, name: str, values: list[int]) -> ir.Value:
    return constant(graph, name, np.array(values, np.int64))


def _tidy(model: ir.Model) -> None:
    """No constant twice, nothing computed twice or for nothing."""
    Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.TopologicalSortPass(),
    )(model)


def prune(model: ir.Model) -> None:
    """Leave out what nothing needs any more."""
    passes.RemoveUnusedNodesPass()(model)


def _name_after_modules(model: ir.Model) -> None:
    """Nodes and tensors are called after the module that they come from: ``units.0.enc1.inter.nescm/Sigmoid_3``."""
    counts: Counter[str] = Counter()
    fixed = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['', '']"))
        module = scopes[-2].removeprefix("model").removeprefix(".") if len(scopes) > 1 else ""
        stem = f"{'ccnet' if module[:1] in '_' else module}/{node.op_type}"
        node.name = f"{stem}_{counts[stem]}"
        counts[stem] += 1
        for index, value in enumerate(node.outputs):
            if value.name not in fixed:
                value.name = node.name if len(node.outputs) == 1 else f"{node.name}:{index}"
    passes.ClearMetadataAndDocStringPass()(model)
    for value in model.graph.initializers.values():
        value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about libraries that are not installed and not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
