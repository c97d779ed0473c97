"""Metrics of a stream for Prometheus: a file, a port, and targets that are refused."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.metrics import StreamMetrics
from ccnet.runtime.stream.prometheus import PrometheusExporter

EXPECTED = {
    "ccnet_frames_arrived_total 103.0",
    "ccnet_frames_delivered_total 100.0",
    "ccnet_frames_dropped_total 1.0",
    'ccnet_frames_rejected_total{cause="sink"} 1.0',
    'ccnet_frames_rejected_total{cause="source"} 0.0',
    "ccnet_frames_in_flight 1.0",
    "ccnet_reconnects_total 0.0",
}


def test_metrics_are_written_to_a_file(metrics: StreamMetrics, tmp_path: Path) -> None:
    exporter = PrometheusExporter(metrics, str(tmp_path / "ccnet.prom"))
    exporter.close()
    assert set((tmp_path / "ccnet.prom").read_text().splitlines()) >= EXPECTED


def test_metrics_are_served_on_a_port(metrics: StreamMetrics) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    exporter = PrometheusExporter(metrics, str(port))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert set(answer.read().decode().splitlines()) >= EXPECTED
        with pytest.raises(CCNetError, match=f"port {port}: cannot be used"):
            PrometheusExporter(metrics, str(port))
    finally:
        exporter.close()


def test_unwritable_metrics_file_is_logged_once_and_raises_nothing(
    metrics: StreamMetrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    exporter = PrometheusExporter(metrics, str(folder / "ccnet.prom"))
    (folder / "ccnet.prom").unlink()
    folder.rmdir()
    for _ in range(2):
        exporter.close()
    assert len(caplog.records) == 1 and "cannot be used for metrics" in caplog.text


@pytest.mark.parametrize("target", ["metrics.txt", "0", "65536", "-1", "/dev/null/ccnet.prom", "\ud800.prom"])
def test_impossible_targets_are_refused(
    metrics: StreamMetrics, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CCNetError, match="--metrics"):
        PrometheusExporter(metrics, target)
