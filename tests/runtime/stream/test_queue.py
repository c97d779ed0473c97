"""The queue: its policies, and frames that wait for room when it is closed."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.runtime.stream.ledger import FrameLedger
from ccnet.runtime.stream.queue import FrameQueue
from ccnet.runtime.stream.sources.source import CapturedFrame

FRAME = np.zeros((4, 4, 3), np.uint8)


@given(st.lists(st.sampled_from(["put", "get"]), max_size=40), st.integers(1, 5))
def test_drop_oldest_keeps_the_newest(steps: list[str], size: int) -> None:
    ledger = FrameLedger()
    queue = FrameQueue(ledger, "drop-oldest", size)
    expected: list[int] = []
    for number, step in enumerate(steps):
        if step == "put":
            assert queue.put(CapturedFrame(number, "", 0, FRAME))
            expected = [*expected, number][-size:]
        elif expected:
            frame = queue.get(0)
            assert frame is not None and frame.frame_id == expected.pop(0)
    assert len(queue) == len(expected)


def test_latest_keeps_one_frame() -> None:
    queue = FrameQueue(FrameLedger(), "latest", 7)
    for number in range(3):
        queue.put(CapturedFrame(number, "", 0, FRAME))
    frame = queue.get(0)
    assert frame is not None and frame.frame_id == 2
    with pytest.raises(TimeoutError):
        queue.get(0)


def test_block_waits_and_a_closed_queue_still_gives_waiting_frames() -> None:
    ledger = FrameLedger()
    queue = FrameQueue(ledger, "block", 1)
    queue.put(CapturedFrame(0, "", 0, FRAME))
    waiting = threading.Thread(target=queue.put, args=(CapturedFrame(1, "", 0, FRAME),))
    waiting.start()
    while ledger.counts().arrived < 2:
        time.sleep(0.001)
    queue.close()
    got = [queue.get(10), queue.get(10), queue.get(10)]
    waiting.join(10)
    assert [frame and frame.frame_id for frame in got] == [0, 1, None]
    assert not queue.put(CapturedFrame(2, "", 0, FRAME))
    assert ledger.counts().arrived == 2  # the refused frame never arrived
