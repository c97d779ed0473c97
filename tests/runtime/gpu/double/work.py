"""Order of work in the driver double: tasks that run late and in any order that streams and events allow.

Nothing runs when it is queued, except by chance. Whatever waits on the host runs tasks that are ready, whichever they
are, until the task that it waits for is done. The seed decides. A missing event therefore gives wrong results for most
seeds, and the same results for the same seed.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from .memory import Allocation, DriverMisuseError

CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_MERGE, CAPTURE_UNMATCHED = 900, 901, 902, 903
CAPTURE_UNJOINED, CAPTURE_ISOLATION, CAPTURED_EVENT, CAPTURE_WRONG_THREAD = 904, 905, 907, 908


class StatusError(Exception):
    """Number of a CUDA error that a function of the double returns."""


@dataclass(frozen=True)
class Work:
    """A piece of work: ``check`` returns the blocks that it uses, now or when a graph is launched; ``run`` does it."""

    name: str
    check: Callable[[], list[Allocation]]
    run: Callable[[], None]


@dataclass(eq=False)
class Task:
    """Work in a stream, with the tasks that must be done before and the blocks that it uses."""

    work: Work
    before: list[Task]
    uses: list[Allocation]
    done: bool = False


@dataclass
class Capture:
    """Work that streams record: (work, indices of the work before it)."""

    origin: StreamState
    thread: int
    nodes: list[tuple[Work, list[int]]] = field(default_factory=list)
    valid: bool = True


@dataclass(eq=False)
class StreamState:
    """A stream: its last task, the tasks of events that it waits for, and the same for what it captures."""

    device: int
    blocking: bool = False
    last: Task | None = None
    waits: list[Task] = field(default_factory=list)
    capture: Capture | None = None
    captured: list[int] = field(default_factory=list)


@dataclass(eq=False)
class EventState:
    """An event: None before the first record, a task (or none, for an empty stream), or a place in a capture."""

    device: int
    tasks: list[Task] | None = None
    captured: tuple[Capture, list[int]] | None = None


Graph = list[tuple[Work, list[int]]]


class Scheduler:
    """All work of the double that is not done yet.

    Attributes:
        pending: Tasks that are queued, oldest first.
        faults: Messages of all faults, so that none is lost when something catches the exception.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._haste = self._random.choice((0.0, 0.0, 0.3))  # chance that a task runs as soon as something is queued
        self.pending: list[Task] = []
        self.faults: list[str] = []

    def add(self, stream: StreamState, work: Work, legacy: StreamState, blocking: list[StreamState]) -> Task | None:
        """Queue work, or record it; the task that runs it, None where a stream captures."""
        uses = work.check()
        if stream.capture:
            stream.capture.nodes.append((work, stream.captured))
            stream.captured = [len(stream.capture.nodes) - 1]
            return None
        before = [*([stream.last] if stream.last else []), *stream.waits]
        if stream is legacy:  # the legacy stream and blocking streams wait for each other
            before += [other.last for other in blocking if other.last]
        elif stream.blocking and legacy.last:
            before.append(legacy.last)
        stream.waits = []
        stream.last = self._queue(work, before, uses)
        return stream.last

    def _queue(self, work: Work, before: list[Task], uses: list[Allocation]) -> Task:
        task = Task(work, [other for other in before if not other.done], uses)
        self.pending.append(task)
        while self.pending and self._random.random() < self._haste:
            self._step()
        return task

    def launch(self, stream: StreamState, graph: Graph) -> None:
        """Queue the work of a graph after that of the stream, as a whole."""
        nothing = Work("start of a graph", list, lambda: None)
        start = self._queue(nothing, [*([stream.last] if stream.last else []), *stream.waits], [])
        tasks: list[Task] = []
        for work, before in graph:
            tasks.append(self._queue(work, [start, *(tasks[index] for index in before)], work.check()))
        stream.waits = []
        stream.last = self._queue(Work("end of a graph", list, lambda: None), [start, *tasks], [])

    def finish(self, *tasks: Task | None) -> None:
        """Run tasks until these are done: only what they need, or by chance others as well."""
        wanted = [task for task in tasks if task]
        needed = self._needed(wanted) if self._random.random() < 0.5 else None
        while not all(task.done for task in wanted):
            self._step(needed)

    def finish_all(self) -> None:
        while self.pending:
            self._step()

    def _needed(self, tasks: list[Task]) -> set[Task]:
        """Return tasks with all that must be done before them."""
        needed: set[Task] = set()
        unseen = list(tasks)
        while unseen:
            task = unseen.pop()
            if task not in needed:
                needed.add(task)
                unseen += task.before
        return needed

    def check_idle(self, block: Allocation) -> None:
        """Report a fault if work that is not done uses a block."""
        users = [task for task in self.pending if block in task.uses]
        if users:
            for task in users:  # so that each is reported once
                self.pending.remove(task)
                task.done = True
            raise DriverMisuseError(f"{block} is freed before {users[0].work.name} has used it")

    def _step(self, among: set[Task] | None = None) -> None:
        candidates = [task for task in self.pending if among is None or task in among]
        ready = [task for task in candidates if all(other.done for other in task.before)]
        task = self._random.choice(ready)
        self.pending.remove(task)
        task.done, task.before = True, []
        task.work.check()
        task.work.run()

    def record(self, event: EventState, stream: StreamState) -> None:
        if stream.capture:
            event.captured = (stream.capture, list(stream.captured))
            return
        event.captured = None
        event.tasks = [*([stream.last] if stream.last else []), *stream.waits]

    def wait(self, stream: StreamState, event: EventState) -> None:
        if event.captured:
            capture, nodes = event.captured
            if capture.origin.capture is not capture:
                raise StatusError(CAPTURED_EVENT)
            if stream.capture not in (None, capture):
                raise StatusError(CAPTURE_MERGE)
            if stream.capture is None:
                stream.capture, stream.captured = capture, []
            stream.captured = sorted({*stream.captured, *nodes})
        elif stream.capture and event.tasks is not None:
            stream.capture.valid = False
            raise StatusError(CAPTURE_ISOLATION)
        else:
            stream.waits += event.tasks or []

    def begin_capture(self, stream: StreamState) -> None:
        if stream.capture:
            raise StatusError(CAPTURE_UNSUPPORTED)
        stream.capture, stream.captured = Capture(stream, threading.get_ident()), []

    def end_capture(self, stream: StreamState, streams: list[StreamState]) -> Graph:
        capture = stream.capture
        if capture is None or capture.origin is not stream:
            raise StatusError(CAPTURE_UNMATCHED)
        if capture.thread != threading.get_ident():
            raise StatusError(CAPTURE_WRONG_THREAD)
        members = [other for other in streams if other.capture is capture]
        ends = {node for other in members for node in other.captured}
        joined = set(stream.captured)
        for index in sorted(range(len(capture.nodes)), reverse=True):
            if index in joined:
                joined |= set(capture.nodes[index][1])
        for other in members:
            other.capture, other.captured = None, []
        if not capture.valid:
            raise StatusError(CAPTURE_INVALIDATED)
        if not ends <= joined:
            raise StatusError(CAPTURE_UNJOINED)
        return capture.nodes
