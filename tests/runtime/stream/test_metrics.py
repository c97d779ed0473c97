"""Latency and rate of a stream, and the status line."""

from __future__ import annotations

import io
import os
from contextlib import suppress

import pytest

from ccnet.runtime.stream.ledger import FrameLedger
from ccnet.runtime.stream.metrics import StatusLine, StreamMetrics


def test_latency_percentiles_and_rate_are_correct(metrics: StreamMetrics) -> None:
    assert metrics.latency() == pytest.approx({50: 0.0505, 95: 0.09505, 99: 0.09901})
    assert metrics.rate() == pytest.approx(100)
    assert metrics.waiting() == pytest.approx({50: 0.02525, 95: 0.047525, 99: 0.049505})
    line = "100 frames/s, p50 50 ms, p95 95 ms, p99 99 ms, of which p50 25 ms in the queue; 103 frames arrived: 100 d"
    assert str(metrics).startswith(line)
    assert "1 dropped by policy, 1 rejected (sink 1), 1 in flight; 0 reconnects" in str(metrics)
    assert str(StreamMetrics(FrameLedger())).startswith("0 frames/s; 0 frames arrived")


def test_a_single_frame_has_the_rate_of_its_latency() -> None:
    now = 10.0
    ledger = FrameLedger()
    metrics = StreamMetrics(ledger, clock=lambda: now)
    assert metrics.rate() == 0
    metrics.record_delivery(arrived=9.75, begun=9.8)
    assert metrics.rate() == pytest.approx(4)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_status_line_is_drawn_only_on_terminals_and_fits(
    metrics: StreamMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for out, lines in ((Terminal(), 1), (io.StringIO(), 0)):
        line = StatusLine(metrics, out)
        for _ in range(3):
            line.refresh()  # at most one a second
        line.close()
        assert out.getvalue().count("100 frames/s") == lines
        assert all(len(part) < 60 for part in out.getvalue().split("\r\x1b[K"))


def test_closed_terminal_raises_nothing(metrics: StreamMetrics) -> None:
    ours, theirs = os.openpty()
    out = os.fdopen(theirs, "w")
    line = StatusLine(metrics, out)
    os.close(ours)
    line.refresh()
    line.close()
    with suppress(OSError):  # what it could not write is still in its buffer
        out.close()
