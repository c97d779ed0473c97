"""Raw video from a pipe, and its end inside a frame."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.sources.raw_video import RawVideo


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


def test_pipe_does_not_say_how_many_frames_come() -> None:
    assert RawVideo(0, (4, 4, 3), "u1").expected is None
