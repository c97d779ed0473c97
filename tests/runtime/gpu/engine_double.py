"""TensorRT's modules over the driver double: an engine is an ONNX file, which ONNX Runtime computes in device memory.

A run happens when its stream reaches it, as everything in the double does. It fills its scratch memory, so that a
scratch block that holds something of another's is noticed, and frees nothing.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime

from ccnet.runtime.backends import trt_api as trt

from .driver_double import Driver

Shape = tuple[int, ...]

SCRATCH, FULL_SCRATCH = 8, 70
"""Scratch memory of ``decode`` and of ``full`` for each pixel, bytes."""

DTYPES = {"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8"}


@functools.cache
def session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options)


class EngineDouble:
    """``ICudaEngine`` of a graph. A graph with a cube has its sum as an output, as ``ccnet build`` adds it."""

    def __init__(
        self,
        driver: Driver,
        graph: bytes,
        sides: tuple[int, int],
        has_sum: bool = True,
        encode_scratch: int = SCRATCH,
    ) -> None:
        self.driver, self.session, self.sides = driver, session(graph), sides
        self.inputs = {node.name: (DTYPES[node.type], tuple(node.shape)) for node in self.session.get_inputs()}
        self.outputs = {node.name: tuple(node.shape) for node in self.session.get_outputs()}
        kinds = {"encode": encode_scratch, "decode": SCRATCH, "full": FULL_SCRATCH}
        self.kind = ("decode" if "context" in self.inputs else "full") if "cube" in self.outputs else "encode"
        self.scratch = kinds[self.kind]
        if "cube" in self.outputs and has_sum:
            self.outputs["cube_sum"] = ()
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.device_memory_size_v2 = self.scratch * sides[1] ** 2

    def create_execution_context(self, config: object) -> ContextDouble:
        return ContextDouble(self)

    def create_runtime_config(self) -> Any:
        return mock.MagicMock()

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name in self.inputs else "OUTPUT"

    def get_tensor_location(self, name: str) -> str:
        return "DEVICE"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.inputs[name][0] if name in self.inputs else "FLOAT")

    def get_tensor_shape(self, name: str) -> Shape:
        shape = self.inputs[name][1] if name in self.inputs else self.outputs[name]
        return tuple(size if isinstance(size, int) else -1 for size in shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        return [
            tuple(side if size == -1 else size for size in self.get_tensor_shape(name))
            for side in (*self.sides, self.sides[1])
        ]


class ContextDouble:
    """``IExecutionContext``: captures its shapes and addresses when a run is queued."""

    def __init__(self, engine: EngineDouble) -> None:
        self.engine = engine
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        shape = self.shapes.get(name, self.engine.get_tensor_shape(name))
        return (*shape[:2], *self._size()) if name == "cube" else shape

    def update_device_memory_size_for_shapes(self) -> int:
        return self.engine.scratch * int(np.prod(self._size()))

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine, driver, (scratch, size) = self.engine, self.engine.driver, self.scratch
        assert size >= self.update_device_memory_size_for_shapes(), "the scratch memory is too small"
        names = [*engine.inputs, *engine.outputs]
        tensors = {
            name: (self.addresses[name], self.get_tensor_shape(name), trt.dtype(engine.get_tensor_dtype(name)))
            for name in names
        }

        def kernel() -> None:
            driver.calls[engine.kind] += 1
            driver.view(scratch, (size,)).fill(stream % 251)
            feeds = {name: driver.view(*tensors[name]).copy() for name in engine.inputs}
            outputs = dict(zip(self._graph_outputs(), engine.session.run(self._graph_outputs(), feeds), strict=True))
            if "cube_sum" in tensors:
                outputs["cube_sum"] = outputs["cube"].sum(dtype=np.float32)
            for name, values in outputs.items():
                driver.view(*tensors[name])[...] = values

        driver.enqueue(stream, kernel, [scratch, *(address for address, _, _ in tensors.values())], "an engine")
        return True

    def _graph_outputs(self) -> list[str]:
        return [name for name in self.engine.outputs if name != "cube_sum"]

    def _size(self) -> Sequence[int]:
        rgb = self.shapes["rgb"]
        return rgb[1:3] if rgb[-1] == 3 else rgb[2:]


@contextlib.contextmanager
def installed_engines(
    driver: Driver, sides: tuple[int, int], has_sum: bool = True, encode_scratch: int = SCRATCH
) -> Iterator[None]:
    """Let ONNX files be engines.

    Args:
        driver: The driver double, which must be installed.
        sides: Shortest and longest side that the engines take, px.
        has_sum: Whether engines with a cube have its sum, too.
        encode_scratch: Scratch memory of ``encode`` for each pixel, bytes.

    Yields:
        Nothing.
    """
    module = SimpleNamespace(
        __version__="10.3.0",
        Runtime=lambda log: SimpleNamespace(
            deserialize_cuda_engine=lambda graph: EngineDouble(driver, graph, sides, has_sum, encode_scratch)
        ),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="EAGER"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="USER_MANAGED"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE"),
        TensorLocation=SimpleNamespace(DEVICE="DEVICE"),
        TensorIOMode=SimpleNamespace(INPUT="INPUT"),
    )
    log = SimpleNamespace(forget=lambda: None, reason=lambda: "its reason")
    with mock.patch.object(trt, "load", lambda name: module), mock.patch.object(trt, "log", lambda name: log):
        yield
