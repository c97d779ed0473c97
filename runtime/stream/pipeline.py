"""From a source to its sinks for weeks: one thread captures, the caller's reconstructs, every frame is accounted for.

One frame is in work at a time and its cube goes to the sinks strip by strip, so that memory is the queue's frames and
one strip. A slow sink slows the stream, and what that costs is the policy's to decide.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import Frame

from .context_policy import ContextPolicy
from .ledger import Cause, FrameCounts, FrameLedger
from .metrics import StreamMetrics
from .queue import FrameQueue, Policy
from .sinks import Sink
from .sources import CapturedFrame, Pixels, Source, SourceDisconnectedError, SourceSpec

Array = npt.NDArray[np.float32]

_logger = logging.getLogger(__name__)

_POLL = 0.1  # s, to see a stop
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # s, before a camera is tried again; doubled until it gives a frame
_FAREWELL = 1.0  # s, for the capturing thread to close its source; one that hangs is left behind


class StripReconstructor(Protocol):
    """What the stream needs of a Reconstructor."""

    def encode(self, frame: Frame) -> Array: ...

    def strips(self, frame: Frame, context: Array | None = None) -> Iterator[tuple[int, Array]]: ...


class _RejectedError(CCNetError):
    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(kw_only=True)
class Stream:
    """One run from a source to open sinks. ``run`` once, from one thread; ``stop`` from any, and from signals."""

    source: SourceSpec
    sinks: Sequence[Sink]
    reconstructor: StripReconstructor
    prepare: Callable[[Pixels], Frame]
    """From the source's pixels to a frame as the graphs take it: radiometry, or a photograph's colours."""
    context: ContextPolicy
    policy: Policy
    queue: int = 4
    most: int | None = None
    """Stop after so many frames have arrived."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Goes with every cube, beside its frame's id, time and context."""
    account: FrameLedger = field(default_factory=FrameLedger)

    def __post_init__(self) -> None:
        self.pulse = StreamMetrics(self.account)
        self._queue = FrameQueue(self.account, self.policy, self.queue)
        self._stops = 0
        self._failure: Exception | None = None

    def stop(self) -> None:
        """Take no more frames and finish those that are here; asked twice, drop those that wait. Safe in a signal."""
        self._stops += 1

    def run(self, idle: Callable[[], None] = lambda: None) -> FrameCounts:
        """Stream until the source ends or ``stop``; ``idle`` is called between frames, ten times a second at least.

        Returns the account, in which nothing is in flight any more. CCNetError where the source cannot be opened at
        all; a camera that was there and disappears is tried again, after 0.5 s, then after twice as long each time, up
        to 30 s, until it gives a frame. The source is closed when this returns, unless it hangs for a second.
        """
        capture = threading.Thread(target=self._capture, args=(self.source.open(),), daemon=True, name="ccnet-capture")
        capture.start()
        try:
            while (shot := self._next(idle)) is not None:
                self._work(shot)
        finally:
            # Also after an error of the program: what was in work is told by the error, what waits is dropped
            self._stops += 1
            self._queue.abandon()
            capture.join(_FAREWELL)
        if self._failure is not None:
            raise self._failure
        return self.account.tally()

    def _next(self, idle: Callable[[], None]) -> CapturedFrame | None:
        """The next frame; None when there will be none."""
        while True:
            idle()
            if self._stops > 1:
                self._queue.abandon()
            elif self._stops:
                self._queue.close()
            try:
                return self._queue.get(_POLL)
            except TimeoutError:
                continue

    # -----------------------------------------------------------------------------------------------------------------
    # The caller's thread

    def _work(self, shot: CapturedFrame) -> None:
        try:
            if shot.pixels is None:
                raise _RejectedError("source", shot.fault)
            with _blaming("radiometry"):
                frame = self.prepare(shot.pixels)
            with _blaming("sink"):
                self._reconstruct(shot, frame)
        except _RejectedError as error:
            self.account.reject(shot.frame_id, error.cause, str(error))
        else:
            self.account.deliver(shot.frame_id)
            self.pulse.delivered(shot.captured)

    def _reconstruct(self, shot: CapturedFrame, frame: Frame) -> None:
        captured = datetime.fromtimestamp(shot.captured, timezone.utc).isoformat(timespec="microseconds")
        about = {"frame id": str(shot.frame_id), "captured": captured, "context": self.context.name}
        name, (height, width) = shot.name or f"{shot.frame_id:08}", frame.shape[:2]
        with ExitStack() as stack:
            writers = [
                stack.enter_context(sink.cube(name, height, width, {**self.metadata, **about})) for sink in self.sinks
            ]
            for top, strip in self._strips(frame):
                for writer in writers:
                    writer.write(top, strip)

    def _strips(self, frame: Frame) -> Iterator[tuple[int, Array]]:
        with _blaming("reconstruction"):
            strips = self.reconstructor.strips(frame, self.context(self.reconstructor, frame))
        while True:
            with _blaming("reconstruction"):
                strip = next(strips, None)
            if strip is None:
                return
            yield strip

    # -----------------------------------------------------------------------------------------------------------------
    # The capturing thread

    def _capture(self, source: Source) -> None:
        opened: Source | None = source
        try:
            frame_id, wait = 0, _FIRST_WAIT
            while opened and frame_id != self.most and not self._stops:
                try:
                    shot = _read(opened, frame_id)
                except SourceDisconnectedError as error:
                    _logger.warning("%s: it is tried again", error)
                    gone, opened = opened, None
                    gone.close()
                    opened, wait = self._reopen(wait)
                    continue
                if shot is None or not self._queue.put(shot):
                    return
                frame_id, wait = frame_id + 1, _FIRST_WAIT
        except Exception as error:  # of the program or the system; run raises it when the frames before are done
            self._failure = error
        finally:
            try:
                if opened:
                    opened.close()
            finally:
                self._queue.close()  # whatever happens: run waits for it

    def _reopen(self, wait: float) -> tuple[Source | None, float]:
        """The camera that disappeared, once it is back, and how long to wait if it gives no frame after all.

        None where the stream was stopped first.
        """
        while not self._stopped_within(wait):
            wait = min(2 * wait, _LONGEST_WAIT)
            with suppress(CCNetError):
                source = self.source.open()
                self.pulse.reconnects += 1
                return source, wait
        return None, wait

    def _stopped_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._stops and (left := until - time.monotonic()) > 0:
            time.sleep(min(_POLL, left))
        return self._stops > 0


def _read(source: Source, frame_id: int) -> CapturedFrame | None:
    """The source's next frame, or what is wrong with it; None at its end."""
    try:
        got = source.read()
    except SourceDisconnectedError:
        raise
    except CCNetError as error:
        return CapturedFrame(frame_id, "", time.time(), None, str(error))
    return None if got is None else CapturedFrame(frame_id, got[0], time.time(), got[1])


@contextmanager
def _blaming(cause: Cause) -> Iterator[None]:
    """What goes wrong with a frame rejects it, for the innermost cause."""
    try:
        yield
    except _RejectedError:
        raise
    except MemoryError as error:
        raise _RejectedError(cause, "out of memory: take smaller frames or a smaller window") from error
    except (CCNetError, OSError) as error:
        raise _RejectedError(cause, " ".join(str(error).split())) from error
