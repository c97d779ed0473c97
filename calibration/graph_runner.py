"""Run an ONNX graph node by node, so that each of its tensors can be measured, bounded, rounded or quantised."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, install_command
from ccnet.runtime.backends.onnxruntime import refuse_external

Array = npt.NDArray[Any]

NodeInputs = Sequence[Array | None]
"""Inputs of a node; None for an optional input that is left out."""

NodeFunction = Callable[[Any, NodeInputs], list[Array]]
"""Computes a node: (node, inputs) → outputs."""


class GraphRunner:
    """Runs the nodes of a graph one at a time, each in a session of its own.

    A tensor is dropped after its last use. Nothing is optimised, so that every tensor of the file is computed. Equal
    nodes share a session: the 4600 nodes of CCNet's decode need 67 sessions, and a run at 64 px takes twice the time
    that one session for the whole graph takes.

    Attributes:
        proto: The graph as protobuf, with inferred shapes.
        nodes: Its nodes in the order in which they run.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        weights: Its initializers by name.
    """

    def __init__(self, model: bytes) -> None:
        """Load a serialised ONNX model; CCNetError if it is damaged or keeps weights in other files."""
        self.proto = load_model(model)
        self.nodes: list[Any] = list(self.proto.graph.node)
        self.inputs = [value.name for value in self.proto.graph.input]
        self.outputs = [value.name for value in self.proto.graph.output]
        self.weights: dict[str, Array] = {weight.name: _array(weight) for weight in self.proto.graph.initializer}
        self._last_use = {name: i for i, node in enumerate(self.nodes) for name in node.input}
        self._sessions: dict[tuple[Any, ...], Any] = {}

    def run(
        self, feeds: Mapping[str, Array], compute: NodeFunction | None = None
    ) -> Iterator[tuple[Any, list[Array | None], list[Array]]]:
        """Run the nodes in order; a CCNetError names a node that cannot be run.

        Args:
            feeds: The graph's inputs by name.
            compute: Computes each node instead of ONNX Runtime.

        Yields:
            Each node with its inputs and its outputs.
        """
        compute, alive = compute or self.compute, dict(feeds)
        kept = {*self.outputs, *feeds}
        for index, node in enumerate(self.nodes):
            inputs = [self._value(node, name, alive) for name in node.input]
            outputs = compute(node, inputs)
            alive.update(zip(filter(None, node.output), outputs, strict=True))
            yield node, inputs, outputs
            for name in {*node.input, *node.output} - kept:
                if self._last_use.get(name, -1) <= index:
                    alive.pop(name, None)

    def evaluate(self, feeds: Mapping[str, Array], compute: NodeFunction | None = None) -> dict[str, Array]:
        """Return the graph's outputs by name; the arguments are those of ``run``."""
        found = dict.fromkeys(self.outputs)
        for node, _, outputs in self.run(feeds, compute):
            found.update(
                (name, array) for name, array in zip(filter(None, node.output), outputs, strict=True) if name in found
            )
        return {name: array for name, array in found.items() if array is not None}

    def compute(self, node: Any, inputs: NodeInputs) -> list[Array]:
        """Return a node's outputs as ONNX Runtime computes them; CCNetError if it cannot run the node."""
        attributes = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
        types = tuple(None if array is None else array.dtype.name for array in inputs)
        present = tuple(map(bool, node.output))
        key = (node.domain, node.op_type, attributes, types, present)
        try:
            if key not in self._sessions:
                self._sessions[key] = _session(self._single_node_model(node, types, present))
            feeds = {f"in{i}": np.asarray(array) for i, array in enumerate(inputs) if array is not None}
            outputs: list[Array] = self._sessions[key].run(None, feeds)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise CCNetError(
                f"node {node.name!r} ({node.op_type}) cannot be run ({_one_line(error)}): export again"
            ) from error
        return outputs

    def _value(self, node: Any, name: str, alive: Mapping[str, Array]) -> Array | None:
        if not name:
            return None
        if name in alive:
            return alive[name]
        if name not in self.weights:
            raise CCNetError(f"node {node.name!r} uses {name!r}, which no earlier node computes: export again")
        return self.weights[name]

    def _single_node_model(self, node: Any, types: tuple[str | None, ...], present: tuple[bool, ...]) -> bytes:
        """Return a model of one node, with inputs in0, in1 and so on, and outputs out0, out1 and so on."""
        onnx = require_module("onnx")
        helper, names = onnx.helper, [f"in{i}" if kind else "" for i, kind in enumerate(types)]
        output_names = [f"out{i}" if is_present else "" for i, is_present in enumerate(present)]
        single = onnx.NodeProto(
            op_type=node.op_type, domain=node.domain, input=names, output=output_names, attribute=node.attribute
        )
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
            for name, kind in zip(names, types, strict=True)
            if kind
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in output_names if name]
        model = helper.make_model(
            helper.make_graph([single], "node", inputs, outputs),
            opset_imports=self.proto.opset_import,
            ir_version=self.proto.ir_version,
        )
        return bytes(model.SerializeToString())


def load_model(model: bytes) -> Any:
    """Parse a serialised ONNX model and infer its shapes; CCNetError if it is damaged or has weights in other files."""
    onnx = require_module("onnx")
    refuse_external("the graph", model)
    try:
        return onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    except Exception as error:  # protobuf's errors have no common base with ONNX's
        raise CCNetError(f"not a whole ONNX model ({_one_line(error)}): export it again") from error


def require_module(name: str, extra: str = "export") -> Any:
    """Import a library that only calibration needs; CCNetError names the extra that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CCNetError(f"{name} is not installed, calibration needs it: {install_command(extra)}") from error


def node_attribute(node: Any, name: str, default: Any) -> Any:
    """Return the value of a node's attribute, or the default if the node does not have it."""
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return default if found is None else require_module("onnx").helper.get_attribute_value(found)


def normalised_axes(node: Any, x: Array) -> tuple[int, ...]:
    """Return the axes of ``x`` over which a LayerNormalization takes its mean and deviation."""
    return tuple(range(node_attribute(node, "axis", -1) % x.ndim, x.ndim))


def module_name(node: Any) -> str:
    """Return the name of the network's module that a node belongs to; nodes are called ``module/Operator_count``."""
    return str(node.name).partition("/")[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _array(weight: Any) -> Array:
    try:
        array: Array = require_module("onnx").numpy_helper.to_array(weight)
    except Exception as error:  # damaged types and sizes raise nearly anything
        raise CCNetError(f"weight {weight.name!r} is damaged ({_one_line(error)}): export it again") from error
    return array


def _session(model: bytes) -> Any:
    ort = require_module("onnxruntime", "cpu")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = options.enable_mem_reuse = False
    options.intra_op_num_threads = 1  # of so many sessions, idle threads would spin beside the one that works
    options.log_severity_level = 4  # fatal: every error is raised, and would be logged as well
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
