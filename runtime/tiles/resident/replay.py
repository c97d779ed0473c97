"""Runs of an engine, replayed as CUDA graphs: one launch instead of one for each of the engine's kernels."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import Graph, Stream
from ccnet.runtime.gpu.scratch import Scratch

from .engine import PipelineContext, Shape

_logger = logging.getLogger(__name__)


class ReplayedContext:
    """An execution context with fixed shapes and addresses, whose second run becomes a graph that later runs replay.

    TensorRT needs the first run of a shape to be an ordinary one. A graph holds for the shapes, addresses and scratch
    memory that it was captured with, and is captured again when one of them changes.
    """

    def __init__(self, context: PipelineContext, scratch: Scratch, captures: bool) -> None:
        """Take over an execution context, and close it in ``close``.

        Args:
            context: The execution context.
            scratch: Its scratch memory.
            captures: Whether to capture graphs; TensorRT-RTX does so itself.
        """
        self._context = context
        self._scratch = scratch
        self._captures = captures
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._ran_with: int | None = None
        self._graph: Graph | None = None

    def set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Set the shapes of the inputs, if they are others; an OutOfMemoryError if the scratch memory does not fit."""
        if shapes != self._shapes:
            self._forget()
            self._shapes = {}  # so that a failure is not taken for a finished change
            self._context.set_shapes(shapes)
            self._shapes = dict(shapes)

    def set_addresses(self, addresses: Mapping[str, int]) -> None:
        """Set the address of each tensor."""
        if addresses != self._addresses:
            self._forget()
            self._addresses = dict(addresses)
            for name, address in addresses.items():
                self._context.set_address(name, address)

    def enqueue(self, stream: Stream) -> None:
        """Queue a run, as a graph where there is one; an error of TensorRT or CUDA is a CCNetError."""
        if self._ran_with != self._scratch.address:
            self._forget()
            self._context.enqueue(stream)
            self._ran_with = self._scratch.address
            return
        if self._graph is None and self._captures:
            self._graph = self._capture(stream)
        if self._graph is None:
            self._context.enqueue(stream)
        else:
            self._graph.launch(stream)

    def keep_kernels(self) -> None:
        """Write the kernels that TensorRT-RTX compiled, if there are new ones."""
        self._context.keep_kernels()

    def free(self) -> None:
        """Empty the scratch memory: the shapes must be set again."""
        self._forget()
        self._shapes = {}
        self._context.free_scratch()

    def close(self) -> None:
        """Delete the graph and the context."""
        self._forget()
        self._context.close()

    def _capture(self, stream: Stream) -> Graph | None:
        """Return the graph of a run; None for an engine that cannot be captured."""
        try:
            stream.begin_capture()
            try:
                self._context.enqueue(stream)
            except CCNetError:
                with contextlib.suppress(CCNetError):  # the stream must leave the capture, whose graph is of no use
                    stream.end_capture().close()
                raise
            return stream.end_capture()
        except CCNetError as error:
            self._captures = False
            _logger.warning("the engine runs without CUDA graphs: %s", error)
            return None

    def _forget(self) -> None:
        self._ran_with = None
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()
