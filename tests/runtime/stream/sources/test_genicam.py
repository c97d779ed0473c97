"""GenICam cameras through harvesters, with the simulated producer of the genicam package: three cameras, RGBa8."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.sources.parse import parse_source
from ccnet.runtime.stream.sources.source import FrameTimeoutError, Source, SourceDisconnectedError

genicam = pytest.importorskip("genicam", reason='needs pip install ".[genicam]"')
pytest.importorskip("harvesters", reason='needs pip install ".[genicam]"')

PRODUCER = Path(genicam.__path__[0]) / "viky.cti"
if not PRODUCER.exists():
    pytest.skip("the genicam package of this platform brings no simulated producer", allow_module_level=True)


@pytest.fixture
def camera(request: pytest.FixtureRequest) -> Iterator[Source]:
    """A camera, opened with the features that the test names."""
    source = parse_source(f"genicam:{PRODUCER}{getattr(request, 'param', '')}").open()
    yield source
    source.close()


@pytest.mark.parametrize(
    ("camera", "ball"),
    [("", 0), ("?device=1", 1), ("?device=VikyTL_DEV_blue", 2)],
    indirect=["camera"],
)
def test_frames_of_the_chosen_camera_come_as_rgb(camera: Source, ball: int) -> None:
    for _ in range(6):  # more than the producer has buffers
        name, pixels = camera.read() or ("end", np.empty(0))
        assert (name, pixels.shape, pixels.dtype) == ("", (400, 400, 3), np.uint8)
    coloured = (pixels != 255).any(2)  # a ball in one colour on white
    assert 50 < coloured.sum() < 40000
    np.testing.assert_array_equal(pixels[coloured].argmax(1), ball)
    assert camera.colour == "sRGB (assumed)" and camera.expected is None


def test_features_are_set_and_mosaics_come_as_recorded() -> None:
    source = parse_source(f"genicam:{PRODUCER}?PixelFormat=Mono8&AcquisitionFrameRate=200", bayer="RGGB").open()
    start = time.monotonic()
    frames = [source.read() for _ in range(21)]
    source.close()
    assert time.monotonic() - start < 20 / 20  # the camera's own rate is 20 a second
    assert {(frame[1].shape, frame[1].dtype.name) for frame in frames if frame} == {((400, 400), "uint8")}


def test_producers_are_found_by_their_environment_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.cti").write_bytes(b"another maker's, badly installed")
    monkeypatch.setenv("GENICAM_GENTL64_PATH", os.pathsep.join([str(tmp_path), str(PRODUCER.parent), "none"]))
    source = parse_source("genicam:?device=2").open()
    assert source.read() is not None
    source.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("genicam:", "genicam:: names no GenTL producer and GENICAM_GENTL64_PATH is not set"),
        ("genicam:none.cti", "no GenTL producer, looked for none.cti or .cti files in it"),
        (f"genicam:{__file__}", "test_genicam.py is no GenTL producer"),
        (f"genicam:{PRODUCER}?device=7", "no camera '7', found VikyTL_DEV_red, VikyTL_DEV_green, VikyTL_DEV_blue"),
        (f"genicam:{PRODUCER}?Colour=1", "the camera has no feature 'Colour' that takes a value"),
        (f"genicam:{PRODUCER}?PixelFormat=RGB8", "cannot be opened (Feature 'PixelFormat'"),
        (f"genicam:{PRODUCER}?AcquisitionFrameRate=1e9", "must be smaller than or equal 200"),
        (f"genicam:{PRODUCER}?PixelFormat=Mono8", "PixelFormat is Mono8, one sample a pixel"),
        (f"genicam:{PRODUCER}?PixelFormat=Mono8", "or set ?PixelFormat=RGBa8"),  # it has no RGB8
    ],
)
def test_camera_that_cannot_be_opened_is_an_error_of_one_line(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    with pytest.raises(CCNetError) as refusal:
        parse_source(text).open()
    assert words in str(refusal.value) and "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")  # harvesters logs nothing


def test_camera_in_use_is_refused(camera: Source) -> None:
    with pytest.raises(
        CCNetError, match=r"no camera '0', found none through .*viky.cti: is it connected and not in use\?"
    ):
        parse_source(f"genicam:{PRODUCER}").open()
    assert camera.read() is not None


def test_incomplete_buffer_is_a_damaged_frame(camera: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    camera.read()
    with monkeypatch.context() as patch:
        patch.setattr(genicam.gentl.Buffer, "is_complete", lambda self: False)
        with pytest.raises(CCNetError, match="an incomplete buffer came") as damage:
            camera.read()
    assert type(damage.value) is CCNetError  # neither gone nor late
    assert camera.read() is not None


@pytest.mark.parametrize("camera", ["?AcquisitionFrameRate=1"], indirect=True)
def test_slow_camera_is_late_and_not_gone(camera: Source) -> None:
    late = 0
    frame = None
    while frame is None:
        with suppress(FrameTimeoutError):
            late += 1
            frame = camera.read()
    assert 1 < late < 6


def test_camera_that_is_gone_can_be_opened_again(camera: Any) -> None:
    camera.read()
    camera._camera.device.module.close()  # as when the cable is pulled: the producer's handle is no longer valid
    with pytest.raises(SourceDisconnectedError, match="the camera is gone"):
        camera.read()
    with pytest.raises(camera._errors):
        camera._check_presence()
    camera.close()
    again = parse_source(f"genicam:{PRODUCER}").open()
    assert again.read() is not None
    again.close()


def test_handler_of_interrupts_stays() -> None:
    handler = signal.getsignal(signal.SIGINT)
    parse_source(f"genicam:{PRODUCER}").open().close()
    assert signal.getsignal(signal.SIGINT) is handler


def test_stream_of_a_waiting_camera_stops_at_once(grey: Any) -> None:
    stream = Stream(
        source=parse_source(f"genicam:{PRODUCER}?AcquisitionFrameRate=1"),
        sinks=[],
        reconstructor=grey,
        prepare=lambda pixels: pixels,
        context=ContextPolicy("every:1"),
        policy="latest",
    )
    stopped = []
    threading.Timer(1.2, lambda: (stopped.append(time.monotonic()), stream.stop())).start()
    counts = stream.run()
    assert time.monotonic() - stopped[0] < 2
    assert counts.arrived == counts.delivered + counts.dropped + counts.kept > 0
    assert "ccnet-capture" not in {thread.name for thread in threading.enumerate()}  # the camera was closed
