"""RTSP through OpenCV's FFmpeg, from a real gst-rtsp-server that is killed and started again."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream import pipeline
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.sources.parse import parse_source

DOCUMENT = Path(__file__).resolve().parents[4] / "docs/stream.md"
PYTHON, PROGRAM = "/usr/bin/python3", Path(__file__).with_name("rtsp_server.py")
REQUIRED = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer;"
    " Gst.init(None); assert all(map(Gst.ElementFactory.find, ('appsrc', 'jpegenc', 'rtpjpegpay')))"
)
if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", REQUIRED], capture_output=True, check=False).returncode:
    pytest.skip(
        "needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gst-1.0 and gstreamer1.0-plugins-good",
        allow_module_level=True,
    )


class Server:
    """The server in a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self._port}/grey"
        self.start()

    def start(self) -> None:
        command = [PYTHON, str(PROGRAM), str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None and self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.kill()


def test_stream_that_is_cut_comes_back_and_every_frame_is_counted(
    server: Server, grey: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "FIRST_RECONNECT_WAIT_S", 0.1)
    levels: list[float] = []

    def prepare(pixels: np.ndarray) -> np.ndarray:
        assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
        levels.append(float(pixels.mean()))
        return pixels

    spec = parse_source(server.url)
    assert spec.live
    stream = Stream(
        source=spec,
        sinks=[],
        reconstructor=grey,
        prepare=prepare,
        context=ContextPolicy("every:1"),
        policy="block",
        max_frames=24,
    )
    cuts = [server.start, server.kill]

    def cut_once() -> None:
        if len(levels) >= 8:
            while cuts:
                cuts.pop()()

    counts = stream.run(cut_once)
    assert counts.arrived == counts.delivered + counts.kept == len(levels) == 24
    assert stream.metrics.reconnects == 1
    assert f"{server.url}: the camera gives no frames any more: trying to open it again" in caplog.text
    steps = [round((after - before) / 8) for before, after in pairwise(levels)]
    (back,) = [index for index, step in enumerate(steps) if step != 1]  # the second connection counts from the start
    assert back >= 7 and steps[back] < 0
    assert levels[0] == pytest.approx(levels[back + 1], abs=2)


def test_command_of_the_document_fills_a_group(
    server: Server, artifacts: Any, tmp_path: Path, ccnet: Callable[..., Any]
) -> None:
    zarr = pytest.importorskip("zarr")
    (command,) = re.findall(r"^ccnet (stream rtsp://.*)$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    command = command.replace("rtsp://camera/stream", server.url).replace("9100", str(tmp_path / "stream.prom"))
    command = command.replace("cubes.zarr", str(tmp_path / "cubes.zarr"))
    result = ccnet(*command.split(), "--artifacts", artifacts[1], "--frames", 2, "--policy", "block")
    assert result.code == 0 and "2 frames arrived: 2 delivered" in result.out
    group = zarr.open_group(str(tmp_path / "cubes.zarr"), mode="r")
    assert [group[name].shape for name in sorted(group)] == [(31, 48, 64)] * 2
    assert "ccnet_frames_delivered_total 2.0" in (tmp_path / "stream.prom").read_text()


def test_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CCNetError, match="OpenCV cannot open it"):
        parse_source("rtsp://127.0.0.1:9/grey").open()
