"""The interface of an engine to the pipeline: work on a stream that reads and writes tensors in GPU memory.

TensorRT's engines (``trt_engine``) have this interface. Anything else that computes on a stream can take their place,
as torch does in ``make gpu-day``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ccnet.runtime.gpu.cuda import Device, Stream
from ccnet.runtime.gpu.scratch import Scratch

Shape = tuple[int, ...]


class PipelineContext(Protocol):
    """Runs an engine for one set of shapes and addresses at a time."""

    def set_shapes(self, shapes: Mapping[str, Shape]) -> object:
        """Set the shapes of the inputs; an OutOfMemoryError if the GPU has too little memory for them."""

    def set_address(self, name: str, address: int) -> None:
        """Set the device address that a tensor is read from or written to."""

    def enqueue(self, stream: Stream) -> None:
        """Queue a run on a stream; it must allocate no GPU memory while the stream is captured."""

    def keep_kernels(self) -> None:
        """Write kernels that were compiled, if there are new ones."""

    def free_scratch(self) -> None:
        """Free the memory that the shapes need, so that smaller ones find memory."""

    def close(self) -> None:
        """Free everything."""


class PipelineEngine(Protocol):
    """An engine of ``encode``, ``decode`` or ``full``.

    Attributes:
        name: Library, version and device, for reports.
        device: The GPU that it runs on.
    """

    name: str
    device: Device

    @property
    def can_be_captured(self) -> bool:
        """True if its runs may be captured as CUDA graphs."""

    def execution_context(self, stream: Stream, scratch: Scratch, runtime_cache: Path | None = None) -> PipelineContext:
        """Return a new execution context, which the caller must close.

        Args:
            stream: Stream that runs it.
            scratch: Scratch memory, which contexts that never run at the same time may share.
            runtime_cache: File of compiled kernels; None keeps none.

        Returns:
            The context.
        """

    def close(self) -> None:
        """Free everything, after the contexts."""
