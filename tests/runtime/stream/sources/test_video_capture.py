"""Videos through OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.sources.parse import parse_source


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


def test_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "video.avi").write_bytes(b"none")
    with pytest.raises(CCNetError, match="OpenCV cannot open it"):
        parse_source(str(tmp_path / "video.avi")).open()


def test_video_says_how_many_frames_it_has(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 32))
    for _ in range(3):
        writer.write(np.zeros((32, 64, 3), np.uint8))
    writer.release()
    assert parse_source(str(tmp_path / "v.avi")).open().expected == 3
