"""The backend that runs an engine with ``tensorrt`` or ``tensorrt_rtx``: numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnet.contract import CCNetError, Closeable
from ccnet.runtime.gpu.cuda import Buffer, Device, Stream
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError
from ccnet.runtime.gpu.scratch import Scratch

from . import trt_api as trt
from .trt_engine import Engine, Shape


class TensorRTBackend(Closeable):
    """An engine on a GPU, with its own stream. Use it in ``with`` or call ``close``; one thread at a time.

    GPU memory and page-locked host memory are allocated for a new shape and only grow, until memory runs out. A call
    with the shapes of the call before allocates only its outputs, which are copies for the caller to keep.

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
        scratch: Scratch | None = None,
    ) -> None:
        """Deserialize an engine, which must be trusted: verify its SHA-256 first.

        Args:
            engine: Content of the engine file.
            backend: Module that runs it.
            device: Index of the GPU.
            runtime_cache: File of the kernels that ``tensorrt_rtx`` compiles for each new shape, read here, and written
                after the first run of a shape and by ``close``. It holds code for the GPU: keep it in a folder that
                only you can write.
            weights: ONNX graph with the weights of an engine that was stripped of them.
            compatible: The engine was built to run with other versions, and contains host code for that.
            scratch: Scratch memory to share with backends that never run at the same time. None is its own.

        Raises:
            CCNetError: There is no GPU, the module is missing, the engine was built for another GPU or version, or
                ``tensorrt`` was asked to use a runtime cache, which it does not have.
        """
        if backend == "tensorrt" and runtime_cache is not None:
            raise CCNetError("tensorrt has no runtime cache, as it compiles when it builds: leave runtime_cache out")
        self._closed = False
        self._stack = ExitStack()
        self._device = Device(device)
        try:
            with self._device:
                self._stream = Stream(self._device)
                self._stack.callback(self._stream.close)
                self._engine = Engine(
                    engine, backend=backend, device=self._device, weights=weights, compatible=compatible
                )
                self._stack.callback(self._engine.close)
                self._open(scratch or Scratch(), runtime_cache)
        except BaseException:
            self.close()
            raise
        self.name = self._engine.name

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the engine once.

        Args:
            feeds: Input name → array.

        Returns:
            Output name → array.

        Raises:
            CCNetError: The engine is closed or failed, or the message names an input whose dtype or shape is wrong.
            OutOfMemoryError: The GPU has too little memory for these shapes; all memory for shapes is free then.
        """
        if self._closed:
            raise CCNetError(f"{self.name} is closed: open the engine again")
        inputs = self._engine.inputs
        if feeds.keys() != {tensor.name for tensor in inputs}:
            expected = ", ".join(tensor.name for tensor in inputs)
            raise CCNetError(f"inputs are {', '.join(feeds) or 'none'}, the engine takes {expected}")
        for tensor in inputs:
            tensor.check(feeds[tensor.name])
        with self._device:
            try:
                return self._run({tensor.name: feeds[tensor.name] for tensor in inputs})
            except OutOfMemoryError:
                self._free()
                raise

    def close(self) -> None:
        """Free everything; harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        with self._device:
            self._stack.close()

    def _open(self, scratch: Scratch, runtime_cache: Path | None) -> None:
        self._shapes: list[Shape] = []
        self._host: dict[str, NDArray[Any]] = {}
        self._buffers: dict[str, Buffer] = {}
        for name in self._engine.tensors:
            self._buffers[name] = Buffer(self._device, self._stream)
            self._stack.callback(self._buffers[name].close)
        self._context = self._engine.execution_context(self._stream, scratch, runtime_cache)
        self._stack.callback(self._context.close)

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        shapes = [array.shape for array in feeds.values()]
        if shapes != self._shapes:
            self._reshape(dict(zip(feeds, shapes, strict=True)))
            self._shapes = shapes
        for name, array in feeds.items():
            np.copyto(self._host[name], array)
            self._buffers[name].upload(self._host[name].nbytes)
        self._context.enqueue()
        outputs = {tensor.name: self._host[tensor.name] for tensor in self._engine.outputs}
        for name, array in outputs.items():
            self._buffers[name].download(array.nbytes)
        self._stream.synchronize()
        self._context.keep_kernels()
        return {name: array.copy() for name, array in outputs.items()}

    def _reshape(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = []  # so that a failure below is not taken for a finished change
        for name, shape in self._context.set_shapes(shapes).items():
            buffer = self._buffers[name]
            self._host[name] = buffer.view(shape, self._engine.tensors[name].dtype)
            self._context.set_address(name, buffer.address)

    def _free(self) -> None:
        """Free the memory that belongs to shapes: smaller ones may fit then."""
        self._shapes = []
        self._host.clear()
        for buffer in self._buffers.values():
            buffer.close()
        self._context.free_scratch()
