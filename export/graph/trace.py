"""PyTorch → ONNX: the whole network, or a module of it, traced as one graph of any image size."""

from __future__ import annotations

import ast
import copy
import gc
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from ccnet.contract import CONTEXT, CUBE, RGB
from ccnet.model import CCNet

from . import nescm_unrolled
from .dynamic_shapes import FreeImageSize, TracedSize
from .nodes import output, required
from .repeat import RepeatUnit

Translation = Callable[..., Any]
"""``ccnet::nescm`` in ONNX: its arguments as onnxscript's symbolic values → the value that it computes."""

OPSET = 18
"""The oldest that has all operators of the network, so that every TensorRT from 10.3 parses it."""

_IR_VERSION = 8  # opset 18's own


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection: it walks the graphs, which are cycles, for a quarter of an export's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@gc_paused()
def trace(model: CCNet, nescm: Translation = nescm_unrolled.nescm) -> ir.Model:
    """Trace the network as one graph, rgb → cube, context.

    All units are the same graph but for their weights, and tracing is half of an export's time: only the first is
    traced, and repeated.

    Args:
        model: The network.
        nescm: Translation of NeSCM's operator.

    Returns:
        The graph.
    """
    first = copy.copy(model)
    first._modules = {**model._modules, "units": model.units[:1]}
    rgb, multiple = torch.empty(1, 3, 1, 1), model.config.size_multiple
    traced = to_onnx(_WithContext(first).eval(), {RGB: rgb}, [CUBE, CONTEXT], multiple, nescm, fold=False)
    RepeatUnit(model.units)(traced)
    output(traced.graph, CONTEXT).shape = ir.Shape([1, model.context_size])
    _fold(traced)
    return traced


class _WithContext(nn.Module):
    """The network with both outputs, cube and context, as a module for the exporter."""

    def __init__(self, model: CCNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.run(rgb, None)


def to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: list[str],
    multiple: int,
    nescm: Translation = nescm_unrolled.nescm,
    *,
    fold: bool = True,
) -> ir.Model:
    """Trace a module as one graph.

    Args:
        module: What to trace.
        inputs: Name → example. All but a context are images (1, C, H, W) of one free size; the first is an image.
        outputs: Names of the outputs.
        multiple: Height and width are free in multiples of so many px.
        nescm: Translation of NeSCM's operator.
        fold: Compute at once what depends on weights alone.

    Returns:
        The graph, with nodes and tensors named after the modules that they come from.
    """
    weights = (*module.parameters(), *module.buffers(), *inputs.values())
    size = TracedSize.unlike(multiple, (size for tensor in weights for size in tensor.shape))
    images = {
        name: example.new_empty(*example.shape[:2], *size.pixels) for name, example in inputs.items() if name != CONTEXT
    }
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple({**inputs, **images}.values()),
            input_names=[*inputs],
            output_names=outputs,
            custom_translation_table={
                torch.ops.ccnet.nescm.default: nescm,
                torch.ops.aten.gelu.default: nescm_unrolled.gelu,
            },
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=False,  # its pattern rewriter takes minutes on an unrolled graph; folding is all that is needed
        )
    model = required(program, "the traced program").model
    _name_after_modules(model)
    FreeImageSize(size)(model)
    passes.ShapeInferencePass()(model)  # torch infers no shapes inside of translations
    if fold:
        _fold(model)
    model.ir_version = _IR_VERSION
    return model


def _fold(model: ir.Model) -> None:
    """Fold constants, so that each derived weight is one initializer, which can be quantised and refitted whole."""
    onnxscript.optimizer.fold_constants(model, onnx_shape_inference=False, input_size_limit=1 << 18)
    Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.TopologicalSortPass(),
    )(model)


def _name_after_modules(model: ir.Model) -> None:
    """Name nodes and tensors after the module that they come from: ``units.0.enc1.inter.nescm/Sigmoid_3``."""
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
    """Silence the exporter's warnings about libraries that are not installed and not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
