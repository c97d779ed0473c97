"""Order on a GPU: streams, events between them, and graphs that replay the work of a stream.

Work that is queued on a stream runs later than the call, one piece after the other. Two streams run in any order,
except where one waits for an event of the other. All methods need the context: call them inside ``with device:``.
"""

from __future__ import annotations

import ctypes
from ctypes import c_void_p

from .devices import Device

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no implicit wait for the legacy default stream
_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class Event:
    """A point in the work of a stream, for which other streams and the host can wait."""

    def __init__(self, device: Device) -> None:
        self._device = device
        handle = c_void_p()
        with device:
            device.call("cuEventCreate", ctypes.byref(handle), _DISABLE_TIMING)
        self.handle = handle.value or 0

    def record(self, stream: Stream) -> None:
        """Move the event behind all work that the stream has so far."""
        self._device.call("cuEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait on the host until the work before the event is done; an event that was never recorded is done."""
        self._device.call("cuEventSynchronize", self.handle)

    def close(self) -> None:
        """Destroy the event; harmless when called twice."""
        handle, self.handle = self.handle, 0
        if handle:
            with self._device as device:
                device.call("cuEventDestroy_v2", handle)


class Stream:
    """A queue of work on a GPU; ``handle`` is the number that ``execute_async_v3`` and DLPack take."""

    def __init__(self, device: Device) -> None:
        self.device = device
        handle = c_void_p()
        with device:
            device.call("cuStreamCreate", ctypes.byref(handle), _NON_BLOCKING)
        self.handle = handle.value or 0

    def synchronize(self) -> None:
        """Wait on the host until all queued work is done."""
        self.device.call("cuStreamSynchronize", self.handle)

    def wait(self, event: Event) -> None:
        """Let all work that is queued from now on wait for the work before the event's last record."""
        self.device.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def begin_capture(self) -> None:
        """Record the work that is queued from now on in a graph, instead of running it.

        Streams that wait for an event of this stream meanwhile are captured too; this stream must wait for them before
        ``end_capture``. Nothing may be allocated, freed or waited for on the host meanwhile.
        """
        self.device.call("cuStreamBeginCapture_v2", self.handle, _THREAD_LOCAL)

    def end_capture(self) -> Graph:
        """Return the graph of the work since ``begin_capture``; a CCNetError if the work cannot be replayed."""
        graph = c_void_p()
        self.device.call("cuStreamEndCapture", self.handle, ctypes.byref(graph))
        try:
            return Graph(self.device, graph)
        finally:
            self.device.call("cuGraphDestroy", graph)

    def close(self) -> None:
        """Destroy the stream, whose queued work still runs; harmless when called twice."""
        handle, self.handle = self.handle, 0
        if handle:
            with self.device as device:
                device.call("cuStreamDestroy_v2", handle)


class Graph:
    """Work that a stream captured, with its addresses: one call replays it. ``Stream.end_capture`` returns it."""

    def __init__(self, device: Device, graph: c_void_p) -> None:
        self._device = device
        handle = c_void_p()
        device.call("cuGraphInstantiateWithFlags", ctypes.byref(handle), graph, 0)
        self._handle = handle.value or 0

    def launch(self, stream: Stream) -> None:
        """Queue the work; the memory that it uses must still be allocated."""
        self._device.call("cuGraphLaunch", self._handle, stream.handle)

    def close(self) -> None:
        """Destroy the graph; harmless when called twice."""
        handle, self._handle = self._handle, 0
        if handle:
            with self._device as device:
                device.call("cuGraphExecDestroy", handle)
