"""Cameras through Aravis, with its fake GigE Vision camera on 127.0.0.1, where Debian's Aravis is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream import pipeline
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.sources.parse import parse_source
from ccnet.runtime.stream.sources.source import FrameTimeoutError, Source, SourceSpec
from tests.runtime.stream.fake_aravis import require_aravis

Aravis = require_aravis()

SMALL = "aravis:127.0.0.1?Width=64&Height=48&PixelFormat="


class FakeCamera:
    """Aravis' fake camera, which answers by GigE Vision's protocols until its object is freed."""

    def __init__(self) -> None:
        self._camera: Any = None
        self.switch_on()

    def switch_on(self) -> None:
        self._camera = Aravis.GvFakeCamera.new("127.0.0.1", "GV01")

    def switch_off(self) -> None:
        self._camera = None

    def lose_packets(self, ratio: float) -> None:
        self._camera.set_property("gvsp-lost-ratio", ratio)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeCamera]:
    camera = FakeCamera()
    yield camera
    camera.switch_off()


def read_frames(text: str, count: int = 1, **options: Any) -> list[np.ndarray]:
    source = parse_source(text, **options).open()
    frames: list[np.ndarray] = []
    patience = 20
    try:
        while len(frames) < count:
            try:
                frame = source.read()
            except FrameTimeoutError:
                patience -= 1
                if not patience:
                    raise
            else:
                assert frame is not None and frame[0] == ""
                frames.append(frame[1])
        return frames
    finally:
        source.close()


@pytest.mark.parametrize(
    ("format", "options", "shape", "dtype"),
    [
        ("RGB8", {}, (48, 64, 3), "uint8"),
        ("BayerRG8", {"bayer": "RGGB"}, (48, 64), "uint8"),
        ("BayerGB8", {"bayer": "GBRG"}, (48, 64), "uint8"),
        ("Mono16", {"bayer": "RGGB", "bits": 16}, (48, 64), "uint16"),
    ],
)
def test_frames_come_in_the_format_of_the_camera(
    fake: FakeCamera, format: str, options: Any, shape: tuple[int, ...], dtype: str
) -> None:
    frames = read_frames(SMALL + format, 6, **options)  # more than the stream has buffers
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {(shape, dtype)}
    assert len({frame.tobytes() for frame in frames}) == 6  # the pattern moves


@pytest.mark.parametrize("text", ["aravis:?", "aravis:Aravis-Fake-GV01?"])
def test_camera_is_found_by_its_name_or_as_the_first(fake: FakeCamera, text: str) -> None:
    assert read_frames(text + SMALL.partition("?")[2] + "RGB8")[0].shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("aravis:127.0.0.1?PixelFormat=Mono8", "PixelFormat is Mono8, one sample a pixel, expected R, G and B"),
        ("aravis:127.0.0.1?PixelFormat=Mono8", "or set ?PixelFormat=RGB8"),
        ("aravis:127.0.0.1?PixelFormat=Green", "cannot be opened ([PixelFormat] 'Green' not an entry)"),
        ("aravis:127.0.0.1?Colour=1", "cannot be opened ([Colour] Not found)"),
    ],
)
def test_camera_with_other_features_is_refused_in_one_line(fake: FakeCamera, text: str, words: str) -> None:
    with pytest.raises(CCNetError) as refusal:
        parse_source(text).open()
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_missing_camera_is_an_error_that_lists_the_others(fake: FakeCamera) -> None:
    with pytest.raises(
        CCNetError, match=r"looked for nobody on networks \(GigE Vision\) and USB3, found Aravis-Fake-GV01"
    ):
        parse_source("aravis:nobody").open()


def test_missing_aravis_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gi.repository.Aravis", None)
    with pytest.raises(CCNetError, match=r"apt install gir1\.2-aravis-0\.8 python3-gi"):
        parse_source("aravis:").open()


def test_lost_packets_make_damaged_frames(fake: FakeCamera) -> None:
    fake.lose_packets(0.5)
    try:
        with pytest.raises(CCNetError, match=r"an incomplete buffer came \(missing packets\)") as damage:
            read_frames("aravis:127.0.0.1?Width=256&Height=256&PixelFormat=RGB8", 8)
    finally:
        fake.lose_packets(0.0)
    assert type(damage.value) is CCNetError  # neither gone nor late


def test_camera_that_disappears_is_opened_again(fake: FakeCamera, grey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "FIRST_RECONNECT_WAIT_S", 0.01)
    spec = parse_source(SMALL + "RGB8")
    steps = iter([lambda: None, fake.switch_on])

    def open_() -> Source:
        next(steps)()
        return spec.open()

    stream = Stream(
        source=SourceSpec(spec.name, True, open_),
        sinks=[],
        reconstructor=grey,
        prepare=lambda pixels: pixels,
        context=ContextPolicy("every:1"),
        policy="block",
        max_frames=10,
    )

    def switch_off_once() -> None:
        if stream.ledger.counts().arrived >= 5 and offs:
            offs.pop()()

    offs = [fake.switch_off]
    counts = stream.run(switch_off_once)
    assert counts.arrived == counts.kept + counts.delivered == 10
    assert stream.metrics.reconnects == 1 and not offs
