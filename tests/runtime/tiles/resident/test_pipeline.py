"""The driver calls of a frame, and the errors when memory, values or engines are not as they should be."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import Device, PinnedMemory
from ccnet.runtime.tiles.host_path import HostPath
from ccnet.runtime.tiles.resident.path import ResidentPath
from tests.runtime.conftest import pixels

from .conftest import gpu, on_host, resident

COSTLY = ("cuMemAlloc", "cuMemFree", "cuMemHost", "cuEventCreate", "cuStreamCreate", "cuStreamBeginCapture")


def costly(calls: Counter[str]) -> dict[str, int]:
    """Return the calls that allocate or create something, or wait."""
    return {name: count for name, count in calls.items() if name.startswith(COSTLY) or "Synchronize" in name}


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("given", [False, True], ids=["own context", "context of an earlier frame"])
def test_a_frame_allocates_nothing_and_waits_once(engines: Path, integrated: bool, given: bool) -> None:
    frame = pixels(150, 160)
    with gpu(0, integrated) as driver, resident(engines, tile=64) as reconstructor:
        context = reconstructor.encode(frame) if given else None
        memory = PinnedMemory(Device(), 31 * 150 * 160 * 4)
        out = memory.array((31, 150, 160), np.float32)
        for _ in range(2):  # the first frame allocates, and the second captures the graphs of encode
            reconstructor(frame, context, out=out)
        before = driver.calls.copy()
        reconstructor(frame, context, out=out)
        frame_calls = driver.calls - before
        assert costly(frame_calls) == {"cuStreamSynchronize": 1}
        tiles, encodes = 16, 0 if given else 1
        assert frame_calls["cuGraphLaunch"] == tiles + encodes
        # A tile: its pixels, its part of the cube, the sum. The uploads are those of the frame, and of its context or
        # the means for it; where host and GPU share their memory, there are none
        uploads = 0 if integrated else 2
        copies = sum(count for name, count in frame_calls.items() if name.startswith("cuMemcpy"))
        assert copies == 3 * tiles + encodes + uploads
        memory.close()


def test_the_host_copies_a_tile_while_the_next_runs(engines: Path) -> None:
    with gpu(0, integrated=False) as driver, resident(engines, tile=64) as reconstructor:
        frame = pixels(150, 160)
        reconstructor(frame)
        before = driver.calls.copy()
        reconstructor(frame)
        assert costly(driver.calls - before).keys() <= {"cuEventSynchronize", "cuStreamBeginCapture_v2"}
        assert (driver.calls - before)["cuEventSynchronize"] == 16, "once for each tile, after the next was queued"


def test_lack_of_memory_halves_the_tiles(engines: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pixels(150, 160)
    with (
        gpu(0, integrated=False) as driver,
        resident(engines, tile=96) as tested,
        on_host(engines, tile=48) as reference,
    ):
        driver.capacity = 1_400_000
        with caplog.at_level(logging.WARNING, "ccnet.runtime.reconstructor"):
            cube = tested(frame)
        assert "from now on tiles are at most 48 px" in caplog.text
        assert tested.tile == 48
        np.testing.assert_array_equal(cube, reference(frame))
        driver.capacity = 100_000
        with pytest.raises(CCNetError, match="CUDA_ERROR_OUT_OF_MEMORY"):
            tested(pixels(150, 400))


def test_blocks_grow_until_encode_fits_with_one_warning(engines: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The scratch memory of ``encode`` is 1.8 MB for the whole frame, and 0.5 MB for means of blocks of 2 px."""
    frame = pixels(90, 96)
    with (
        gpu(0, integrated=False, encode_scratch=200) as driver,
        resident(engines, tile=48) as tested,
        on_host(engines, tile=48, encode_pixels=90 * 96 // 2) as reference,
        caplog.at_level(logging.WARNING, "ccnet.runtime.reconstructor"),
    ):
        driver.capacity = 1_500_000
        cube = tested(frame)
        np.testing.assert_array_equal(cube, reference(frame))
        np.testing.assert_array_equal(tested(frame), cube)
        (record,) = caplog.records
        assert "CUDA_ERROR_OUT_OF_MEMORY" in record.getMessage()
        assert record.getMessage().endswith("from now on encode reads means of at most 4320 blocks of a frame")
        assert tested.tile == 48, "tiles are as before"


def test_values_that_are_not_finite_are_an_error_that_names_the_rows(engines: Path) -> None:
    frame, huge = pixels(150, 90), np.full((1, 3), 3e38, np.float32)
    with (
        gpu(0, integrated=False) as driver,
        resident(engines, tile=64) as tested,
        on_host(engines, tile=64) as reference,
    ):
        with pytest.raises(CCNetError, match=r"the cube holds NaN or infinite values at rows 0 to \d+: the weights"):
            tested(frame, huge)
        assert not driver._streams.work.pending, "an error leaves when all work is done"
        np.testing.assert_array_equal(tested(frame), reference(frame))
        with pytest.raises(CCNetError, match=r"context is float32 \(1, 4\), expected float32 \(1, 3\)"):
            tested(frame, np.zeros((1, 4), np.float32))


def test_engines_of_version_0_1_0_take_the_hosts_path(engines: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pixels(100, 90)
    with gpu(0, integrated=False, has_sum=False), on_host(engines, tile=64) as reference:
        with caplog.at_level(logging.WARNING), resident(engines, tile=64) as tested:
            assert isinstance(tested._path, HostPath)
            np.testing.assert_array_equal(tested(frame), reference(frame))
        assert "ccnet build builds faster ones" in caplog.text


def test_threads_take_turns(engines: Path) -> None:
    frames = [pixels(100, 90, seed=seed) for seed in range(4)]
    with gpu(3, integrated=False), resident(engines, tile=64) as tested, on_host(engines, tile=64) as reference:
        assert isinstance(tested._path, ResidentPath)
        cubes: dict[int, object] = {}
        threads = [
            threading.Thread(target=lambda index=index: cubes.__setitem__(index, tested(frames[index])))
            for index in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index, frame in enumerate(frames):
            np.testing.assert_array_equal(cubes[index], reference(frame))


def test_a_closed_path_says_so(engines: Path) -> None:
    with gpu(0, integrated=False):
        reconstructor = resident(engines, tile=64)
        reconstructor(pixels(50, 60))
        reconstructor.close()
        reconstructor.close()
        with pytest.raises(CCNetError, match="the reconstructor is closed"):
            reconstructor(pixels(50, 60))


def test_a_forked_process_is_refused_and_frees_nothing(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pixels(50, 60)
    with gpu(0, integrated=False), resident(engines, tile=64) as reconstructor:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            with pytest.raises(CCNetError, match="opened before this process was forked"):
                reconstructor(frame)
            reconstructor.close()
        reconstructor(frame)
