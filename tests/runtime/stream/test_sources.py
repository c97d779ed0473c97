"""Sources: videos, raw video, and names that are refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.sources import RawVideo, parse_source


def test_video_gives_its_frames_as_rgb(tmp_path: Path) -> None:
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
def test_invalid_sources_are_refused(text: str, size: str | None, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        parse_source(text, size)


@pytest.mark.parametrize("text", ["0", "rtsp://127.0.0.1:1/none", "/dev/video99", "videotestsrc ! appsink"])
def test_cameras_are_live(text: str) -> None:
    assert parse_source(text).live


def test_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "video.avi").write_bytes(b"none")
    with pytest.raises(CCNetError, match="OpenCV cannot open it"):
        parse_source(str(tmp_path / "video.avi")).open()
