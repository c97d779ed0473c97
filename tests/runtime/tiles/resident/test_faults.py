"""Faults that are planted in the pipeline make the comparison with the host's path fail: it would find real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import Device, Event, PinnedMemory, Stream
from ccnet.runtime.gpu.views import View
from ccnet.runtime.tiles.resident.frame_memory import FrameMemory
from ccnet.runtime.tiles.resident.memory import TransferMemory
from ccnet.runtime.tiles.resident.pipeline import Pipeline
from ccnet.runtime.tiles.resident.tile_slot import TileSlot
from tests.runtime.conftest import pixels

from .conftest import gpu, on_host, resident

Plant = Callable[[pytest.MonkeyPatch], None]


def missing_event(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No stream waits for one of the two events of a slot."""
    initialise, wait, ignored = TileSlot.__init__, Stream.wait, list[Event]()

    def remember(slot: TileSlot, *args: Any) -> None:
        initialise(slot, *args)
        ignored.append(getattr(slot, name))

    monkeypatch.setattr(TileSlot, "__init__", remember)
    monkeypatch.setattr(Stream, "wait", lambda stream, event: None if event in ignored else wait(stream, event))


def copy_before_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile's part of the cube is copied before it is there."""
    missing_event(monkeypatch, "_decoded")


def decode_before_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile overwrites the cube of an earlier one that is still being copied."""
    missing_event(monkeypatch, "_copied")


def wrong_pitch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the frame are taken to be a pixel longer than they are."""
    pixels: Any = FrameMemory.pixels

    def stretched(frame: FrameMemory) -> View:
        view: View = pixels.fget(frame)
        row, column, channel = view.strides
        return dataclasses.replace(view, strides=(row + column, column, channel))

    monkeypatch.setattr(FrameMemory, "pixels", property(stretched))


def stale_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context of the first frame is taken for all frames."""
    set_context, given = Pipeline.set_context, list[Any]()

    def set_first(pipeline: Pipeline, context: Any) -> None:
        given.append(context)
        set_context(pipeline, given[0])

    monkeypatch.setattr(Pipeline, "set_context", set_first)


def early_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page-locked pixels are freed when their upload is queued, not when it is done."""
    upload = TransferMemory.upload

    def upload_and_free(memory: TransferMemory, stream: Stream, nbytes: int) -> None:
        upload(memory, stream, nbytes)
        memory._close_host()

    monkeypatch.setattr(TransferMemory, "upload", upload_and_free)


def swapped_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile's part of the cube is copied from the other tile's buffer."""
    open_slots = Pipeline.decode_into

    def swap(pipeline: Pipeline, *args: Any, **options: Any) -> None:
        first, second = (slot._cube for slot in pipeline._tile_slots)
        copy_out = TileSlot.copy_out

        def copy_other(slot: TileSlot, *args: Any) -> None:
            slot._cube = second if slot._cube is first else first
            copy_out(slot, *args)
            slot._cube = second if slot._cube is first else first

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(TileSlot, "copy_out", copy_other)
            open_slots(pipeline, *args, **options)

    monkeypatch.setattr(Pipeline, "decode_into", swap)


def compare(folder: Path, seed: int) -> None:
    """Compare frames of several tiles in both paths, each with a context of its own, in page-locked memory."""
    frames = [pixels(100, 120, seed=number) for number in range(3)]
    with on_host(folder, tile=64) as reference:
        expected = [(reference.encode(frame), reference(frame)) for frame in frames]
    with gpu(seed, integrated=False), resident(folder, tile=64) as tested:
        memory = PinnedMemory(Device(), expected[0][1].nbytes)
        out = memory.array(expected[0][1].shape, np.float32)
        for frame, (context, cube) in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(tested(frame, context, out=out), cube)
        memory.close()


@pytest.mark.parametrize("seed", range(4))
def test_without_a_fault_the_paths_are_equal(engines: Path, seed: int) -> None:
    compare(engines, seed)


@pytest.mark.parametrize(
    "plant", [copy_before_decode, decode_before_copy, wrong_pitch, stale_context, early_free, swapped_buffers]
)
def test_a_planted_fault_is_found(engines: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = 0
    for seed in range(6):
        try:
            compare(engines, seed)
        except (AssertionError, CCNetError):  # a wrong cube, NaN of poisoned memory, or misuse of the driver
            found += 1
    assert found >= 2, "no seed, or hardly any, shows the fault"
