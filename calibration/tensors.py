"""Every tensor of an ONNX graph, node by node, in little memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from ccnet.contract import CCNetError

Array = npt.NDArray[Any]

_NODES = 256
"""Nodes in a part: all of their outputs are in memory at once, about 200 MB for CCNet at 128 px."""


class Tensors:
    """A graph cut into parts of consecutive nodes; each node runs once, and a tensor is dropped after its last use.

    Nothing is optimised, so that every tensor of the file exists as it stands there.
    """

    def __init__(self, model: bytes) -> None:
        """CCNetError if it is not an ONNX model."""
        proto = _load(model)
        self.nodes: list[Any] = list(proto.graph.node)
        self.weights: dict[str, Array] = {
            weight.name: _module("onnx").numpy_helper.to_array(weight) for weight in proto.graph.initializer
        }
        parts = [self.nodes[start : start + _NODES] for start in range(0, len(self.nodes), _NODES)]
        self._parts = [(part, _session(self._cut(proto, part))) for part in parts]
        self._last_use = {name: i for i, part in enumerate(parts) for node in part for name in node.input}

    def run(self, feeds: Mapping[str, Array]) -> Iterator[tuple[Any, list[Array | None], list[Array]]]:
        """Each node with its inputs (None for one left out) and outputs."""
        alive = dict(feeds)
        for index, (part, session) in enumerate(self._parts):
            names = [output.name for output in session.get_outputs()]
            given = {node.name: alive[node.name] for node in session.get_inputs()}
            alive.update(zip(names, session.run(names, given), strict=True))
            for node in part:
                inputs = [self.weights.get(name, alive.get(name)) for name in node.input]
                yield node, inputs, [alive[name] for name in node.output if name]
            alive = {name: array for name, array in alive.items() if self._last_use.get(name, -1) > index}

    def _cut(self, proto: Any, part: list[Any]) -> bytes:
        """A model of these nodes: what they use comes in, all that they make goes out."""
        helper, graph = _module("onnx").helper, proto.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        made = [name for node in part for name in node.output if name]
        used = {name for node in part for name in node.input if name}
        fed = sorted(used - set(made) - self.weights.keys())
        given, taken = (
            [helper.make_tensor_value_info(name, types[name], None) for name in names] for names in (fed, made)
        )
        weights = [weight for weight in graph.initializer if weight.name in used]
        model = helper.make_model(
            helper.make_graph(part, "part", given, taken, weights),
            opset_imports=proto.opset_import,
            ir_version=proto.ir_version,
        )
        return bytes(model.SerializeToString())


def _load(model: bytes) -> Any:
    onnx = _module("onnx")
    try:
        return onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    except Exception as error:  # protobuf's errors have no common base with ONNX's
        why = " ".join(str(error).split())[:200]
        raise CCNetError(f"not a whole ONNX model ({why}): export it again") from error


def _session(model: bytes) -> Any:
    ort = _module("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Many sessions of one run each: what they keep for the next run only adds up
    options.enable_cpu_mem_arena = options.enable_mem_pattern = options.enable_mem_reuse = False
    options.intra_op_num_threads = 1  # of so many sessions, idle threads would spin beside the one that works
    options.log_severity_level = 4  # fatal: what goes wrong is raised, once
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CCNetError(f'{name} is not installed, calibration needs it: pip install "ccnet-hsi[export]"') from error
