"""Engines and execution contexts: scratch memory that they share, and memory that runs out in any place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.tensorrt import TensorRTBackend
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError
from ccnet.runtime.gpu.scratch import Scratch
from tests.runtime.conftest import manifest, pixels
from tests.runtime.gpu.driver_double import Driver
from tests.runtime.gpu.engine_double import SCRATCH, ContextDouble, EngineDouble
from tests.runtime.tiles.resident.conftest import gpu, on_host, resident, write_engines

TENSORRTS_WORDS = "Error Code 2: OutOfMemory (Requested size was 8589934592 bytes.)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engines(tmp_path_factory.mktemp("engines"), manifest())


@pytest.fixture
def driver() -> Iterator[Driver]:
    with gpu(0, integrated=False) as driver:
        yield driver


def decode_feeds(side: int) -> dict[str, Any]:
    rng = np.random.default_rng(side)
    return {"rgb": rng.random((1, 3, side, side), np.float32), "context": rng.random((1, 3), np.float32)}


def opened(folder: Path, kind: str = "decode", scratch: Scratch | None = None) -> TensorRTBackend:
    return TensorRTBackend((folder / f"{kind}.engine").read_bytes(), scratch=scratch)


@pytest.mark.usefixtures("driver")
def test_contexts_share_a_block_of_the_larger_need(folder: Path) -> None:
    scratch = Scratch()
    with opened(folder, "encode", scratch) as encode, opened(folder, "decode", scratch) as decode:
        alone = {side: decode.run(decode_feeds(side))["cube"] for side in (48, 64)}
        assert scratch.nbytes == SCRATCH * 64**2
        before = scratch.address
        encode.run({"rgb": decode_feeds(96)["rgb"]})
        assert scratch.nbytes == SCRATCH * 96**2 and scratch.address != before
        for side, cube in alone.items():  # its old address is no longer allocated, which the double reports
            np.testing.assert_array_equal(decode.run(decode_feeds(side))["cube"], cube)
        assert scratch.nbytes == SCRATCH * 96**2, "it never shrinks by itself"
    assert (scratch.nbytes, scratch.address) == (0, 0)


def test_a_smaller_shape_needs_less_memory_after_an_error(folder: Path, driver: Driver) -> None:
    with opened(folder) as decode:
        expected = decode.run(decode_feeds(48))["cube"]
        driver.capacity = 900_000
        with pytest.raises(OutOfMemoryError, match="use smaller tiles or free GPU memory"):
            decode.run(decode_feeds(96))
        np.testing.assert_array_equal(decode.run(decode_feeds(48))["cube"], expected)


@pytest.mark.parametrize(("reason", "kind"), [(TENSORRTS_WORDS, OutOfMemoryError), ("no kernel", CCNetError)])
def test_errors_of_tensorrt_are_out_of_memory_errors_by_their_reason(
    folder: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch, reason: str, kind: type[CCNetError]
) -> None:
    monkeypatch.setattr(trt.log("tensorrt"), "reason", lambda: reason)
    with opened(folder) as decode:
        for side, function in ((48, "execute_async_v3"), (64, "set_input_shape")):
            with monkeypatch.context() as patch:
                patch.setattr(ContextDouble, function, lambda *_: False)
                with pytest.raises(CCNetError, match=reason.split()[0]) as caught:
                    decode.run(decode_feeds(side))
            assert type(caught.value) is kind and "\n" not in str(caught.value)
        decode.run(decode_feeds(48))
    monkeypatch.setattr(EngineDouble, "create_execution_context", lambda *_: None)
    with pytest.raises(CCNetError, match="cannot start the engine") as caught:
        opened(folder)
    assert type(caught.value) is kind


@pytest.mark.parametrize("stays_on_gpu", [True, False])
@pytest.mark.parametrize("size", [(150, 100), (96, 200)])
def test_a_frame_is_right_where_only_smaller_tiles_have_memory(
    folder: Path, caplog: pytest.LogCaptureFixture, stays_on_gpu: bool, size: tuple[int, int]
) -> None:
    frame = pixels(*size, dtype="float32")
    with on_host(folder, tile=96) as reference:
        expected = reference(frame)
    with ExitStack() as stack:
        driver = stack.enter_context(gpu(0, integrated=False, has_sum=stays_on_gpu))
        reconstruct = stack.enter_context(resident(folder, tile=96))
        driver.capacity = 1_500_000 if stays_on_gpu else 900_000
        caplog.clear()
        cube = reconstruct(frame)
        assert reconstruct.tile < 96
        np.testing.assert_allclose(cube, expected, atol=1e-5)
        (line,) = (record.getMessage() for record in caplog.records)
        assert "OUT_OF_MEMORY" in line and f"{reconstruct.tile} px" in line
        np.testing.assert_array_equal(reconstruct(frame), cube)
        assert len(caplog.records) == 1, "never said again"
