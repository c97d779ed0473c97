"""Streams: every frame is delivered, dropped by the policy or rejected with a reason, whatever happens when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime import Reconstructor, read_cube
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.stream import pipeline as stream
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.ledger import FrameLedger
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.queue import FrameQueue, Policy
from ccnet.runtime.stream.sources import CapturedFrame, RawVideo, SourceDisconnectedError, SourceSpec, parse_source

POLICIES = st.sampled_from(["latest", "block", "drop-oldest"])
FRAME = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_POLL", "_FIRST_WAIT", "_LONGEST_WAIT"):
        monkeypatch.setattr(stream, name, 0.001)


# ---------------------------------------------------------------------------------------------------------------------
# What stands around a stream


class Script:
    """A source that does what a list says: give, damage (a bad frame), go (the camera disappears), slow."""

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
    """A sink that remembers which cubes it has, and refuses those whose turn is in ``refused``."""

    name = "memory"

    def __init__(self, refused: set[int] | None = None, pause: float = 0) -> None:
        self.cubes: list[str] = []
        self._refused, self._pause, self._turn = refused or set(), pause, -1

    @contextmanager
    def cube(self, name: str, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[Any]:
        self._turn += 1
        if self._turn in self._refused:
            raise CCNetError("full")
        yield self
        time.sleep(self._pause)
        self.cubes.append(name)

    def write(self, top: int, strip: Any) -> None:
        assert strip.shape == (31, 4, 4)

    def close(self) -> None: ...


class Grey:
    """A reconstructor that fails at the turns in ``broken``."""

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


# ---------------------------------------------------------------------------------------------------------------------
# The account


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
    steps: list[str], refused: set[int], broken: set[int], policy: Policy, size: int, stops: list[int]
) -> None:
    sink = Memory(refused)
    running, source = make(steps, sink, reconstructor=Grey(broken), policy=policy, queue=size)
    beats = 0

    def idle() -> None:
        nonlocal beats
        for at in stops:
            if at == beats:
                running.stop()
        beats += 1

    tally = running.run(idle)
    assert tally.in_flight == 0
    assert tally.arrived == tally.delivered + tally.dropped + sum(tally.rejected.values())
    assert tally.delivered == len(sink.cubes) == len(set(sink.cubes))
    assert sink.cubes == sorted(sink.cubes)
    assert tally.arrived in (source.given, source.given - 1)  # one that comes after the stop is not taken
    if not stops:
        assert tally.arrived == source.given == len(steps) - steps.count("go")
        assert tally.rejected.get("source", 0) + tally.dropped >= steps.count("damage")
    if policy == "block" and len(stops) < 2:
        assert tally.dropped == 0


@given(st.lists(st.sampled_from(["put", "get"]), max_size=40), st.integers(1, 5))
def test_drop_oldest_keeps_the_newest(steps: list[str], size: int) -> None:
    account = FrameLedger()
    queue = FrameQueue(account, "drop-oldest", size)
    expected: list[int] = []
    for number, step in enumerate(steps):
        if step == "put":
            assert queue.put(CapturedFrame(number, "", 0, FRAME))
            expected = [*expected, number][-size:]
        elif expected:
            shot = queue.get(0)
            assert shot is not None and shot.frame_id == expected.pop(0)
    assert len(queue) == len(expected)


def test_latest_keeps_one_frame() -> None:
    queue = FrameQueue(FrameLedger(), "latest", 7)
    for number in range(3):
        queue.put(CapturedFrame(number, "", 0, FRAME))
    shot = queue.get(0)
    assert shot is not None and shot.frame_id == 2
    with pytest.raises(TimeoutError):
        queue.get(0)


def test_block_waits_and_a_closed_queue_gives_what_waits_for_room() -> None:
    account = FrameLedger()
    queue = FrameQueue(account, "block", 1)
    queue.put(CapturedFrame(0, "", 0, FRAME))
    waiting = threading.Thread(target=queue.put, args=(CapturedFrame(1, "", 0, FRAME),))
    waiting.start()
    while account.tally().arrived < 2:
        time.sleep(0.001)
    queue.close()
    got = [queue.get(10), queue.get(10), queue.get(10)]
    waiting.join(10)
    assert [shot and shot.frame_id for shot in got] == [0, 1, None]
    assert not queue.put(CapturedFrame(2, "", 0, FRAME))
    assert account.tally().arrived == 2  # the refused frame never arrived


def test_an_account_that_does_not_balance_is_refused() -> None:
    account = FrameLedger()
    account.arrive(3)
    account.deliver(3)
    for wrong in (lambda: account.arrive(3), lambda: account.deliver(3), lambda: account.drop(4)):
        with pytest.raises(ValueError, match="frame"):
            wrong()
    assert str(account.tally()) == "1 frames arrived: 1 delivered, 0 dropped by policy, 0 rejected"


# ---------------------------------------------------------------------------------------------------------------------
# Life


def test_reasons_and_causes_are_told() -> None:
    sink = Memory(refused={1})
    running, _ = make(["damage", "give", "give", "give", "give"], sink, reconstructor=Grey({2}))
    tally = running.run()
    assert tally.rejected == {"source": 1, "sink": 1, "reconstruction": 1}
    assert running.account.reasons == ["frame 0: torn", "frame 2: full", "frame 4: NaN"]
    assert sink.cubes == ["00000001", "00000003"]


def test_an_error_of_the_system_rejects_its_frame_only() -> None:
    def prepare(pixels: Any) -> Any:
        raise OSError(28, "No space left on device")

    running, _ = make(["give"] * 3, Memory(), prepare=prepare)
    assert running.run().rejected == {"radiometry": 3}
    assert "No space left" in running.account.reasons[0]


def test_a_camera_that_comes_back_goes_on_with_its_ids() -> None:
    sink = Memory()
    running, source = make(["give", "go", "give", "go", "go", "give"], sink)
    assert running.run().delivered == 3
    assert sink.cubes == ["00000000", "00000001", "00000002"]
    assert running.pulse.reconnects == 3 and source.closed == 4


def test_a_camera_that_gives_no_frame_is_waited_for_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_FIRST_WAIT", 1)
    monkeypatch.setattr(stream, "_LONGEST_WAIT", 5)
    waits: list[float] = []
    running, _ = make(["go", "go", "go", "go", "go", "give", "go", "go", "give"], Memory())
    monkeypatch.setattr(running, "_stopped_within", waits.append)  # never
    assert running.run().delivered == 2
    assert waits == [1, 2, 4, 5, 5, 1, 2]


def test_a_camera_that_stays_away_can_be_stopped() -> None:
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


def test_a_source_that_is_not_there_at_first_is_an_error() -> None:
    running, _ = make([], Memory())
    running.source = SourceSpec("camera", True, _not_there)
    with pytest.raises(CCNetError, match="not there"):
        running.run()


def _not_there() -> Any:
    raise SourceDisconnectedError("not there")


def test_an_error_of_the_program_ends_the_stream_after_the_frames_before_it() -> None:
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
    assert len(sink.cubes) == 2 and running.account.tally().in_flight == 0


def test_one_stop_finishes_what_waits_and_two_drop_it() -> None:
    for stops in (1, 2):
        sink = Memory(pause=0.01)
        running, _ = make(["give"] * 5, sink, queue=5)

        def stop_once_all_are_here(running: Stream = running, stops: int = stops) -> None:
            if running.account.tally().arrived == 5 and not running._stops:
                for _ in range(stops):
                    running.stop()

        tally = running.run(stop_once_all_are_here)
        assert tally.arrived == 5
        assert (tally.dropped == 0) == (stops == 1)


# ---------------------------------------------------------------------------------------------------------------------
# Sources


def test_a_video_gives_its_frames_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 32))
    for level in (40, 80, 120):
        writer.write(np.full((32, 64, 3), (0, 0, level), np.uint8))  # red, as BGR
    writer.release()
    source = parse_source(str(path)).open()
    frames = []
    while got := source.read():
        frames.append(got[1])
    source.close()
    assert [frame.shape for frame in frames] == [(32, 64, 3)] * 3
    for frame, level in zip(frames, (40, 80, 120), strict=True):
        np.testing.assert_allclose(frame.mean((0, 1)), (level, 0, 0), atol=6)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("u1", (3, 5, 3)), ("<u2", (3, 5, 3)), ("<u2", (4, 6))], ids=["rgb8", "rgb16", "bayer16"]
)
def test_raw_video_is_read_frame_by_frame(dtype: str, shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, *shape)).astype(dtype)
    read, write = os.pipe()
    feeder = threading.Thread(target=_feed, args=(write, frames.tobytes() + b"torn"))
    feeder.start()
    source = RawVideo(read, shape, dtype)
    for frame in frames:
        got = source.read()
        assert got is not None
        np.testing.assert_array_equal(got[1], frame)
    with pytest.raises(CCNetError, match="ends with 4 bytes"):
        source.read()
    assert source.read() is None
    feeder.join()
    os.close(read)


def _feed(descriptor: int, data: bytes) -> None:
    for start in range(0, len(data), 7):
        os.write(descriptor, data[start : start + 7])
    os.close(descriptor)


@pytest.mark.parametrize(
    ("text", "size", "words"),
    [
        ("-", None, "--size WxH and the source '-' belong together"),
        ("frames", "4x4", "belong together"),
        ("-", "4", "--size is '4', expected WxH"),
        ("-", "0x4", "--size is '0x4'"),
        ("-", "²x4", "--size is '²x4'"),
        ("none.avi", None, "none.avi: no such file or folder"),
    ],
)
def test_sources_that_cannot_be_are_refused(text: str, size: str | None, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        parse_source(text, size)


@pytest.mark.parametrize("text", ["0", "rtsp://127.0.0.1:1/none", "/dev/video99", "videotestsrc ! appsink"])
def test_cameras_are_live(text: str) -> None:
    assert parse_source(text).live


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "video.avi").write_bytes(b"none")
    with pytest.raises(CCNetError, match="OpenCV cannot open it"):
        parse_source(str(tmp_path / "video.avi")).open()


# ---------------------------------------------------------------------------------------------------------------------
# The command


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"picture{number}.png")
    return folder


def test_a_folder_becomes_cubes(artifacts: Any, pictures: Path, tmp_path: Path, ccnet: Callable[..., Any]) -> None:
    (pictures / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    arguments = ("stream", pictures, "--sink", tmp_path / "cubes", "--artifacts", artifacts[1], "--space", "camera")
    result = ccnet(*arguments, "--metrics", tmp_path / "stream.prom")
    assert result.code == 0
    assert "4 frames arrived: 3 delivered, 0 dropped by policy, 1 rejected (source 1)" in result.out
    assert "torn.png" in result.out and result.err == ""
    with Reconstructor.open(artifacts[1], input_space="camera") as reconstruct:
        for picture in pictures.glob("picture*.png"):
            cube = read_cube(tmp_path / "cubes" / f"{picture.stem}.hdr")
            np.testing.assert_array_equal(cube, reconstruct(np.asarray(Image.open(picture))))
    header = (tmp_path / "cubes/picture1.hdr").read_text()
    assert "ccnet frame id = 1" in header and "ccnet context = every:1" in header
    lines = (tmp_path / "stream.prom").read_text().splitlines()
    assert {"ccnet_frames_delivered_total 3.0", 'ccnet_frames_rejected_total{cause="source"} 1.0'} <= set(lines)
    again = ccnet(*arguments)
    assert again.code == 1 and "4 rejected (sink 3, source 1)" in again.out and "is kept" in again.out


def run(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from ccnet.runtime.cli.main import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


def test_raw_bayer_frames_go_through_radiometry(artifacts: Any, tmp_path: Path) -> None:
    camera, cubes = tmp_path / "camera.json", tmp_path / "cubes"
    camera.write_text('{"bits": 12, "bayer": "RGGB", "black": [64, 64, 64]}')
    frames = np.random.default_rng(0).integers(64, 4096, (2, 32, 48)).astype("<u2")
    frames[1, 0, 0] = 4096  # a sample of 13 bits
    arguments = ("stream", "-", "--size", "48x32", "--radiometry", camera, "--sink", cubes, "--artifacts", artifacts[1])
    process = run(*arguments, stdin=subprocess.PIPE)
    out, _ = process.communicate(frames.tobytes(), timeout=120)
    assert process.returncode == 0 and b"1 delivered" in out and b"rejected (radiometry 1)" in out
    with Reconstructor.open(artifacts[1], input_space="camera") as reconstruct:
        expected = reconstruct(Radiometry.read(camera)(frames[0]))
    np.testing.assert_array_equal(read_cube(cubes / "00000000.hdr"), expected)
    assert "ccnet radiometry bayer = RGGB" in (cubes / "00000000.hdr").read_text()


def test_radiometry_and_srgb_exclude_each_other(tmp_path: Path, ccnet: Callable[..., Any]) -> None:
    (tmp_path / "camera.json").write_text("{}")
    result = ccnet("stream", "0", "--sink", "x", "--space", "srgb", "--radiometry", tmp_path / "camera.json")
    assert result.code == 2 and "choose one" in result.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_stream(artifacts: Any, tmp_path: Path, number: int) -> None:
    cubes = tmp_path / "cubes"
    arguments = ("stream", "-", "--size", "32x32", "--sink", cubes, "--artifacts", artifacts[1], "--queue", "64")
    process = run(*arguments, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(5 * 32 * 32 * 3))
    process.stdin.flush()
    wait_for(lambda: len(list(cubes.glob("*.hdr"))) >= 1)
    process.send_signal(number)  # the pipe stays open: the capturing thread waits in it
    process.wait(120)
    out, err = _outputs(process)
    assert (process.returncode, err) == (0, b"")
    delivered = len(list(cubes.glob("*.hdr")))
    assert f"{delivered} frames arrived: {delivered} delivered, 0 dropped".encode() in out


def _outputs(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What an ended process said; its pipes are closed."""
    assert process.stdout is not None and process.stderr is not None and process.stdin is not None
    with process.stdout, process.stderr, process.stdin:
        return process.stdout.read(), process.stderr.read()


def test_what_a_killed_stream_left_is_whole(artifacts: Any, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    cubes, group = tmp_path / "cubes", tmp_path / "cubes.zarr"
    arguments = ("stream", "-", "--size", "96x96", "--sink", cubes, "--sink", group, "--artifacts", artifacts[1])
    process = run(*arguments, stdin=subprocess.PIPE)
    assert process.stdin is not None
    feeder = threading.Thread(target=_pour, args=(process.stdin.fileno(), bytes(40 * 96 * 96 * 3)))
    feeder.start()
    wait_for(lambda: len(list(cubes.glob("*.hdr"))) >= 3)
    process.kill()
    process.wait(60)
    feeder.join(60)
    _outputs(process)
    headers = sorted(cubes.glob("*.hdr"))
    for header in headers:
        assert np.isfinite(read_cube(header)).all()
    arrays = [array[:] for _, array in zarr.open_group(str(group), mode="r").arrays()]
    assert len(arrays) >= 2
    assert all(array.shape == (31, 96, 96) and np.isfinite(array).all() and array.any() for array in arrays)


def _pour(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError):  # the reader was killed
        os.write(descriptor, data)
