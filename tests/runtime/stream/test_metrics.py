"""The pulse of a stream, in words and for Prometheus."""

from __future__ import annotations

import io
import os
import socket
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.ledger import FrameLedger
from ccnet.runtime.stream.metrics import Metrics, StatusLine, StreamMetrics


def pulse() -> StreamMetrics:
    """100 frames, delivered one every 10 ms, with latencies of 1 to 100 ms; three others."""
    account = FrameLedger()
    now = 0.0
    made = StreamMetrics(account, clock=lambda: now)
    for frame in range(100):
        account.arrive(frame)
        account.deliver(frame)
        now = 0.01 * frame
        made.delivered(now - 0.001 * (frame + 1))
    for frame in range(100, 103):
        account.arrive(frame)
    account.drop(100)
    account.reject(101, "sink", "full")
    return made


def test_percentiles_and_rate() -> None:
    made = pulse()
    assert made.latency() == pytest.approx({50: 0.0505, 95: 0.09505, 99: 0.09901})
    assert made.rate() == pytest.approx(100)
    assert str(made).startswith("100 frames/s, p50 50 ms, p95 95 ms, p99 99 ms; 103 frames arrived: 100 delivered")
    assert "1 dropped by policy, 1 rejected (sink 1), 1 in flight; 0 reconnects" in str(made)
    assert str(StreamMetrics(FrameLedger())).startswith("0 frames/s; 0 frames arrived")


EXPECTED = {
    "ccnet_frames_arrived_total 103.0",
    "ccnet_frames_delivered_total 100.0",
    "ccnet_frames_dropped_total 1.0",
    'ccnet_frames_rejected_total{cause="sink"} 1.0',
    'ccnet_frames_rejected_total{cause="source"} 0.0',
    "ccnet_frames_in_flight 1.0",
    "ccnet_reconnects_total 0.0",
}


def test_a_file_for_prometheus(tmp_path: Path) -> None:
    made = Metrics(pulse(), str(tmp_path / "ccnet.prom"))
    made.close()
    assert set((tmp_path / "ccnet.prom").read_text().splitlines()) >= EXPECTED


def test_a_port_for_prometheus() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Metrics(pulse(), str(port))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert set(answer.read().decode().splitlines()) >= EXPECTED
        with pytest.raises(CCNetError, match=f"port {port}: cannot be used"):
            Metrics(pulse(), str(port))
    finally:
        made.close()


def test_a_full_disk_is_said_once_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    made = Metrics(pulse(), str(folder / "ccnet.prom"))
    (folder / "ccnet.prom").unlink()
    folder.rmdir()
    for _ in range(2):
        made.close()
    assert len(caplog.records) == 1 and "cannot be used for metrics" in caplog.text


@pytest.mark.parametrize("target", ["metrics.txt", "0", "65536", "-1", "none/ccnet.prom", "\ud800.prom"])
def test_targets_that_cannot_be_are_refused(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CCNetError, match="--metrics"):
        Metrics(pulse(), target)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_status_line_is_for_terminals_and_fits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for out, lines in ((Terminal(), 1), (io.StringIO(), 0)):
        line = StatusLine(pulse(), out)
        for _ in range(3):
            line.refresh()  # at most one a second
        line.close()
        assert out.getvalue().count("100 frames/s") == lines
        assert all(len(part) < 60 for part in out.getvalue().split("\r\x1b[K"))


def test_a_terminal_that_was_closed_ends_nothing() -> None:
    ours, theirs = os.openpty()
    out = os.fdopen(theirs, "w")
    line = StatusLine(pulse(), out)
    os.close(ours)
    line.refresh()
    line.close()
    with suppress(OSError):  # what it could not write is still in its buffer
        out.close()
