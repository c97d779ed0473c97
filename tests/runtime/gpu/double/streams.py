"""The calls of the driver double on streams, events and graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .memory import DriverMisuseError
from .work import (
    CAPTURE_UNSUPPORTED,
    CAPTURED_EVENT,
    EventState,
    Graph,
    Scheduler,
    StatusError,
    StreamState,
    Task,
    Work,
)

INVALID_HANDLE = 400
LEGACY, PER_THREAD = 1, 2
NON_BLOCKING = 1


@dataclass(eq=False)
class GraphState:
    """A captured graph, or an executable one."""

    nodes: Graph
    device: int


class StreamCalls:
    """Streams, events and graphs by their handles. ``functions`` are the driver's, with plain arguments."""

    def __init__(self, work: Scheduler, device: Callable[[], int]) -> None:
        self.work, self._device = work, device
        self.objects: dict[int, Any] = {}
        self._destroyed: set[int] = set()
        self._builtin: dict[tuple[int, int], StreamState] = {}
        self._next = 0x10000
        self.functions: dict[str, Callable[..., object]] = {
            "cuCtxSynchronize": self._synchronize_device,
            "cuStreamCreate": lambda handle, flags: self._create(
                handle, StreamState(device(), blocking=not flags & NON_BLOCKING)
            ),
            "cuStreamDestroy_v2": lambda stream: self._destroy(stream, StreamState),
            "cuStreamSynchronize": self._synchronize,
            "cuStreamWaitEvent": lambda stream, event, flags: work.wait(self.stream(stream), self._event(event)),
            "cuStreamBeginCapture_v2": lambda stream, mode: work.begin_capture(self.stream(stream)),
            "cuStreamEndCapture": self._end_capture,
            "cuEventCreate": lambda handle, flags: self._create(handle, EventState(device())),
            "cuEventDestroy_v2": lambda event: self._destroy(event, EventState),
            "cuEventRecord": self._record,
            "cuEventSynchronize": self._synchronize_event,
            "cuGraphInstantiateWithFlags": lambda handle, graph, flags: self._create(
                handle, GraphState(list(self._find(graph, GraphState).nodes), device())
            ),
            "cuGraphDestroy": lambda graph: self._destroy(graph, GraphState),
            "cuGraphExecDestroy": lambda graph: self._destroy(graph, GraphState),
            "cuGraphLaunch": lambda graph, stream: work.launch(
                self.stream(stream), self._find(graph, GraphState).nodes
            ),
        }

    def stream(self, handle: int) -> StreamState:
        """Return the stream of a handle; 0 and 1 are the legacy default stream, 2 that of the thread."""
        if handle in (0, LEGACY, PER_THREAD):
            key = (max(handle, LEGACY), self._device())
            return self._builtin.setdefault(key, StreamState(self._device(), blocking=handle == PER_THREAD))
        found: StreamState = self._find(handle, StreamState)
        return found

    def add(self, handle: int, work: Work) -> Task | None:
        blocking = [stream for stream in self._streams() if stream.blocking and stream.device == self._device()]
        return self.work.add(self.stream(handle), work, self.stream(LEGACY), blocking)

    def captures(self) -> list[StreamState]:
        """Return the streams that this thread captures."""
        here = threading.get_ident()
        return [stream for stream in self._streams() if stream.capture and stream.capture.thread == here]

    def refuse_capture(self) -> None:
        """End the captures of this thread with an error, as a call does that cannot be captured."""
        for stream in self.captures():
            if stream.capture:
                stream.capture.valid = False
            raise StatusError(CAPTURE_UNSUPPORTED)

    def _streams(self) -> list[StreamState]:
        created = [thing for thing in self.objects.values() if isinstance(thing, StreamState)]
        return created + list(self._builtin.values())

    def _event(self, handle: int) -> EventState:
        found: EventState = self._find(handle, EventState)
        return found

    def _create(self, handle: Any, thing: Any) -> None:
        self._next += 16
        self.objects[self._next] = thing
        handle.value = self._next

    def _find(self, handle: int, kind: type) -> Any:
        if handle in self._destroyed:
            raise DriverMisuseError(f"{kind.__name__} {handle:#x} is used after it was destroyed")
        if not isinstance(self.objects.get(handle), kind):
            raise DriverMisuseError(f"{handle:#x} is no handle of a {kind.__name__}")
        thing = self.objects[handle]
        if thing.device != self._device():
            raise StatusError(INVALID_HANDLE)
        return thing

    def _destroy(self, handle: int, kind: type) -> None:
        self._find(handle, kind)
        self._destroyed.add(handle)
        del self.objects[handle]

    def _synchronize(self, handle: int) -> None:
        stream = self.stream(handle)
        if stream.capture:
            stream.capture.valid = False
            raise StatusError(CAPTURE_UNSUPPORTED)
        self.work.finish(stream.last, *stream.waits)

    def _synchronize_device(self) -> None:
        self.refuse_capture()
        for stream in self._streams():
            if stream.device == self._device():
                self.work.finish(stream.last, *stream.waits)
        self.work.finish_all()  # streams that were destroyed with work

    def _synchronize_event(self, handle: int) -> None:
        event = self._event(handle)
        if event.captured:
            raise StatusError(CAPTURED_EVENT)
        self.work.finish(*event.tasks or [])

    def _record(self, event: int, stream: int) -> None:
        self.work.record(self._event(event), self.stream(stream))

    def _end_capture(self, stream: int, handle: Any) -> None:
        handle.value = None
        nodes = self.work.end_capture(self.stream(stream), self._streams())
        self._create(handle, GraphState(nodes, self._device()))
