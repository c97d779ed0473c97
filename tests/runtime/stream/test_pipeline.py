"""The pipeline: every frame is delivered, dropped by the policy or rejected with a reason, whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnet.contract import CCNetError
from ccnet.runtime.stream import pipeline
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.queue import QueuePolicy
from ccnet.runtime.stream.sources.source import SourceDisconnectedError, SourceSpec

POLICIES = st.sampled_from(["latest", "block", "drop-oldest"])
FRAME = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_INTERVAL_S", "FIRST_RECONNECT_WAIT_S", "LONGEST_RECONNECT_WAIT_S"):
        monkeypatch.setattr(pipeline, name, 0.001)


class Script:
    """A source that follows a list of steps: give, damage (a bad frame), go (the camera disconnects), slow."""

    expected, colour = None, ""

    def __init__(self, steps: list[str]) -> None:
        self._steps = iter(steps)
        self.given = 0
        self.closed = 0

    def read(self) -> tuple[str, Any] | None:
        step = next(self._steps, None)
        if step is None:
            return None
        if step == "go":
            raise SourceDisconnectedError("unplugged")
        if step == "slow":
            time.sleep(0.002)
        self.given += 1
        if step == "damage":
            raise CCNetError("torn")
        return "", FRAME

    def close(self) -> None:
        self.closed += 1


class Memory:
    """A sink that records the names of its cubes, and refuses those whose number is in ``refused``."""

    name = "memory"

    def __init__(self, refused: set[int] | None = None, pause: float = 0) -> None:
        self.cubes: list[str] = []
        self._refused, self._pause, self._turn = refused or set(), pause, -1

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[Any]:
        self._turn += 1
        if self._turn in self._refused:
            raise CCNetError("full")
        yield self
        time.sleep(self._pause)
        self.cubes.append(name or metadata["frame id"].zfill(8))

    def write(self, top: int, strip: Any) -> None:
        assert strip.shape == (31, 4, 4)

    def close(self) -> None: ...


class Grey:
    """A reconstructor that fails at the calls whose numbers are in ``broken``."""

    def __init__(self, broken: set[int] | None = None) -> None:
        self._broken, self._turn = broken or set(), -1

    def encode(self, frame: Any) -> Any:
        return np.zeros((1, 3), np.float32)

    def strips(self, frame: Any, context: Any = None) -> Iterator[tuple[int, Any]]:
        self._turn += 1
        if self._turn in self._broken:
            raise CCNetError("NaN")
        yield 0, np.zeros((31, *frame.shape[:2]), np.float32)


def make(steps: list[str], sink: Memory, **options: Any) -> tuple[Stream, Script]:
    source = Script(steps)
    spec = SourceSpec("script", True, lambda: source)
    base: dict[str, Any] = {
        "reconstructor": Grey(),
        "prepare": lambda pixels: pixels,
        "context": ContextPolicy("every:1"),
        "policy": "block",
    }
    return Stream(source=spec, sinks=[sink], **{**base, **options}), source


@settings(max_examples=150)
@given(
    steps=st.lists(st.sampled_from(["give", "give", "give", "damage", "go", "slow"]), max_size=25),
    refused=st.sets(st.integers(0, 20), max_size=4),
    broken=st.sets(st.integers(0, 20), max_size=4),
    policy=POLICIES,
    size=st.integers(1, 4),
    stops=st.lists(st.integers(0, 12), max_size=2),
)
def test_every_frame_is_accounted_for_once(
    steps: list[str], refused: set[int], broken: set[int], policy: QueuePolicy, size: int, stops: list[int]
) -> None:
    sink = Memory(refused)
    running, source = make(steps, sink, reconstructor=Grey(broken), policy=policy, queue_size=size)
    beats = 0

    def idle() -> None:
        nonlocal beats
        for at in stops:
            if at == beats:
                running.stop()
        beats += 1

    counts = running.run(idle)
    assert counts.in_flight == 0
    assert counts.arrived == counts.delivered + counts.dropped + sum(counts.rejected.values())
    assert counts.delivered == len(sink.cubes) == len(set(sink.cubes))
    assert sink.cubes == sorted(sink.cubes)
    assert counts.arrived in (source.given, source.given - 1)  # one that comes after the stop is not taken
    if not stops:
        assert counts.arrived == source.given == len(steps) - steps.count("go")
        assert counts.rejected.get("source", 0) + counts.dropped >= steps.count("damage")
    if policy == "block" and len(stops) < 2:
        assert counts.dropped == 0


def test_rejections_have_a_cause_and_a_reason() -> None:
    sink = Memory(refused={1})
    running, _ = make(["damage", "give", "give", "give", "give"], sink, reconstructor=Grey({2}))
    counts = running.run()
    assert counts.rejected == {"source": 1, "sink": 1, "reconstruction": 1}
    assert running.ledger.reasons == ["frame 0: torn", "frame 2: full", "frame 4: NaN"]
    assert sink.cubes == ["00000001", "00000003"]


def test_os_error_rejects_only_its_frame() -> None:
    def prepare(pixels: Any) -> Any:
        raise OSError(28, "No space left on device")

    running, _ = make(["give"] * 3, Memory(), prepare=prepare)
    assert running.run().rejected == {"radiometry": 3}
    assert "No space left" in running.ledger.reasons[0]


def test_frame_ids_continue_after_a_reconnect() -> None:
    sink = Memory()
    running, source = make(["give", "go", "give", "go", "go", "give"], sink)
    assert running.run().delivered == 3
    assert sink.cubes == ["00000000", "00000001", "00000002"]
    assert running.metrics.reconnects == 3 and source.closed == 4


def test_reconnect_waits_grow_until_a_frame_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "FIRST_RECONNECT_WAIT_S", 1)
    monkeypatch.setattr(pipeline, "LONGEST_RECONNECT_WAIT_S", 5)
    waits: list[float] = []
    running, _ = make(["go", "go", "go", "go", "go", "give", "go", "go", "give"], Memory())
    monkeypatch.setattr(running, "_stopped_within", waits.append)  # never
    assert running.run().delivered == 2
    assert waits == [1, 2, 4, 5, 5, 1, 2]


def test_stream_of_a_lost_camera_can_be_stopped() -> None:
    opened = [Script(["give", "go"])]

    def open_() -> Script:
        if opened:
            return opened.pop()
        raise SourceDisconnectedError("not there")

    sink = Memory()
    running, _ = make([], sink)
    running.source = SourceSpec("camera", True, open_)
    threading.Timer(0.05, running.stop).start()
    assert running.run().delivered == 1


def test_source_missing_at_the_start_is_an_error() -> None:
    running, _ = make([], Memory())
    running.source = SourceSpec("camera", True, _not_there)
    with pytest.raises(CCNetError, match="not there"):
        running.run()


def _not_there() -> Any:
    raise SourceDisconnectedError("not there")


def test_unexpected_error_ends_the_stream_after_earlier_frames() -> None:
    class Broken(Script):
        def read(self) -> Any:
            if self.given == 2:
                raise RuntimeError("bug")
            return super().read()

    sink = Memory()
    running, _ = make([], sink)
    running.source = SourceSpec("broken", False, lambda: Broken(["give"] * 9))
    with pytest.raises(RuntimeError, match="bug"):
        running.run()
    assert len(sink.cubes) == 2 and running.ledger.counts().in_flight == 0


def test_one_stop_finishes_queued_frames_and_two_drop_them() -> None:
    for stops in (1, 2):
        sink = Memory(pause=0.01)
        running, _ = make(["give"] * 5, sink, queue_size=5)

        def stop_once_all_are_here(running: Stream = running, stops: int = stops) -> None:
            if running.ledger.counts().arrived == 5 and not running._stop_requests:
                for _ in range(stops):
                    running.stop()

        counts = running.run(stop_once_all_are_here)
        assert counts.arrived == 5
        assert (counts.dropped == 0) == (stops == 1)


def test_time_in_the_queue_is_told_from_work() -> None:
    def wait_for_all(pixels: Any) -> Any:
        while running.ledger.counts().arrived < 3:
            time.sleep(0.001)
        return pixels

    running, _ = make(["give"] * 3, Memory(pause=0.02), queue_size=3, prepare=wait_for_all)
    running.run()
    waiting, latency = running.metrics.waiting()[50], running.metrics.latency()[50]
    assert waiting > 0.019  # the second frame waits for the first
    assert latency > waiting + 0.019


def test_source_that_never_opens_is_left_behind_when_the_stream_is_stopped() -> None:
    """A camera accepts the connection and sends nothing."""
    release = threading.Event()

    def open_silent() -> Script:
        release.wait(60)
        return Script([])

    running, _ = make([], Memory())
    running.source = SourceSpec("silent", True, open_silent)
    started = time.monotonic()
    counts = running.run(on_idle=running.stop)
    assert time.monotonic() - started < 2 * pipeline.JOIN_TIMEOUT_S
    assert counts.arrived == 0
    release.set()


def test_source_that_cannot_be_opened_at_first_is_an_error() -> None:
    def refuse() -> Script:
        raise SourceDisconnectedError("no such camera")

    running, _ = make([], Memory())
    running.source = SourceSpec("none", True, refuse)
    with pytest.raises(CCNetError, match="no such camera"):
        running.run()


def test_preview_gets_the_cubes_that_the_sinks_get() -> None:
    preview, sink = Memory(), Memory({1})
    running, _ = make(["give", "give", "damage", "give"], sink, preview=preview)
    assert running.run().delivered == 2
    assert preview.cubes == sink.cubes == ["00000000", "00000003"]
