"""Frames in progress: order, errors, waiting and closing."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from ccnet.runtime import AsyncReconstructor
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from tests.runtime.conftest import (
    Spy,
    fake,
    open_camera,
    pixels,
    refusal,
)


def test_slots_give_cubes_in_order_and_errors_to_their_frames(folder: Path) -> None:
    frames = [pixels(40, 50, seed=seed) for seed in range(5)]
    outs = [np.empty((31, 40, 50), np.float32) for _ in range(2)]
    with open_camera(folder) as reconstruct, AsyncReconstructor(reconstruct) as slots:
        cubes = [reconstruct(frame) for frame in frames]
        for number, frame in enumerate(frames):
            future = slots.submit(frame, out=outs[number % 2])
            assert future.result(60) is outs[number % 2]
            np.testing.assert_array_equal(future.result(), cubes[number])
        refusal(slots.submit(frames[0][..., 0]).result, "frame is uint8")
        last = slots.submit(frames[1])
    np.testing.assert_array_equal(last.result(0), cubes[1])  # close has finished it
    refusal(lambda: slots.submit(frames[0]), "the slots are closed")


def test_third_frame_waits_for_a_free_slot(folder: Path) -> None:
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    with (
        fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder) as reconstruct,
        AsyncReconstructor(reconstruct) as slots,
    ):
        decoder.gate.clear()
        futures = [slots.submit(pixels(20, 20)) for _ in range(2)]
        third = threading.Thread(target=lambda: futures.append(slots.submit(pixels(20, 20))))
        third.start()
        third.join(0.05)
        assert third.is_alive() and len(futures) == 2
        decoder.gate.set()
        third.join(60)
        assert [future.result(60).shape for future in futures] == [(31, 20, 20)] * 3


def test_close_from_another_thread_lets_no_frame_crash(folder: Path) -> None:
    for delay in (0, 0.001, 0.003, 0.01):
        reconstruct = open_camera(folder, tile=48)
        with AsyncReconstructor(reconstruct) as slots:
            future = slots.submit(pixels(200, 200))
            threading.Timer(delay, reconstruct.close).start()
            error = future.exception(60)
        assert error is None or "is closed" in str(error)
        reconstruct.close()
