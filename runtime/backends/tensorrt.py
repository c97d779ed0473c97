"""The backend that runs an engine with ``tensorrt`` or ``tensorrt_rtx``: numpy in, numpy out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnet.contract import CCNetError, write_atomic
from ccnet.runtime.gpu.cuda import Buffer, Device, Stream

from . import trt_api as trt

_logger = logging.getLogger(__name__)

Shape = tuple[int, ...]


class _Tensor:
    """An input or output of the engine: its dtype and shapes, and its memory."""

    def __init__(self, module: Any, engine: Any, name: str, buffer: Buffer) -> None:
        if engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
            raise CCNetError(f"tensor {name!r} is a shape tensor in host memory, expected data: export the graph again")
        self.name = name
        self.dtype = trt.dtype(engine.get_tensor_dtype(name))
        self.is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
        self.low = self.high = tuple(engine.get_tensor_shape(name))
        if self.is_input and -1 in self.low:
            low, _, high = engine.get_tensor_profile_shape(name, 0)
            self.low, self.high = tuple(low), tuple(high)
        self.buffer = buffer
        self.host: NDArray[Any] = np.empty(0, self.dtype)

    def check(self, array: NDArray[Any]) -> None:
        if array.dtype != self.dtype:
            raise CCNetError(f"input {self.name!r} has dtype {array.dtype}, expected {self.dtype}")
        fits = array.ndim == len(self.low) and all(
            low <= size <= high for low, size, high in zip(self.low, array.shape, self.high, strict=True)
        )
        if not fits:
            expected = str(self.low) if self.low == self.high else f"{self.low} to {self.high}"
            raise CCNetError(f"input {self.name!r} has shape {array.shape}, the engine takes {expected}")


class TensorRTBackend:
    """An engine on a GPU, with its own stream. Use it in ``with`` or call ``close``; one thread at a time.

    GPU memory and page-locked host memory are allocated for a new shape and only grow. A call with the shapes of the
    call before allocates only its outputs, which are copies for the caller to keep.

    Attributes:
        name: Library, version and device, for reports.
    """

    name: str

    def __init__(
        self,
        engine: bytes,
        *,
        backend: trt.Name = "tensorrt",
        device: int = 0,
        runtime_cache: Path | None = None,
        weights: bytes | None = None,
        compatible: bool = False,
    ) -> None:
        """Deserialize an engine, which must be trusted: verify its SHA-256 first.

        A CCNetError says so if there is no GPU, if the module is missing, or if the engine was built for another GPU or
        version.

        Args:
            engine: Content of the engine file.
            backend: Module that runs it.
            device: Index of the GPU.
            runtime_cache: File of the kernels that ``tensorrt_rtx`` compiles for each new shape, read here, and written
                after the first run of a shape and by ``close``. It holds code for the GPU: keep it in a folder that
                only you can write.
            weights: ONNX graph with the weights of an engine that was stripped of them.
            compatible: The engine was built to run with other versions, and contains host code for that.

        Raises:
            CCNetError: ``tensorrt`` was asked to use a runtime cache, which it does not have.
        """
        if backend == "tensorrt" and runtime_cache is not None:
            raise CCNetError("tensorrt has no runtime cache, as it compiles when it builds: leave runtime_cache out")
        self._closed = False
        self._compiles_at_run_time = backend == "tensorrt_rtx"
        self._stack = ExitStack()
        self._device = Device(device)
        try:
            with self._device:
                self.name = f"{trt.title(backend)} (cuda:{device})"
                self._open(trt.load(backend), trt.log(backend), engine, runtime_cache, weights, compatible)
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the engine once.

        Args:
            feeds: Input name → array.

        Returns:
            Output name → array.

        Raises:
            CCNetError: The engine is closed or failed, or the message names an input whose dtype or shape is wrong.
        """
        if self._closed:
            raise CCNetError(f"{self.name} is closed: open the engine again")
        if feeds.keys() != {tensor.name for tensor in self._inputs}:
            expected = ", ".join(tensor.name for tensor in self._inputs)
            raise CCNetError(f"inputs are {', '.join(feeds) or 'none'}, the engine takes {expected}")
        for tensor in self._inputs:
            tensor.check(feeds[tensor.name])
        with self._device:
            return self._run(feeds)

    def close(self) -> None:
        """Free everything; harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        with self._device:
            self._stack.close()

    def __enter__(self) -> TensorRTBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(
        self,
        module: Any,
        log: trt.Log,
        data: bytes,
        runtime_cache: Path | None,
        weights: bytes | None,
        compatible: bool,
    ) -> None:
        self._log = log
        self._stream = Stream(self._device)
        self._stack.callback(self._stream.close)
        log.forget()
        self._stack.callback(self._delete_objects)
        runtime = module.Runtime(log)
        runtime.engine_host_code_allowed = compatible
        self._engine = runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise CCNetError(
                f"{self.name} cannot load the engine on {self._device.name}: {log.reason() or 'no reason given'};"
                " build it for this GPU and version"
            )
        if weights is not None:
            self._refit(module, log, weights)
        self._context = self._make_context(module, runtime_cache)
        if self._context is None:
            raise CCNetError(f"{self.name} cannot start the engine: {log.reason() or 'out of memory?'}")
        try:
            names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        except UnicodeDecodeError as error:
            raise CCNetError(f"{self.name} finds damaged names in the engine: build it again") from error
        tensors = [_Tensor(module, self._engine, name, self._buffer()) for name in names]
        self._inputs = [tensor for tensor in tensors if tensor.is_input]
        self._outputs = [tensor for tensor in tensors if not tensor.is_input]
        self._shapes: list[Shape] = []
        self._seen: set[tuple[Shape, ...]] = set()

    def _refit(self, module: Any, log: trt.Log, weights: bytes) -> None:
        refitter = module.Refitter(self._engine, log)
        if not (module.OnnxParserRefitter(refitter, log).refit_from_bytes(weights) and refitter.refit_cuda_engine()):
            raise CCNetError(
                f"{self.name} cannot give the engine its graph's weights: {log.reason() or 'no reason given'};"
                " build it again"
            )

    def _delete_objects(self) -> None:
        """Delete the context, then its engine: before the stream and the memory that both use."""
        self._context = None
        self._engine = None

    def _buffer(self) -> Buffer:
        buffer = Buffer(self._device, self._stream)
        self._stack.callback(buffer.close)
        return buffer

    def _make_context(self, module: Any, path: Path | None) -> Any:
        self._save_kernels: Callable[[], None] | None = None
        if not self._compiles_at_run_time:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        # The default runs slow kernels until those of a shape are compiled; tiles have few shapes, each many times
        strategy = module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        if path is None:
            return self._engine.create_execution_context(config)
        cache = config.create_runtime_cache()
        if path.is_file() and not cache.deserialize(path.read_bytes()):
            # Normal after an update of the driver: the kernels are compiled again, only the first frame takes longer.
            _logger.warning("%s: not a runtime cache of %s on this GPU; it will be replaced", path, self.name)
        config.set_runtime_cache(cache)
        self._save_kernels = lambda: write_atomic(path, bytes(cache.serialize()))
        self._stack.callback(self._save_kernels)
        return self._engine.create_execution_context(config)

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        shapes = [feeds[tensor.name].shape for tensor in self._inputs]
        if shapes != self._shapes:
            self._reshape(shapes)
        for tensor in self._inputs:
            np.copyto(tensor.host, feeds[tensor.name])
            tensor.buffer.upload(tensor.host.nbytes)
        self._log.forget()
        if not self._context.execute_async_v3(self._stream.handle):
            raise CCNetError(f"{self.name} failed to run: {self._log.reason() or 'no reason given'}")
        for tensor in self._outputs:
            tensor.buffer.download(tensor.host.nbytes)
        self._stream.synchronize()
        self._remember_shape()
        return {tensor.name: tensor.host.copy() for tensor in self._outputs}

    def _remember_shape(self) -> None:
        """Write the kernels after the first run of a shape: a process that is killed keeps them."""
        shapes = tuple(self._shapes)
        if shapes in self._seen or self._save_kernels is None:
            return
        self._seen.add(shapes)
        try:
            self._save_kernels()
        except CCNetError as error:  # the frame is right all the same
            _logger.warning("kernels of %s are not kept: %s", self.name, error)

    def _reshape(self, shapes: list[Shape]) -> None:
        self._shapes = []  # so that a failure below is not taken for a finished change
        for tensor, shape in zip(self._inputs, shapes, strict=True):
            if not self._context.set_input_shape(tensor.name, shape):
                raise CCNetError(f"input {tensor.name!r} cannot have shape {shape}: {self._log.reason()}")
            self._allocate(tensor, shape)
        for tensor in self._outputs:
            self._allocate(tensor, tuple(self._context.get_tensor_shape(tensor.name)))
        self._shapes = shapes

    def _allocate(self, tensor: _Tensor, shape: Shape) -> None:
        if -1 in shape:
            raise CCNetError(f"tensor {tensor.name!r} has shape {shape}, expected one that the inputs' shapes decide")
        tensor.host = tensor.buffer.view(shape, tensor.dtype)
        self._context.set_tensor_address(tensor.name, tensor.buffer.address)
