"""The pipeline from a source to its sinks, which runs for weeks and accounts for every frame.

A thread captures frames into a queue, the caller's thread reconstructs them. It works on one frame at a time, and the
cube goes to the sinks strip by strip, so that memory holds the queue's frames and one strip. A slow sink slows the
stream; the policy of the queue decides what happens to the frames that come meanwhile.
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
from ccnet.metrics.correction import FrameCorrection
from ccnet.runtime.io.frames import Frame

from .context_policy import ContextPolicy
from .ledger import FrameCounts, FrameLedger, RejectionCause
from .metrics import StreamMetrics
from .queue import FrameQueue, QueuePolicy
from .sinks import CubeExistsError, Sink
from .sources.source import (
    CapturedFrame,
    DescribedSource,
    FrameTimeoutError,
    Pixels,
    Source,
    SourceDisconnectedError,
    SourceSpec,
)

Array = npt.NDArray[np.float32]

_logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.1
"""Longest time until a stop is noticed."""

FIRST_RECONNECT_WAIT_S, LONGEST_RECONNECT_WAIT_S = 0.5, 30.0
"""Waits before a camera is opened again; a wait is twice as long as the last until the camera gives a frame."""

JOIN_TIMEOUT_S = 1.0
"""Longest wait for the capturing thread to close its source; a thread that hangs is left behind."""


class StripReconstructor(Protocol):
    """The methods of a Reconstructor that a stream needs."""

    def encode(self, frame: Frame) -> Array:
        """Return the context (1, N) of a frame."""

    def strips(self, frame: Frame, context: Array | None = None) -> Iterator[tuple[int, Array]]:
        """Yield the cube from top to bottom as (top, strip (31, h, W))."""


class _RejectedError(CCNetError):
    """A frame that the pipeline rejects."""

    def __init__(self, cause: RejectionCause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


@dataclass(kw_only=True)
class Stream:
    """One run from a source to open sinks.

    Call ``run`` once, from one thread; ``stop`` may be called from any thread.

    Attributes:
        metrics: Latency and rate of the frames.
        ended: True when the source came to its end by itself.
        expected: Number of frames that the source says it has, or None.
    """

    source: SourceSpec
    sinks: Sequence[Sink]
    reconstructor: StripReconstructor
    prepare: Callable[[Pixels], Frame]
    """Converts the source's pixels to the frame that the graphs take: radiometry, or colours of a photograph."""
    context: ContextPolicy
    policy: QueuePolicy
    queue_size: int = 4
    """Largest number of frames that wait."""
    max_frames: int | None = None
    """Number of frames after which the stream ends."""
    preview: Sink | None = None
    """Gets every cube that is reconstructed for the sinks."""
    correction: Callable[[Frame], FrameCorrection] | None = None
    """Makes what corrects the cube of a frame in place; None leaves the cubes as they are."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Metadata of every cube, beside the id, time and context of its frame."""
    ledger: FrameLedger = field(default_factory=FrameLedger)

    def __post_init__(self) -> None:
        self.metrics = StreamMetrics(self.ledger)
        self._queue = FrameQueue(self.ledger, self.policy, self.queue_size)
        self.ended = False
        self.expected: int | None = None
        self._stop_requests = 0
        self._failure: Exception | None = None

    def stop(self) -> None:
        """Take no more frames and finish those that have arrived; when called twice, drop those that wait."""
        self._stop_requests += 1

    def run(self, on_idle: Callable[[], None] = lambda: None) -> FrameCounts:
        """Stream until the source ends or ``stop`` is called.

        A source that cannot be opened at first raises its CCNetError. A camera that disappears later is opened again
        after 0.5 s, then after twice as long each time, up to 30 s, until it gives a frame. The source is closed when
        this returns, unless it hangs for a second. An error of the program in the source is raised once the frames
        before it are finished.

        Args:
            on_idle: Function to call between two frames, and at least ten times a second while none comes.

        Returns:
            The final counts, with no frame in flight.
        """
        capture = threading.Thread(target=self._capture, daemon=True, name="ccnet-capture")
        capture.start()
        try:
            while (captured := self._next(on_idle)) is not None:
                self._process(captured)
        finally:
            # After an error of the program too: the error tells of the frame in work, and the waiting ones are dropped
            self._stop_requests += 1
            self._queue.abandon()
            capture.join(JOIN_TIMEOUT_S)
        if self._failure is not None:
            raise self._failure
        return self.ledger.counts()

    def _next(self, on_idle: Callable[[], None]) -> CapturedFrame | None:
        """Return the next frame, or None if there will be none."""
        while True:
            on_idle()
            if self._stop_requests > 1:
                self._queue.abandon()
            elif self._stop_requests:
                self._queue.close()
            try:
                return self._queue.get(POLL_INTERVAL_S)
            except TimeoutError:
                continue

    # -----------------------------------------------------------------------------------------------------------------
    # In the caller's thread

    def _process(self, captured: CapturedFrame) -> None:
        """Deliver a frame's cube to all sinks, or reject the frame."""
        begun = time.time()
        try:
            if captured.pixels is None:
                raise _RejectedError("source", captured.fault)
            with _reject_errors_as("radiometry"):
                frame = self.prepare(captured.pixels)
                correction = self.correction(frame) if self.correction else None
            with _reject_errors_as("sink"):
                delivered = self._reconstruct(captured, frame, correction)
        except _RejectedError as error:
            self.ledger.reject(captured.frame_id, error.cause, str(error))
        else:
            if delivered:
                self.ledger.deliver(captured.frame_id)
                self.metrics.record_delivery(captured.arrived, begun)
            else:
                self.ledger.keep(captured.frame_id)

    def _reconstruct(self, captured: CapturedFrame, frame: Frame, correction: FrameCorrection | None) -> bool:
        """Write a frame's cube strip by strip to all sinks that lack it; return False if none does."""
        time_utc = datetime.fromtimestamp(captured.arrived, timezone.utc).isoformat(timespec="microseconds")
        metadata = {"frame id": str(captured.frame_id), "captured": time_utc, "context": self.context.name}
        colour = {"colour": captured.colour} if captured.colour else {}
        metadata = {**self.metadata, **colour, **metadata, **captured.metadata}
        name, (height, width) = captured.name or None, frame.shape[:2]
        with ExitStack() as stack:
            writers = []
            for sink in self.sinks:
                with suppress(CubeExistsError):
                    writers.append(stack.enter_context(sink.cube(name, height, width, metadata)))
            if self.sinks and not writers:
                return False
            if self.preview:
                writers.append(stack.enter_context(self.preview.cube(name, height, width, metadata)))
            for top, strip in self._strips(frame):
                if correction:
                    correction.write(top, strip)
                for writer in writers:
                    writer.write(top, strip)
        return True

    def _strips(self, frame: Frame) -> Iterator[tuple[int, Array]]:
        with _reject_errors_as("reconstruction"):
            strips = self.reconstructor.strips(frame, self.context(self.reconstructor, frame))
        while True:
            with _reject_errors_as("reconstruction"):
                strip = next(strips, None)
            if strip is None:
                return
            yield strip

    # -----------------------------------------------------------------------------------------------------------------
    # In the capturing thread

    def _capture(self) -> None:
        """Put the source's frames into the queue until it ends, fails, or the stream is stopped.

        The source is opened here too: a camera that accepts and says nothing holds its library for minutes, where no
        signal ends it.
        """
        opened: Source | None = None
        try:
            opened = self.source.open()
            self.expected = opened.expected
            frame_id, wait = 0, FIRST_RECONNECT_WAIT_S
            while opened and frame_id != self.max_frames and not self._stop_requests:
                try:
                    captured = _read(opened, frame_id)
                except FrameTimeoutError:
                    continue
                except SourceDisconnectedError as error:
                    _logger.warning("%s: trying to open it again", error)
                    disconnected, opened = opened, None
                    disconnected.close()
                    opened, wait = self._reopen(wait)
                    continue
                self.ended = captured is None
                if captured is None or not self._queue.put(captured):
                    return
                frame_id, wait = frame_id + 1, FIRST_RECONNECT_WAIT_S
        except Exception as error:  # of the first opening, the program or the system; run raises it after the frames
            self._failure = error
        finally:
            try:
                if opened:
                    opened.close()
            finally:
                self._queue.close()  # in any case: run waits for it

    def _reopen(self, wait: float) -> tuple[Source | None, float]:
        """Open a camera again that disappeared.

        Args:
            wait: Time before the first attempt, s.

        Returns:
            The camera, or None if the stream was stopped first; and the next wait if the camera gives no frame.
        """
        while not self._stopped_within(wait):
            wait = min(2 * wait, LONGEST_RECONNECT_WAIT_S)
            with suppress(CCNetError):
                source = self.source.open()
                self.metrics.reconnects += 1
                return source, wait
        return None, wait

    def _stopped_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._stop_requests and (left := until - time.monotonic()) > 0:
            time.sleep(min(POLL_INTERVAL_S, left))
        return self._stop_requests > 0


def _read(source: Source, frame_id: int) -> CapturedFrame | None:
    """Return the source's next frame, which may be a damaged one without pixels; None at the end."""
    try:
        frame = source.read()
    except (FrameTimeoutError, SourceDisconnectedError):
        raise
    except CCNetError as error:
        return CapturedFrame(frame_id, "", time.time(), None, str(error))
    if frame is None:
        return None
    metadata = dict(source.frame_metadata) if isinstance(source, DescribedSource) else {}
    return CapturedFrame(frame_id, frame[0], time.time(), frame[1], colour=source.colour, metadata=metadata)


@contextmanager
def _reject_errors_as(cause: RejectionCause) -> Iterator[None]:
    """Turn an error with a frame into its rejection; of nested causes, the innermost counts."""
    try:
        yield
    except _RejectedError:
        raise
    except MemoryError as error:
        raise _RejectedError(cause, "out of memory: use smaller frames or a smaller tile") from error
    except (CCNetError, OSError) as error:
        raise _RejectedError(cause, " ".join(str(error).split())) from error
