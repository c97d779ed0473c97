"""Cubes of frames that stay on the GPU equal those of the host's path, bit for bit, whatever the order of the streams.

Both paths compute the same ONNX graphs, on one thread, so that a difference is a fault of the way to or from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccnet.runtime import Projection
from ccnet.runtime.gpu.cuda import Device, PinnedMemory
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError
from ccnet.runtime.tiles.resident import budget
from tests.runtime.conftest import pixels
from tests.runtime.gpu import engine_double
from tests.runtime.gpu.driver_double import Driver
from tests.runtime.gpu.engine_double import SCRATCH, EngineDouble

from .conftest import gpu, on_host, resident

Array = npt.NDArray[Any]

DTYPES = {"float32": ("uint8", "uint16", "float32"), "uint8": ("uint8",)}

shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)


def ran(driver: Driver) -> set[str]:
    """Return the kinds of the engines that have run."""
    return {"encode", "decode", "full"} & driver.calls.keys()


@shared_folder
@given(st.data())
def test_cubes_equal_those_of_the_hosts_path(engines: Path, data: st.DataObject) -> None:
    sizes = st.integers(1, 150)
    options = {"tile": data.draw(st.sampled_from([64, 80, 96])), "encode_pixels": data.draw(st.integers(500, 9000))}
    seed, integrated = data.draw(st.integers(0, 1000)), data.draw(st.booleans())
    with gpu(seed, integrated), resident(engines, **options) as tested, on_host(engines, **options) as reference:
        for _ in range(data.draw(st.integers(1, 3))):
            dtype = data.draw(st.sampled_from(DTYPES[tested.manifest.input]))
            frame = pixels(data.draw(sizes), data.draw(sizes), dtype, seed=data.draw(st.integers(0, 9)))
            context = data.draw(st.sampled_from([None, reference.encode(frame), np.full((1, 3), 0.5, np.float32)]))
            np.testing.assert_array_equal(tested(frame, context), reference(frame, context))


@shared_folder
@given(st.data())
def test_cubes_in_page_locked_memory_are_written_by_the_gpu(engines: Path, data: st.DataObject) -> None:
    sizes = st.integers(1, 150)
    seed, integrated = data.draw(st.integers(0, 1000)), data.draw(st.booleans())
    with gpu(seed, integrated), resident(engines, tile=64) as tested, on_host(engines, tile=64) as reference:
        memory = PinnedMemory(Device(), 31 * 150 * 150 * 4)
        for frame in (pixels(data.draw(sizes), data.draw(sizes), seed=frame) for frame in range(3)):
            out = memory.array((31, *frame.shape[:2]), np.float32)
            out[...] = -1
            assert tested(frame, out=out) is out
            np.testing.assert_array_equal(out, reference(frame))
        memory.close()


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("limit", [1, budget.FRAME_BYTES], ids=["a row of tiles at a time", "whole frame"])
def test_all_methods_equal_the_hosts_path(
    engines: Path, integrated: bool, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "FRAME_BYTES", limit)
    frame, projection = pixels(150, 130), Projection.bands(550, 700)
    with gpu(1, integrated), resident(engines, tile=64) as tested, on_host(engines, tile=64) as reference:
        whole, context, bands = reference(frame), reference.encode(frame), reference.project(frame, projection)
        np.testing.assert_array_equal(tested.encode(frame), context)
        for given in (None, context):
            np.testing.assert_array_equal(tested(frame, given), whole)
            np.testing.assert_array_equal(tested.project(frame, projection, given), bands)
            strips = [(top, strip.copy()) for top, strip in tested.strips(frame, given)]
            assert [top for top, _ in strips] == [top for top, _ in reference.strips(frame)]
            np.testing.assert_array_equal(np.concatenate([strip for _, strip in strips], axis=1), whole)
        tested.save(frame, tmp_path / "cube.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "cube.npy"), whole)


@pytest.mark.parametrize("integrated", [False, True])
def test_a_frame_of_one_tile_takes_one_pass(engines: Path, integrated: bool, tmp_path: Path) -> None:
    frame, projection = pixels(90, 70), Projection.bands(550, 700)
    with gpu(3, integrated) as driver, resident(engines) as tested, on_host(engines) as reference:
        assert tested.takes_one_pass(frame)
        assert tested.describe()["passes"].startswith("1 (full)")
        expected = reference(frame)
        for _ in range(3):  # an ordinary run, a captured one and a replayed one
            np.testing.assert_array_equal(tested(frame), expected)
        ((_, strip),) = tested.strips(frame)
        np.testing.assert_array_equal(strip, expected)
        np.testing.assert_array_equal(tested.project(frame, projection), reference.project(frame, projection))
        tested.save(frame, tmp_path / "cube.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "cube.npy"), expected)
        assert ran(driver) == {"full"}
        np.testing.assert_array_equal(tested(frame, reference.encode(frame)), expected)
        assert ran(driver) == {"full", "decode"}


@pytest.mark.parametrize(
    ("size", "options"),
    [((97, 90), {}), ((90, 97), {}), ((90, 90), {"encode_pixels": 90 * 90 - 1}), ((90, 90), {"tile": 64})],
    ids=["higher than an engine", "wider than an engine", "reduced", "several tiles"],
)
def test_other_frames_take_two_passes(engines: Path, size: tuple[int, int], options: dict[str, int]) -> None:
    frame = pixels(*size)
    with gpu(3, integrated=False) as driver, resident(engines, **options) as tested:
        assert not tested.takes_one_pass(frame)
        tested(frame)
        assert ran(driver) == {"encode", "decode"}


def test_two_passes_where_full_runs_out_of_memory(engines: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pixels(96, 96)
    with gpu(3, integrated=False) as driver, resident(engines) as tested, on_host(engines) as reference:
        driver.capacity = driver.used() + 96 * 96 * (3 * 12 + 4 * 31 + SCRATCH) + 1000  # enough for two passes
        context = reference.encode(frame)
        np.testing.assert_array_equal(tested(frame, context), reference(frame, context))
        assert not caplog.records
        for _ in range(2):
            np.testing.assert_array_equal(tested(frame), reference(frame))
        assert not tested.takes_one_pass(frame)
    assert ["from now on all frames take two passes" in record.message for record in caplog.records] == [True]


def test_memory_of_earlier_frames_is_freed_before_full_is_given_up(
    engines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small, large = pixels(90, 90), pixels(200, 200)
    with gpu(3, integrated=False) as driver, resident(engines) as tested, on_host(engines) as reference:
        context = reference.encode(large)
        used = driver.used()
        tested(small)
        driver.capacity = driver.used() + (driver.used() - used) // 8
        for _ in range(2):  # each finds the other's memory taken
            np.testing.assert_array_equal(tested(small), reference(small))
            np.testing.assert_array_equal(tested(small, context), reference(small, context))
        assert tested.takes_one_pass(small)
    assert not caplog.records


def test_frames_take_two_passes_where_full_does_not_load(engines: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pixels(90, 90)
    full = (engines / "full.engine").read_bytes()

    def load(driver: Driver, graph: bytes, *rest: Any) -> EngineDouble:
        if graph == full:
            raise OutOfMemoryError("the GPU has too little memory")
        return EngineDouble(driver, graph, *rest)

    with (
        mock.patch.object(engine_double, "EngineDouble", load),
        gpu(3, integrated=False),
        resident(engines) as tested,
        on_host(engines) as reference,
    ):
        assert not tested.takes_one_pass(frame)
        np.testing.assert_array_equal(tested(frame), reference(frame))
    (record,) = caplog.records
    assert record.message.endswith("full.engine: the GPU has too little memory; all frames take two passes")
