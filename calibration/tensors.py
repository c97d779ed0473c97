"""Every tensor of an ONNX graph, node by node: what calibration measures, bounds, rounds and quantises."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.backends.onnxruntime import refuse_external

Array = npt.NDArray[Any]
Inputs = Sequence[Array | None]
"""Of a node; None for one left out."""

Apply = Callable[[Any, Inputs], list[Array]]
"""What computes a node: node, inputs → outputs."""


class Tensors:
    """A graph whose nodes run one at a time, each in a session of its own; a tensor is dropped after its last use.

    Nothing is optimised, so that every tensor of the file exists as it stands there. Nodes that are alike share a
    session: the 4600 of CCNet's decode need 67, and a run of it at 64 px takes twice the time of one in one session.
    """

    def __init__(self, model: bytes) -> None:
        """CCNetError if it is not an ONNX model, or keeps weights in other files."""
        self.proto = load(model)
        self.nodes: list[Any] = list(self.proto.graph.node)
        self.inputs = [value.name for value in self.proto.graph.input]
        self.outputs = [value.name for value in self.proto.graph.output]
        self.weights: dict[str, Array] = {weight.name: _array(weight) for weight in self.proto.graph.initializer}
        self._last_use = {name: i for i, node in enumerate(self.nodes) for name in node.input}
        self._sessions: dict[tuple[Any, ...], Any] = {}

    def run(
        self, feeds: Mapping[str, Array], apply: Apply | None = None
    ) -> Iterator[tuple[Any, list[Array | None], list[Array]]]:
        """Each node with its inputs and outputs, in order. apply: what computes them instead of ONNX Runtime.

        CCNetError names a node that cannot be run.
        """
        apply, alive = apply or self.apply, dict(feeds)
        kept = {*self.outputs, *feeds}
        for index, node in enumerate(self.nodes):
            inputs = [self._value(node, name, alive) for name in node.input]
            outputs = apply(node, inputs)
            alive.update(zip(filter(None, node.output), outputs, strict=True))
            yield node, inputs, outputs
            for name in {*node.input, *node.output} - kept:
                if self._last_use.get(name, -1) <= index:
                    alive.pop(name, None)

    def evaluate(self, feeds: Mapping[str, Array], apply: Apply | None = None) -> dict[str, Array]:
        """The graph's outputs by name."""
        found = dict.fromkeys(self.outputs)
        for node, _, outputs in self.run(feeds, apply):
            found.update(
                (name, array) for name, array in zip(filter(None, node.output), outputs, strict=True) if name in found
            )
        return {name: array for name, array in found.items() if array is not None}

    def apply(self, node: Any, inputs: Inputs) -> list[Array]:
        """A node's outputs by ONNX Runtime; CCNetError where it cannot run it."""
        attributes = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
        types = tuple(None if array is None else array.dtype.name for array in inputs)
        shown = tuple(map(bool, node.output))
        key = (node.domain, node.op_type, attributes, types, shown)
        try:
            if key not in self._sessions:
                self._sessions[key] = _session(self._alone(node, types, shown))
            feeds = {f"in{i}": np.asarray(array) for i, array in enumerate(inputs) if array is not None}
            outputs: list[Array] = self._sessions[key].run(None, feeds)
        except Exception as error:  # ONNX Runtime's errors have no common base
            why = " ".join(str(error).split())[:200]
            raise CCNetError(f"node {node.name!r} ({node.op_type}) cannot be run ({why}): export again") from error
        return outputs

    def _value(self, node: Any, name: str, alive: Mapping[str, Array]) -> Array | None:
        if not name:
            return None
        if name in alive:
            return alive[name]
        if name not in self.weights:
            raise CCNetError(f"node {node.name!r} uses {name!r}, which nothing before it makes: export again")
        return self.weights[name]

    def _alone(self, node: Any, types: tuple[str | None, ...], shown: tuple[bool, ...]) -> bytes:
        """A model of one node."""
        onnx = module("onnx")
        helper, names = onnx.helper, [f"in{i}" if kind else "" for i, kind in enumerate(types)]
        outputs = [f"out{i}" if one else "" for i, one in enumerate(shown)]
        alone = onnx.NodeProto(
            op_type=node.op_type, domain=node.domain, input=names, output=outputs, attribute=node.attribute
        )
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
            for name, kind in zip(names, types, strict=True)
            if kind
        ]
        made = [onnx.ValueInfoProto(name=name) for name in outputs if name]
        model = helper.make_model(
            helper.make_graph([alone], "node", given, made),
            opset_imports=self.proto.opset_import,
            ir_version=self.proto.ir_version,
        )
        return bytes(model.SerializeToString())


def load(model: bytes) -> Any:
    """The graph as protobuf; CCNetError if it is none, or keeps weights in other files."""
    onnx = module("onnx")
    refuse_external("the graph", model)
    try:
        return onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    except Exception as error:  # protobuf's errors have no common base with ONNX's
        why = " ".join(str(error).split())[:200]
        raise CCNetError(f"not a whole ONNX model ({why}): export it again") from error


def module(name: str) -> Any:
    """A library that only calibration needs; CCNetError says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CCNetError(f'{name} is not installed, calibration needs it: pip install "ccnet-hsi[export]"') from error


def attribute(node: Any, name: str, default: Any) -> Any:
    """A node's attribute, or ONNX's default for it."""
    found = next((one for one in node.attribute if one.name == name), None)
    return default if found is None else module("onnx").helper.get_attribute_value(found)


def normalised_axes(node: Any, x: Array) -> tuple[int, ...]:
    """The axes of ``x`` over which a LayerNormalization takes its mean and deviation."""
    return tuple(range(attribute(node, "axis", -1) % x.ndim, x.ndim))


def part(node: Any) -> str:
    """The module that a node belongs to; nodes are called ``module/Operator_count``."""
    return str(node.name).partition("/")[0]


def _array(weight: Any) -> Array:
    try:
        array: Array = module("onnx").numpy_helper.to_array(weight)
    except Exception as error:  # damaged types and sizes raise nearly anything
        why = " ".join(str(error).split())[:200]
        raise CCNetError(f"weight {weight.name!r} is damaged ({why}): export it again") from error
    return array


def _session(model: bytes) -> Any:
    ort = module("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = options.enable_mem_reuse = False
    options.intra_op_num_threads = 1  # of so many sessions, idle threads would spin beside the one that works
    options.log_severity_level = 4  # fatal: what goes wrong is raised, once
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
