"""Metrics of a stream and a reconstructor of grey cubes, for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ccnet.runtime.stream.ledger import FrameLedger
from ccnet.runtime.stream.metrics import StreamMetrics


@pytest.fixture
def metrics() -> StreamMetrics:
    """100 frames, delivered one every 10 ms, with latencies of 1 to 100 ms, half of them in the queue; three others."""
    ledger = FrameLedger()
    now = 0.0
    metrics = StreamMetrics(ledger, clock=lambda: now)
    for frame in range(100):
        ledger.arrive(frame)
        ledger.deliver(frame)
        now = 0.01 * frame
        metrics.record_delivery(now - 0.001 * (frame + 1), now - 0.0005 * (frame + 1))
    for frame in range(100, 103):
        ledger.arrive(frame)
    ledger.drop(100)
    ledger.reject(101, "sink", "full")
    return metrics


class GreyReconstructor:
    """A reconstructor of grey cubes, of frames of any size."""

    def encode(self, frame: Any) -> Any:
        return np.zeros((1, 3), np.float32)

    def strips(self, frame: Any, context: Any = None) -> Iterator[tuple[int, Any]]:
        yield 0, np.zeros((31, *frame.shape[:2]), np.float32)


@pytest.fixture
def grey() -> GreyReconstructor:
    return GreyReconstructor()
