"""Engines of ``tensorrt`` and ``tensorrt_rtx`` and their execution contexts: shapes, addresses, a run on a stream.

Each call needs the device to be current: make them inside ``with device``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ccnet.contract import CCNetError, write_atomic
from ccnet.runtime.gpu.cuda import Device, Stream
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError, is_out_of_memory
from ccnet.runtime.gpu.scratch import Scratch

from . import trt_api as trt

_logger = logging.getLogger(__name__)

Shape = tuple[int, ...]


class EngineTensor:
    """An input or output of an engine.

    Attributes:
        name: Name of the tensor.
        dtype: Type of its numbers.
        is_input: Whether it is an input.
        low: Smallest shape; -1 is a size of an output that depends on the inputs.
        high: Largest shape.
    """

    def __init__(self, module: Any, engine: Any, name: str) -> None:
        if engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
            raise CCNetError(f"tensor {name!r} is a shape tensor in host memory, expected data: export the graph again")
        self.name = name
        self.dtype = trt.dtype(engine.get_tensor_dtype(name))
        self.is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
        self.low: Shape = tuple(engine.get_tensor_shape(name))
        self.high = self.low
        if self.is_input and -1 in self.low:
            low, _, high = engine.get_tensor_profile_shape(name, 0)
            self.low, self.high = tuple(low), tuple(high)

    def check(self, array: NDArray[Any]) -> None:
        """Raise a CCNetError unless an array has this tensor's dtype and a shape that the engine takes."""
        if array.dtype != self.dtype:
            raise CCNetError(f"input {self.name!r} has dtype {array.dtype}, expected {self.dtype}")
        fits = array.ndim == len(self.low) and all(
            low <= size <= high for low, size, high in zip(self.low, array.shape, self.high, strict=True)
        )
        if not fits:
            expected = str(self.low) if self.low == self.high else f"{self.low} to {self.high}"
            raise CCNetError(f"input {self.name!r} has shape {array.shape}, the engine takes {expected}")


class Engine:
    """A deserialized engine. ``close`` it after its execution contexts.

    Attributes:
        name: Library, version and device, for reports.
        device: The GPU that it runs on.
        tensors: Its inputs and outputs by name.
    """

    name: str
    device: Device
    tensors: Mapping[str, EngineTensor]

    def __init__(
        self,
        data: bytes,
        *,
        backend: trt.Name,
        device: Device,
        weights: bytes | None = None,
        compatible: bool = False,
    ) -> None:
        """Deserialize an engine, which must be trusted: verify its SHA-256 first.

        Args:
            data: Content of the engine file.
            backend: Module that runs it.
            device: The GPU that runs it.
            weights: ONNX graph with the weights of an engine that was stripped of them.
            compatible: The engine was built to run with other versions, and contains host code for that.

        Raises:
            CCNetError: The module is missing, or the engine was built for another GPU or version, or is damaged; an
                OutOfMemoryError if the GPU has too little memory for the weights.
        """
        self.name = f"{trt.title(backend)} (cuda:{device.index})"
        self.device = device
        self.module, self.log = trt.load(backend), trt.log(backend)
        self.is_rtx = backend == "tensorrt_rtx"
        self.log.forget()
        runtime = self.module.Runtime(self.log)
        runtime.engine_host_code_allowed = compatible
        self._engine: Any = runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise self.error(f"cannot load the engine on {device.name}", "build it for this GPU and version")
        if weights is not None:
            self._refit(weights)
        try:
            names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        except UnicodeDecodeError as error:
            raise CCNetError(f"{self.name} finds damaged names in the engine: build it again") from error
        self.tensors = {name: EngineTensor(self.module, self._engine, name) for name in names}

    @property
    def can_be_captured(self) -> bool:
        """True if runs may be captured as CUDA graphs, which TensorRT-RTX does itself."""
        return not self.is_rtx

    @property
    def inputs(self) -> list[EngineTensor]:
        """The inputs."""
        return [tensor for tensor in self.tensors.values() if tensor.is_input]

    @property
    def outputs(self) -> list[EngineTensor]:
        """The outputs."""
        return [tensor for tensor in self.tensors.values() if not tensor.is_input]

    @property
    def largest_scratch(self) -> int:
        """Scratch memory that the largest shapes need, bytes."""
        return int(self._engine.device_memory_size_v2)

    def error(self, what: str, remedy: str = "") -> CCNetError:
        """Return an error with TensorRT's reason: an OutOfMemoryError where that is a lack of memory."""
        reason = self.log.reason() or "no reason given"
        if is_out_of_memory(reason):
            return OutOfMemoryError(f"{self.name} {what}: {reason}: use smaller tiles or free GPU memory")
        return CCNetError("; ".join(filter(None, (f"{self.name} {what}: {reason}", remedy))))

    def execution_context(
        self, stream: Stream, scratch: Scratch, runtime_cache: Path | None = None
    ) -> ExecutionContext:
        """Return a new execution context, whose scratch memory is the caller's.

        Args:
            stream: Stream that runs it, unless ``enqueue`` gets another.
            scratch: Scratch memory, which contexts that never run at the same time may share.
            runtime_cache: File of the kernels that ``tensorrt_rtx`` compiles; None keeps none.

        Returns:
            The context, which the caller must close.
        """
        return ExecutionContext(self, self._engine, stream, scratch, runtime_cache)

    def close(self) -> None:
        """Delete the engine; harmless when called twice."""
        self._engine = None

    def _refit(self, weights: bytes) -> None:
        refitter = self.module.Refitter(self._engine, self.log)
        parser = self.module.OnnxParserRefitter(refitter, self.log)
        if not (parser.refit_from_bytes(weights) and refitter.refit_cuda_engine()):
            raise self.error("cannot give the engine its graph's weights", "build it again")


class ExecutionContext:
    """Runs an engine on a stream. ``close`` it before its engine, stream and device."""

    def __init__(
        self, engine: Engine, trt_engine: Any, stream: Stream, scratch: Scratch, runtime_cache: Path | None
    ) -> None:
        """Create the context. ``Engine.execution_context`` calls this."""
        self._engine = engine
        self._stream = stream
        self._scratch = scratch
        self._scratch_size = 0
        self._scratch_address = 0
        self._shapes: dict[str, Shape] = {}
        self._kept: set[tuple[Shape, ...]] = set()
        self._save_kernels: Callable[[], None] | None = None
        scratch.acquire()
        self._closed = False
        try:
            engine.log.forget()
            self._context: Any = trt_engine.create_execution_context(self._options(trt_engine, runtime_cache))
            if self._context is None:
                raise engine.error("cannot start the engine")
        except BaseException:
            self._save_kernels = None
            self.close()
            raise

    def set_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Set the shapes of the inputs, and reserve the scratch memory that they need.

        Args:
            shapes: Input name → shape.

        Returns:
            Tensor name → shape, of all inputs and outputs.

        Raises:
            CCNetError: The engine does not take these shapes; an OutOfMemoryError if the GPU has too little memory.
        """
        engine = self._engine
        self._shapes = {}  # so that a failure below is not taken for a finished change
        engine.log.forget()
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise engine.error(f"cannot give input {name!r} the shape {shape}")
        # 0 is an error, or a library that does not compute it
        self._scratch_size = int(self._context.update_device_memory_size_for_shapes()) or engine.largest_scratch
        self._scratch_address = 0
        self._scratch.reserve(self._scratch_size, self._stream)
        found = {name: tuple(self._context.get_tensor_shape(name)) for name in engine.tensors}
        for name, shape in found.items():
            if -1 in shape:
                raise CCNetError(f"tensor {name!r} has shape {shape}, expected one that the inputs' shapes decide")
        self._shapes = found
        return found

    def set_address(self, name: str, address: int) -> None:
        """Set the device address that a tensor is read from or written to."""
        self._context.set_tensor_address(name, address)

    def enqueue(self, stream: Stream | None = None) -> None:
        """Queue a run; all shapes and addresses must be set.

        Args:
            stream: Stream that runs it; None is the context's own.

        Raises:
            CCNetError: The run failed; an OutOfMemoryError if the GPU has too little memory.
        """
        stream = stream or self._stream
        # Another context may have made the block grow, or emptied it
        address = self._scratch.reserve(self._scratch_size, stream)
        if address != self._scratch_address:
            self._context.set_device_memory(address, self._scratch_size)
            self._scratch_address = address
        self._engine.log.forget()
        if not self._context.execute_async_v3(stream.handle):
            raise self._engine.error("failed to run")

    def keep_kernels(self) -> None:
        """Write the kernels of ``tensorrt_rtx`` after the first run of a shape: a process that is killed keeps them."""
        shapes = tuple(self._shapes.values())
        if not shapes or shapes in self._kept or self._save_kernels is None:
            return
        self._kept.add(shapes)
        try:
            self._save_kernels()
        except CCNetError as error:  # the frame is right all the same
            _logger.warning("kernels of %s are not kept: %s", self._engine.name, error)

    def free_scratch(self) -> None:
        """Empty the scratch memory after the stream's work, so that smaller shapes find memory."""
        self._scratch.free(self._stream)

    def close(self) -> None:
        """Keep the kernels and delete the context; harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._save_kernels is not None:
                self._save_kernels()
        finally:
            self._save_kernels = self._context = None
            self._scratch.release(self._stream)

    def _options(self, trt_engine: Any, path: Path | None) -> Any:
        """Return what ``create_execution_context`` takes: a strategy, or a runtime configuration for TensorRT-RTX."""
        module = self._engine.module
        user_managed = module.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self._engine.is_rtx:
            return user_managed
        config = trt_engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(user_managed)
        # The default runs slow kernels until those of a shape are compiled; tiles have few shapes, each many times
        strategy = module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        # One launch instead of hundreds; a capture by this package would fail while kernels are compiled
        config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if path is not None:
            self._use_cache(config, path)
        return config

    def _use_cache(self, config: Any, path: Path) -> None:
        cache = config.create_runtime_cache()
        if path.is_file() and not cache.deserialize(path.read_bytes()):
            # Normal after an update of the driver: the kernels are compiled again, only the first frame takes longer.
            _logger.warning("%s: not a runtime cache of %s on this GPU; it will be replaced", path, self._engine.name)
        config.set_runtime_cache(cache)
        self._save_kernels = lambda: write_atomic(path, bytes(cache.serialize()))
